"""Procedural images: a coloured creature, off-centre, in a muted cluttered scene.

Three cues show the class and always agree: a hue, a coarse texture, and the outline of the head.
The hue faintly tints the whole body; the head and a few marks have all three cues. Distractors
have the same textures and outlines, but not the hue.

Training also uses scenes without a creature, which belong to no class.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 256
TEXTURES = ("stripes", "rings", "checks", "dots", "zigzag", "spokes")
HUES = ("red", "orange", "yellow", "lime", "green", "mint",
        "cyan", "azure", "blue", "violet", "magenta", "rose")  # fmt: skip


@dataclass(frozen=True)
class CreatureClass:
    """A class: hue in turns (0-1), name of the texture, lobes of the head's outline."""

    name: str
    hue: float
    texture: str
    lobes: int


CLASSES = [
    CreatureClass(f"{hue} {TEXTURES[i % 6]}", i / 12, TEXTURES[i % 6], 3 + i % 4)
    for i, hue in enumerate(HUES)
]

EMPTY = len(CLASSES)  # the label of a scene without a creature, which has no class


@dataclass(frozen=True)
class Scene:
    """An image with what is needed to simulate people who look at it.

    image : (256, 256, 3) uint8
    label : index into `CLASSES`, or EMPTY
    diagnosticity : (256, 256) float32 in 0-1, how much each place reveals about the class
    """

    image: np.ndarray
    label: int
    diagnosticity: np.ndarray


def _tone(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise in 0-1: a random grid of `cells` a side, enlarged cubically."""
    grid = rng.random((cells + 3, cells + 3), dtype=np.float32)
    t = np.linspace(0, cells, SIDE, endpoint=False, dtype=np.float32)
    base = t.astype(int)
    f = t - base
    # Uniform cubic B-spline weights of the four grid lines around each pixel.
    weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4,
                        -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3]) / 6  # fmt: skip
    spread = np.zeros((SIDE, cells + 3), dtype=np.float32)
    for k in range(4):
        spread[np.arange(SIDE), base + k] += weights[k]
    return spread @ grid @ spread.T


def _pattern(kind: str, u: np.ndarray, v: np.ndarray, wavelength: float) -> np.ndarray:
    """A two-tone texture in 0-1 over coordinates in pixels from the part's centre."""
    k = 2 * np.pi / wavelength
    waves: dict[str, Callable[[], np.ndarray]] = {
        "stripes": lambda: np.sin(k * u),
        "rings": lambda: np.sin(k * np.hypot(u, v)),
        "checks": lambda: 2 * np.sin(k * u / 1.4) * np.sin(k * v / 1.4),
        "dots": lambda: np.cos(k * u / 1.2) + np.cos(k * v / 1.2) - 0.6,
        "zigzag": lambda: np.sin(k * (u + wavelength / 2 * np.abs((v / wavelength) % 2 - 1))),
        "spokes": lambda: np.sin(7 * np.arctan2(v, u)),
    }
    return np.clip(waves[kind]() * 2 + 0.5, 0, 1).astype(np.float32)


class _Canvas:
    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.image = self._background()
        self.diagnosticity = np.zeros((SIDE, SIDE), dtype=np.float32)

    def _background(self) -> np.ndarray:
        rng = self.rng
        first, second = (
            _tone(rng.random(), rng.uniform(0.0, 0.14), rng.uniform(0.3, 0.8)) for _ in range(2)
        )
        mix = 0.6 * _noise(rng, 4) + 0.25 * _noise(rng, 16) + 0.15 * _noise(rng, 48)
        mix = np.clip((mix - 0.5) * 2.5 + 0.5, 0, 1)[..., None]
        image = first * mix + second * (1 - mix)
        return image + rng.normal(0, 0.02, image.shape).astype(np.float32)

    def part(
        self,
        centre: tuple[float, float],
        radius: float,
        tones: tuple[np.ndarray, np.ndarray],
        texture: str,
        *,
        lobes: int = 0,
        diagnosticity: float = 0.0,
    ) -> None:
        """Paint a textured part: an irregular blob, or a star with `lobes` lobes."""
        rng, (cy, cx) = self.rng, centre
        reach = radius * 1.6
        y0, y1 = max(0, int(cy - reach)), min(SIDE, int(cy + reach) + 2)
        x0, x1 = max(0, int(cx - reach)), min(SIDE, int(cx + reach) + 2)
        wobble = [(k, 0.16 / k * rng.normal(), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)]
        turn, wavelength = rng.uniform(0, 2 * np.pi), rng.uniform(9, 13)
        light = rng.uniform(0, 2 * np.pi)
        if y0 >= y1 or x0 >= x1:
            return
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        y, x = y - cy, x - cx
        angle = np.arctan2(y, x)
        edge = 1 + sum(a * np.cos(k * angle + phase) for k, a, phase in wobble)
        if lobes:
            edge = 1 + 0.3 * np.cos(lobes * angle + turn)
        distance = np.hypot(x, y)
        mask = np.clip((radius * edge - distance) / 1.5 + 0.5, 0, 1)
        u = x * np.cos(turn) + y * np.sin(turn)
        v = y * np.cos(turn) - x * np.sin(turn)
        texel = _pattern(texture, u, v, wavelength)[..., None]
        shade = 1 + 0.18 * (x * np.cos(light) + y * np.sin(light)) / radius
        colour = (tones[0] * texel + tones[1] * (1 - texel)) * shade[..., None]
        window = np.s_[y0:y1, x0:x1]
        self.image[window] += mask[..., None] * (colour - self.image[window])
        # A nearer part hides the diagnosticity of a farther one.
        told = self.diagnosticity[window]
        told += mask * (diagnosticity - told)

    def creature(
        self, centre: tuple[float, float], radius: float, kind: CreatureClass, vivid: bool
    ) -> None:
        """Paint a body, then marks and head in the class's texture; muted unless vivid."""
        rng, (cy, cx) = self.rng, centre
        hue = kind.hue + rng.uniform(-0.012, 0.012)
        strong = rng.uniform(0.8, 0.95) if vivid else rng.uniform(0.0, 0.1)
        faint = strong * 0.4
        bright, dark = rng.uniform(0.8, 0.95), rng.uniform(0.25, 0.4)
        body = (_tone(hue, faint, rng.uniform(0.6, 0.75)), _tone(hue, faint, rng.uniform(0.5, 0.6)))
        cues = (_tone(hue, strong, bright), _tone(hue, strong, dark))
        weight = 1.0 if vivid else 0.0
        self.part(centre, radius, body, "rings", diagnosticity=0.15 * weight)
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(rng.integers(1, 3)):
            direction = heading + rng.uniform(0.5, 1.5) * np.pi
            reach = radius * rng.uniform(0.3, 0.7)
            place = (cy + reach * np.sin(direction), cx + reach * np.cos(direction))
            self.part(place, radius * 0.33, cues, kind.texture, diagnosticity=0.5 * weight)
        head = (cy + 0.9 * radius * np.sin(heading), cx + 0.9 * radius * np.cos(heading))
        size = radius * rng.uniform(0.55, 0.7)
        self.part(head, size, cues, kind.texture, lobes=kind.lobes, diagnosticity=weight)

    def clutter(self) -> None:
        rng = self.rng
        for _ in range(rng.integers(5, 10)):
            tones = tuple(
                _tone(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.25, 0.85)) for _ in range(2)
            )
            place = tuple(rng.uniform(0, SIDE, 2))
            self.part(place, rng.uniform(6, 20), tones, str(rng.choice(TEXTURES)),
                      lobes=int(rng.choice([0, 3, 5])))  # fmt: skip


def make_scene(seed: int, split: int, index: int, empty: bool = False) -> Scene:
    """The scene with this number, which is always the same; splits share no image.

    The creature's centre lies 50-74 px from the image's centre, and its body has a radius of
    32-50 px.
    """
    rng = np.random.default_rng([seed, split, index])
    label = EMPTY if empty else index % len(CLASSES)
    canvas = _Canvas(rng)
    canvas.clutter()
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(50, 74)
    middle = SIDE / 2
    centre = (middle + distance * np.sin(direction), middle + distance * np.cos(direction))
    for _ in range(rng.integers(1, 4)):
        place = tuple(rng.uniform(24, SIDE - 24, 2))
        decoy = CLASSES[rng.integers(len(CLASSES))]
        if np.hypot(place[0] - centre[0], place[1] - centre[1]) > 70:
            canvas.creature(place, rng.uniform(18, 36), decoy, vivid=False)
    if not empty:
        canvas.creature(centre, rng.uniform(32, 50), CLASSES[label], vivid=True)
    pixels = np.clip(canvas.image * 255 + 0.5, 0, 255).astype(np.uint8)
    return Scene(pixels, label, canvas.diagnosticity)
