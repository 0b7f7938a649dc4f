"""The explorer of notebook 03: controls, and the images that follow them.

`explore(study)` shows it. `lib.explorer.explained` computes what it shows and `lib.explorer.panel`
draws it. This module has only the widgets, and the static image that replaces them.
"""

from __future__ import annotations

import asyncio
import base64
import html
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import Image, display
from PIL.Image import Image as Pixels

from ..base.paths import STAGING
from ..study.study import Study
from .explained import Explainer, Seen, View, has_floor
from .panel import draw_kernels, draw_view, in_words, png, stacked

_OPACITY = 0.65  # as in the figures
PAUSE = 0.05  # seconds between steps that prepare ahead, so that clicks are handled
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Controls and images for one study; `explore` makes and shows one.

    backbone, method, floor, opacity, image, upload, layer : the controls
    panel, kernels : PNG images of the maps and of a layer's kernels
    message        : a description of what is shown, or of an error
    box            : the widget that contains everything, for display
    Raises StoredError or WeightsError if nothing can be shown.
    """

    def __init__(self, study: Study):
        self.explainer = Explainer(study)
        self.caveat = study.choices.profile.caveat
        self._quiet = False
        backbones, methods = self.explainer.backbones.values(), self.explainer.methods.values()
        method = study.choices.prefer_method()
        self.backbone = _choice("network", [(b.label, b.key) for b in backbones])
        self.backbone.value = study.networks.prefer("convnext_base")[0].key
        self.method = _choice("method", [(m.label, m.key) for m in methods])
        self.method.value = method.key
        self.floor = _slider("floor", method.floor, 0.95)
        self.opacity = _slider("opacity", _OPACITY, 1.0)
        self.image = _choice("image", [(p.title, p) for p in self.explainer.images])
        self.upload = widgets.FileUpload(accept="image/*", description="your image")
        self.layer = _choice("kernels of", [])
        self.layer.layout.width = "390px"
        self.panel, self.kernels = (_image(name) for name in ("maps", "kernels"))
        self.message = widgets.HTML()
        # Not within `_told`, because the notebook must stop if nothing can be shown.
        self._quiet = True
        self._follow_method()
        self._follow_backbone()
        self._draw_maps()
        self._quiet = False
        self._connect()
        rows = (
            [self.backbone, self.method, self.floor], [self.image, self.upload, self.opacity],
        )  # fmt: skip
        wrapped = widgets.Layout(flex_flow="row wrap", align_items="center")
        controls = [widgets.HBox(row, layout=wrapped) for row in rows]
        shown = [self.message, self.panel, self.layer, self.kernels]
        self.box = widgets.VBox([*controls, *shown])

    def still(self) -> bytes:
        """Return the current choice as one PNG file. Raises what `Explainer.view` raises."""
        images = [draw_view(self.chosen_view(), self.opacity.value, self.caveat)]
        if self.layer.value:
            images.append(self._drawn_kernels())
        return png(stacked(*images))

    # --- reactions to a change --------------------------------------------------------------

    def _connect(self) -> None:
        for control in (self.floor, self.opacity, self.image):
            control.observe(self._heard(), "value")
        self.method.observe(self._heard(self._follow_method), "value")
        self.backbone.observe(self._heard(self._follow_backbone), "value")
        self.layer.observe(self._heard(self._draw_kernels, maps=False), "value")
        self.upload.observe(self._heard(self._take_upload), "value")

    def _heard(self, first: Callable[[], None] | None = None, maps: bool = True):
        """A handler of changes: it calls `first`, then draws new maps. It ignores changes that
        another handler makes."""

        def heard(_change: Any) -> None:
            if self._quiet:
                return
            with self._told():
                if first is not None:
                    first()
                if maps:
                    self._draw_maps()
                else:
                    self._say(self._words)  # describes the maps, and replaces an earlier error

        return heard

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A context that shows errors in the message line. A traceback in a callback would go to a
        log that nobody sees, and the image would seem to show the new choice."""
        self._quiet = True
        try:
            yield
        except Exception as error:
            self._say(f"{error or type(error).__name__}", wrong=True)
        finally:
            self._quiet = False

    def _say(self, text: str, wrong: bool = False) -> None:
        text = html.escape(text)
        if wrong:
            after = "The images below still show the last choice." if self.panel.value else ""
            text = f'<span role="alert" style="color:#a00000">{text} {after}</span>'
        self.message.value = text

    def _follow_method(self) -> None:
        """Set the floor to the method's own, and enable the slider if the method has a floor."""
        method = self.explainer.methods[self.method.value]
        self.floor.value = method.floor
        self.floor.disabled = not has_floor(method)

    def _follow_backbone(self) -> None:
        layers = self.explainer.layers(self.backbone.value)
        self.layer.options = layers
        self.layer.value = layers[0] if layers else None
        self._draw_kernels()

    def _take_upload(self) -> None:
        if not self.upload.value:
            return
        file = self.upload.value[0]
        self.upload.value = ()  # so that the same file can be chosen again
        own = self.explainer.uploaded(io.BytesIO(bytes(file["content"])), file["name"])
        self.image.options = [*self.image.options, (own.title, own)]
        self.image.value = own

    def chosen_view(self) -> View:
        chosen: Seen = self.image.value
        return self.explainer.view(self.backbone.value, self.method.value, self.floor.value, chosen)

    def _draw_maps(self) -> None:
        method = self.explainer.methods[self.method.value]
        if method.forwards:
            self._say(f"{method.label} needs many forward passes: please wait …")
        view = self.chosen_view()
        self.panel.value = png(draw_view(view, self.opacity.value, self.caveat))
        self._words = _in_a_line(view)
        self._say(self._words)

    def _draw_kernels(self) -> None:
        self.kernels.value = png(self._drawn_kernels()) if self.layer.value else b""

    def _drawn_kernels(self) -> Pixels:
        key, layer = self.backbone.value, self.layer.value
        found = self.explainer.kernels(key, layer)
        return draw_kernels(found, self.explainer.backbones[key].label, layer)


def _choice(name: str, options: list) -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=name)


def _slider(name: str, value: float, most: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=value, min=0.0, max=most, step=0.05, description=name, readout_format=".2f"
    )


def _image(name: str) -> widgets.Image:
    layout = widgets.Layout(max_width="100%", align_self="flex-start")  # never enlarged
    image = widgets.Image(format="png", layout=layout)
    image.add_class(f"explorer-{name}")
    return image


def _in_a_line(view: View) -> str:
    """The view in words, for readers who cannot see it."""
    found = [
        f"{'with DCLS' if shown.dcls else 'plain'}: {in_words(shown)}, "
        f"answer “{shown.top[0][0]}” ({100 * shown.top[0][1]:.0f} %)"
        for shown in view.explanations
    ]
    return f"{view.backbone.label}, {view.method}, {view.image.title}. {'; '.join(found)}."


def is_live() -> bool:
    """Return whether a user is at a frontend that can show widgets.

    With each cell, a notebook's frontend states whether its user can be asked for input
    (`allow_stdin` in Jupyter's protocol). JupyterLab and similar frontends say yes. Programs that
    run notebooks (papermill, nbclient, nbconvert --execute) say no, and they would not move a
    slider either. `run_all.py` is recognised by its staging folder, and scripts have no kernel.
    """
    shell = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if os.environ.get(STAGING) or kernel is None:
        return False
    request = kernel.get_parent("shell") or {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def explore(study: Study, live: bool | None = None) -> Explorer:
    """Show one image as the study's networks see it, with controls if they work.

    live : True for controls, False for one static image; None uses `is_live`
    Returns the explorer. Raises StoredError or WeightsError if nothing can be shown.
    """
    explorer = Explorer(study)
    still, words = explorer.still(), html.unescape(explorer.message.value)
    if not (is_live() if live is None else live):
        display(Image(still, format="png", alt=words))
        return explorer
    bundle = explorer.box._repr_mimebundle_()
    # The same as an image, in addition to the controls: exports to HTML and viewers without a
    # kernel have no widgets and show the image.
    pixels = base64.b64encode(still).decode("ascii")
    view = {WIDGET_VIEW: bundle[WIDGET_VIEW], "image/png": pixels}
    display(view | {"text/plain": words}, raw=True)
    prepare = explorer.explainer.prepare
    when_idle([*(partial(prepare, key) for key in explorer.explainer.backbones), _warm_up])
    return explorer


def _warm_up() -> None:
    # The import takes a second, so it is done before the first use of one of the package's methods.
    import_module("..maps.package_cams", __package__)


def when_idle(steps: list[Callable[[], None]]) -> None:
    """Do the steps one by one, and handle the user's actions in between.

    Without a running event loop, such as outside a kernel, all are done at once.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        for step in steps:
            step()
        return

    def go_on() -> None:
        steps.pop(0)()
        if steps:
            loop.call_later(PAUSE, go_on)

    loop.call_later(PAUSE, go_on)
