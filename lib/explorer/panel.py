"""The explorer's images, composed pixel by pixel, with a new one for every move of a slider.

Layout takes hundredths of a second; a matplotlib figure would take tenths.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import SymLogNorm
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from ..figures.heatmaps import overlay
from ..figures.style import HEATMAP_COLOURS, KERNEL_COLOURS
from .explained import Explanation, View

_TILE, _GAP, _HEAD, _SCALE = 272, 14, 46, 104  # pixels; the scale stands on the right
_LINE, _TEXT, _SMALL = 19, 14, 12
_KERNEL = 102  # six screen pixels for each of seventeen
_NAMES = 96  # width of the names beside kernels
_LINEAR = 0.02  # colours are linear within this share of a kernel's largest weight
_INK, _FAINT, _BAR, _BEYOND = "#222222", "#666666", "#cfe3ef", "#e4e4e4"
_WARNING = "#a00000"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # DejaVu Sans comes with matplotlib, so every machine draws the same.
    weight = "bold" if bold else "normal"
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight=weight)), size)


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, shortened with an ellipsis if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def in_words(shown: Explanation) -> str:
    """Return the agreement with people in words, or why there is none."""
    if shown.constant:
        return "constant map: all values are equal, so there is no ρ"
    if shown.why:
        return f"ρ: n/a ({shown.why})"
    return f"ρ = {shown.rho:.3f}".replace("-", "−")


def draw_view(view: View, opacity: float, caveat: str = "") -> Image.Image:
    """Draw the image, the human map and each network's map side by side, with its classes.

    opacity : opacity of the maps over the image, 0-1
    caveat  : a line printed at the bottom; "" for none
    Returns an RGB image, which is one tile narrower without a human map, and without a DCLS form.
    """
    image, model = view.image, view.backbone.label
    tiles = [(image.pixels, "image", image.title, None)]
    if view.human_map is not None:
        people = overlay(image.pixels, view.human_map, opacity)
        flat = view.human_map.min() == view.human_map.max()
        about = "constant human map" if flat else f"human map, {view.protocol.label}"
        tiles.append((people, "where people looked", about, None))
    for shown in view.explanations:
        name = f"{model} with DCLS" if shown.dcls else f"{model}, plain"
        mixed = overlay(image.pixels, shown.heatmap, opacity)
        tiles.append((mixed, name, in_words(shown), shown))
    below = 30 + _LINE * max(len(shown.top) for shown in view.explanations)
    width = len(tiles) * (_TILE + _GAP) + _GAP + _SCALE
    told = _wrapped(_told(view), width - 2 * _GAP, _font(_SMALL))
    warned = _wrapped(caveat, width - 2 * _GAP, _font(_SMALL)) if caveat else []
    foot = _HEAD + _TILE + below + 8
    canvas = Image.new("RGB", (width, foot + 17 * (len(told) + len(warned)) + 8), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (pixels, title, about, shown) in enumerate(tiles):
        left = _GAP + number * (_TILE + _GAP)
        bold, small = _font(_TEXT, True), _font(_SMALL + 1)
        draw.text((left, 6), _fitted(title, _TILE, bold), _INK, bold)
        warn = shown is not None and (shown.constant or bool(shown.why))
        draw.text((left, 25), _fitted(about, _TILE, small), _WARNING if warn else _INK, small)
        canvas.paste(_tile(pixels), (left, _HEAD))
        if shown is not None:
            _draw_classes(draw, shown, view.truth, left, _HEAD + _TILE + 6)
    _draw_scale(canvas, draw, width - _SCALE + 4)
    for line, text in enumerate(told + warned):
        colour = _FAINT if line < len(told) else _WARNING
        draw.text((_GAP, foot + 17 * line), text, colour, _font(_SMALL))
    return canvas


def _told(view: View) -> str:
    """The caption of the image, in complete sentences."""
    asked = list(dict.fromkeys(f"“{shown.asked}”" for shown in view.explanations))
    whose = "the predicted class" if view.predicted else "the image's class"
    said = [f"{view.method}: evidence for {whose} {' and '.join(asked)}."]
    cropped = any(np.isnan(shown.heatmap).any() for shown in view.explanations)
    if view.human_map is not None:
        reading = f"ρ: Spearman's correlation with the human map, {view.protocol.label}"
        stretched = cropped and "crop" not in view.protocol.mends
        said.append(reading + (", maps stretched over the whole image." if stretched else "."))
    if cropped:
        said.append("Grey border: the part that was cropped before the network saw the image.")
    if view.truth:
        said.append("✓: the image's class.")
    if not view.backbone.dcls:
        said.append(f"{view.backbone.label} has no DCLS form.")
    return " ".join(said)


def _tile(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((_TILE, _TILE), Image.Resampling.BILINEAR)


def _draw_classes(
    draw: ImageDraw.ImageDraw, shown: Explanation, truth: str, left: int, top: int
) -> None:
    """Draw the most probable classes: name, probability, and a bar of that length."""
    small = _font(_SMALL)
    draw.text((left, top), "likeliest classes", _FAINT, small)
    for line, (name, share) in enumerate(shown.top, 1):
        y = top + line * _LINE
        draw.rectangle((left, y - 1, left + max(1, round(share * _TILE)), y + _LINE - 4), _BAR)
        number = f"{100 * share:.1f} %"
        mark = " ✓" if name == truth else ""
        text = _fitted(name, _TILE - 80, small) + mark
        draw.text((left + 4, y), text, _INK, small)
        draw.text((left + _TILE - small.getlength(number), y), number, _INK, small)


def _draw_scale(image: Image.Image, draw: ImageDraw.ImageDraw, left: int) -> None:
    """Draw the scale of the overlaid colours, which is each map's own range."""
    ramp = colormaps[HEATMAP_COLOURS](np.linspace(1, 0, _TILE - 64))[:, None, :3]
    column = np.repeat((ramp * 255).round().astype(np.uint8), 14, axis=1)
    image.paste(Image.fromarray(column), (left, _HEAD + 32))
    for y, text in ((_HEAD, "map's\nmaximum"), (_HEAD + _TILE - 30, "map's\nminimum")):
        draw.multiline_text((left, y), text, _INK, _font(_SMALL), spacing=2)


def draw_kernels(kernels: Mapping[bool, np.ndarray], label: str, layer: str) -> Image.Image:
    """Draw a layer's kernels, one row without DCLS and one with, at the same size of pixels.

    kernels : {dcls: (kernel, height, width)}; each is coloured on its own symmetric scale, linear
              around 0 and logarithmic beyond
    label, layer : names of backbone and layer
    Returns an RGB image.
    """
    window = max(max(k.shape[1:]) for k in kernels.values())
    count = max(len(k) for k in kernels.values())
    step = _KERNEL + 6
    width = max(_NAMES + count * step + _SCALE + 20, 760)
    image = Image.new("RGB", (width, 54 + len(kernels) * step + 26), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_GAP, 6), f"Kernels of {label}, layer {layer}", _INK, _font(_TEXT, True))
    about = f"first {count} output channels, first input channel each"
    draw.text((_GAP, 27), about, _INK, _font(_SMALL))
    for row, (dcls, stack) in enumerate(sorted(kernels.items())):
        top = 54 + row * step
        high, wide = stack.shape[1:]
        name = f"{'with DCLS' if dcls else 'plain'}\n{high} × {wide}"
        draw.multiline_text((_GAP, top + 34), name, _INK, _font(_SMALL + 1))
        for column, kernel in enumerate(stack):
            image.paste(_kernel_tile(kernel, window), (_NAMES + column * step, top))
    _draw_kernel_scale(image, draw, _NAMES + count * step + 8, len(kernels) * step - 6)
    foot = 54 + len(kernels) * step + 2
    sizes = {k.shape[1:] for k in kernels.values()}
    text = "Each kernel on its own scale, linear within ±0.02 and logarithmic beyond."
    if len(sizes) > 1:
        text += " Grey: beyond the plain kernel, within reach of DCLS."
    draw.text((_GAP, foot), text, _FAINT, _font(_SMALL))
    return image


def _kernel_tile(kernel: np.ndarray, window: int) -> Image.Image:
    """One kernel in the middle of a window, drawn with whole screen pixels."""
    zoom = _KERNEL // window
    reach = float(np.abs(kernel).max()) or 1.0
    norm = SymLogNorm(reach * _LINEAR, vmin=-reach, vmax=reach)
    colours = (colormaps[KERNEL_COLOURS](norm(kernel))[..., :3] * 255).round().astype(np.uint8)
    tile = Image.new("RGB", (_KERNEL, _KERNEL), _BEYOND)
    height, width = kernel.shape
    size = (width * zoom, height * zoom)
    drawn = Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)
    left, top = (
        (window - side) // 2 * zoom + (_KERNEL - window * zoom) // 2 for side in (width, height)
    )
    tile.paste(drawn, (left, top))
    return tile


def _draw_kernel_scale(
    image: Image.Image, draw: ImageDraw.ImageDraw, left: int, height: int
) -> None:
    norm = SymLogNorm(_LINEAR, vmin=-1, vmax=1)
    ramp = colormaps[KERNEL_COLOURS](np.linspace(1, 0, height))[:, None, :3]
    column = np.repeat((ramp * 255).round().astype(np.uint8), 14, axis=1)
    image.paste(Image.fromarray(column), (left, 54))
    for value, text in ((1, "1"), (0.1, ".1"), (0, "0"), (-0.1, "−.1"), (-1, "−1")):
        y = 54 + (1 - float(norm(value))) * (height - 1)
        draw.text((left + 20, y), text, _INK, _font(_SMALL - 1), anchor="lm")
    draw.multiline_text(
        (left + 46, 54 + height / 2), "weight ÷\nthe kernel's\nlargest", _INK, _font(_SMALL - 1),
        anchor="lm",
    )  # fmt: skip


def stacked(*images: Image.Image) -> Image.Image:
    """Return images stacked vertically on white."""
    width = max(image.width for image in images)
    whole = Image.new("RGB", (width, sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole


def png(image: Image.Image) -> bytes:
    """Return the image as a PNG file, compressed for speed rather than size."""
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()
