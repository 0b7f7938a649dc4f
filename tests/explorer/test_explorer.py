"""The explorer of notebook 03: what it computes, draws and says; and in a real browser."""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from scipy.stats import spearmanr

from lib.base.paths import NOTEBOOKS, OUTPUT, ROOT, STAGING
from lib.base.tables import UnknownName
from lib.explorer import explorer as module
from lib.explorer.explained import Explainer, offered_methods, with_floor
from lib.explorer.explorer import Explorer, explore, is_live
from lib.explorer.panel import draw_kernels, draw_view, in_words
from lib.maps.methods import METHODS
from lib.people.human_maps import published_human_maps
from lib.study.study import Study

KEYS = ["resnet50", "caformer_s18"]  # the one crops its images, the other does not


def two_models(**choices) -> Study:
    return Study.from_profile("demo", models=KEYS, **choices)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(two_models(), images=4)


@pytest.fixture
def shown() -> Explorer:
    return Explorer(two_models(limit=4))


def by_hand(key: str, dcls: bool, seen) -> tuple[torch.Tensor, torch.Tensor]:
    """(7, 7) weighted features' parts (channel, h, w) and (class,) logits, by torch alone."""
    model = Study.from_profile("demo").networks.load_model(key, dcls)
    with torch.no_grad():
        features = model.features(model.prepare(seen.pixels[None]))
    features.requires_grad_()
    logits = model.head(features)
    (gradient,) = torch.autograd.grad(logits[0, seen.label], features)
    weighted = features * gradient.mean(dim=(2, 3), keepdim=True)
    return weighted[0].detach(), logits[0].detach()


def larger(small: torch.Tensor, size: int) -> np.ndarray:
    return torch.nn.functional.interpolate(small[None, None], (size, size), mode="bilinear")[
        0, 0
    ].numpy()


# --- what is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_rho_classes_and_maps_are_those_of_their_definitions(explainer, key):
    seen = explainer.images[1]
    view = explainer.view(key, "grad_cam", 0.0, seen)
    names = explainer.study.networks.class_names()
    human = published_human_maps(seen.stored_map[None])[0].numpy()
    np.testing.assert_array_equal(view.human_map, human)
    assert [e.dcls for e in view.explanations] == [False, True]
    for found in view.explanations:
        weighted, logits = by_hand(key, found.dcls, seen)
        small = weighted.mean(dim=0).relu()
        rho = spearmanr(larger(small, 224).ravel(), human.ravel()).statistic
        assert found.rho == pytest.approx(rho, abs=2e-3)  # folded kernels' last digits
        assert found.why == ""
        assert not found.constant
        assert found.asked == names[seen.label]
        shares, classes = logits.softmax(dim=0).sort(descending=True)
        assert [name for name, _ in found.top] == [names[int(c)] for c in classes[:5]]
        np.testing.assert_allclose([p for _, p in found.top], shares[:5], atol=1e-4)
        inside = view.backbone.preprocessing.window(224)
        size = inside.stop - inside.start
        np.testing.assert_allclose(
            found.heatmap[inside, inside], larger(small, size), atol=1e-4 * float(small.max())
        )
        assert np.isfinite(found.heatmap).sum() == size**2


@pytest.mark.parametrize("floor", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("method", ["grad_cam", "threshold_grad_cam", "relu_first"])
def test_the_floor_raises_a_map_as_the_familys_formula_does(explainer, method, floor):
    seen = explainer.images[0]
    found = explainer.view("caformer_s18", method, floor, seen).explanations[0]
    weighted, _ = by_hand("caformer_s18", False, seen)
    small = weighted.mean(dim=0).relu() if method == "grad_cam" else weighted.relu().mean(dim=0)
    if floor:
        small = (small - small.min()) / (small.max() - small.min())
        small = small.clamp(min=floor)
        assert found.heatmap.min() == pytest.approx(floor, abs=1e-6)
    np.testing.assert_allclose(found.heatmap, larger(small, 224), atol=1e-3 * float(small.max()))


def test_a_floor_is_told_and_other_methods_have_none(explainer):
    seen = explainer.images[0]
    assert explainer.view(KEYS[0], "grad_cam", 0.0, seen).method == "Grad-CAM"
    assert explainer.view(KEYS[0], "grad_cam", 0.45, seen).method == "Grad-CAM, floor 0.45"
    assert explainer.view(KEYS[0], "threshold_grad_cam", 0.3, seen).method == "Threshold-Grad-CAM"
    assert with_floor(METHODS["hires_cam"], 0.5) is METHODS["hires_cam"]
    with pytest.raises(ValueError, match="floor must lie in"):
        with_floor(METHODS["grad_cam"], 1.0)


def test_offered_are_the_quick_methods_and_the_studys_own():
    keys = [m.key for m in offered_methods(two_models().choices)]
    assert keys[:2] == ["grad_cam", "threshold_grad_cam"]
    assert {"hires_cam", "finer_cam", "relu_first", "random_cam"} <= set(keys)
    assert not {"score_cam", "lime", "lcam_fm", "grad_cam_floor_0.1"} & set(keys)
    own = [m.key for m in offered_methods(two_models(methods=["score_cam"]).choices)]
    assert own[0] == "score_cam"
    assert len(own) == len(set(own)) == len(keys) + 1


def test_every_offered_method_gives_maps(explainer):
    for key, method in explainer.methods.items():
        view = explainer.view("caformer_s18", key, method.floor, explainer.images[2])
        for found in view.explanations:
            assert found.heatmap.shape == (224, 224)
            assert found.why or -1 <= found.rho <= 1


def test_another_method_or_floor_costs_no_forward(explainer, monkeypatch):
    seen = explainer.images[3]
    explainer.view("resnet50", "grad_cam", 0.0, seen)
    monkeypatch.setattr("lib.explorer.explained.head_pass", lambda *_: pytest.fail("a forward"))
    explainer.view("resnet50", "layer_cam", 0.0, seen)
    explainer.view("resnet50", "grad_cam", 0.25, seen)


def test_torchs_threads_are_as_they_were(explainer):
    before = torch.get_num_threads()
    with pytest.raises(UnknownName):
        explainer.view("resnet50", "grad_kam", 0.0, explainer.images[0])
    explainer.view("resnet50", "grad_cam", 0.0, explainer.images[0])
    assert torch.get_num_threads() == before


def test_kernels_are_the_networks_own(explainer):
    layers = explainer.layers("resnet50")
    found = explainer.kernels("resnet50", layers[-1])
    plain = explainer.study.networks.load_model("resnet50", False).network.get_submodule(layers[-1])
    np.testing.assert_array_equal(found[False], plain.weight.detach()[:8, 0].numpy())
    assert found[True].shape == (8, 7, 7)
    learned = explainer.study.networks.load_model("resnet50", True).network.get_submodule(
        layers[-1]
    )
    assert learned.kernel_count == 5
    # Five points, each interpolated over at most four pixels.
    assert ((found[True] != 0).sum(axis=(1, 2)) <= 20).all()
    with pytest.raises(UnknownName, match="layer"):
        explainer.kernels("resnet50", "layer9")


def test_a_backbone_without_a_dcls_form_is_shown_plain(explainer, monkeypatch):
    alone = replace(explainer.backbones["caformer_s18"], dcls=None)
    other = Explainer(two_models(), images=1)
    monkeypatch.setitem(other.backbones, "caformer_s18", alone)
    view = other.view("caformer_s18", "grad_cam", 0.0, other.images[0])
    assert [e.dcls for e in view.explanations] == [False]
    layers = other.layers("caformer_s18")
    assert "stages.0.blocks.0.token_mixer.dwconv" in layers
    assert set(other.kernels("caformer_s18", layers[0])) == {False}
    both = explainer.view("caformer_s18", "grad_cam", 0.0, explainer.images[0])
    assert draw_view(view, 0.5).width < draw_view(both, 0.5).width
    draw_kernels(other.kernels("caformer_s18", layers[0]), alone.label, layers[0])


def test_a_constant_map_is_said_to_be_constant(monkeypatch):
    other = Explainer(two_models(), images=1)
    monkeypatch.setattr(other, "small", lambda *_: torch.zeros(1, 7, 7))
    view = other.view("resnet50", "grad_cam", 0.0, other.images[0])
    for found in view.explanations:
        assert found.constant
        assert np.isnan(found.rho)
        assert "constant map" in in_words(found)
    draw_view(view, 0.65)


def test_maps_of_the_predicted_class_where_the_study_asks_for_it():
    other = Explainer(two_models(target="predicted"), images=3)
    for seen in other.images:
        for found in other.view("resnet50", "grad_cam", 0.0, seen).explanations:
            assert found.asked == found.top[0][0]


# --- a reader's own image -----------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def upload(explorer: Explorer, name: str, content: bytes) -> None:
    """As ipywidgets hands over a chosen file."""
    explorer.upload.value = (
        {"name": name, "type": "", "size": len(content), "content": memoryview(content),
         "last_modified": datetime.now(UTC)},
    )  # fmt: skip


def test_any_image_can_be_uploaded(shown):
    for image, kind in (
        (Image.new("L", (40, 90), 99), "PNG"), (Image.new("RGBA", (300, 60), (9, 0, 0, 0)), "PNG"),
        (Image.new("RGB", (500, 400), "red"), "JPEG"), (Image.new("P", (3, 3)), "GIF"),
        (Image.new("1", (1, 1)), "BMP"), (Image.new("CMYK", (64, 64)), "JPEG"),
    ):  # fmt: skip
        before = bytes(shown.panel.value)
        upload(shown, f"{image.mode}.{kind.lower()}", encoded(image, kind))
        assert f"{image.mode}.{kind.lower()} (yours)" in str(shown.image.options)
        assert "yours" in shown.image.value.title
        assert "ρ: n/a (no human map)" in shown.message.value
        assert bytes(shown.panel.value) != before
        assert shown.upload.value == ()
        found = shown.chosen_view()
        assert found.human_map is None
        assert found.predicted
        assert all(e.asked == e.top[0][0] for e in found.explanations)


PNG = encoded(Image.effect_noise((200, 200), 60))


def test_what_is_no_image_is_refused_in_words(shown):
    options = shown.image.options
    for opacity, content in (
        (0.1, b""), (0.2, b"no picture"), (0.3, PNG[: len(PNG) // 2]),
        (0.4, b"\xff\xd8\xff\xe0 hardly"), (0.5, encoded(Image.new("I;16", (20, 20)))),
    ):  # fmt: skip
        before = bytes(shown.panel.value)
        upload(shown, "<b>odd.png", content)
        assert "&lt;b&gt;odd.png is not a readable image" in shown.message.value
        assert "BytesIO" not in shown.message.value
        assert 'role="alert"' in shown.message.value
        assert bytes(shown.panel.value) == before
        assert shown.image.options == options
        shown.opacity.value = opacity  # and goes on
        assert "alert" not in shown.message.value


# --- controls -------------------------------------------------------------------------------------


def test_every_control_changes_the_image(shown):
    for control, value in (
        ("backbone", "caformer_s18"), ("method", "layer_cam"), ("opacity", 0.2),
        ("method", "threshold_grad_cam"), ("floor", 0.6),
    ):  # fmt: skip
        before = bytes(shown.panel.value)
        getattr(shown, control).value = value
        assert bytes(shown.panel.value) != before, control
        assert Image.open(io.BytesIO(shown.panel.value)).format == "PNG"


def test_image_and_layer_change_theirs(shown):
    maps, kernels = bytes(shown.panel.value), bytes(shown.kernels.value)
    shown.layer.value = shown.layer.options[1]
    assert bytes(shown.kernels.value) != kernels
    assert bytes(shown.panel.value) == maps
    shown.image.value = shown.image.options[1][1]
    assert bytes(shown.panel.value) != maps
    shown.backbone.value = "caformer_s18"
    assert shown.layer.options == tuple(shown.explainer.layers("caformer_s18"))


def test_a_method_brings_its_own_floor(shown):
    assert shown.method.value == "threshold_grad_cam"
    assert (shown.floor.value, shown.floor.disabled) == (0.3, False)
    shown.method.value = "hires_cam"
    assert (shown.floor.value, shown.floor.disabled) == (0.0, True)
    shown.method.value = "grad_cam"
    assert (shown.floor.value, shown.floor.disabled) == (0.0, False)


def test_what_fails_is_said_and_nothing_is_shown_for_it(shown, monkeypatch):
    before = bytes(shown.panel.value)

    def fails(*_):
        raise RuntimeError("no <memory>")

    monkeypatch.setattr(shown.explainer, "passed", fails)
    shown.method.value = "fem"
    assert "no &lt;memory&gt;" in shown.message.value
    assert "still show the last choice" in shown.message.value
    assert bytes(shown.panel.value) == before


def test_a_layer_that_fails_is_said_until_another_is_shown(shown, monkeypatch):
    words, kernels = shown.message.value, bytes(shown.kernels.value)
    with monkeypatch.context() as patched:
        patched.setattr(module, "draw_kernels", lambda *_: 1 / 0)
        shown.layer.value = shown.layer.options[1]
    assert "division by zero" in shown.message.value
    assert bytes(shown.kernels.value) == kernels
    shown.layer.value = shown.layer.options[2]
    assert shown.message.value == words


def test_the_demos_caveat_stands_below(shown):
    view = shown.chosen_view()
    assert draw_view(view, 0.5, shown.caveat).height > draw_view(view, 0.5).height
    assert shown.caveat == shown.explainer.study.choices.profile.caveat != ""


# --- without a frontend ---------------------------------------------------------------------------


@pytest.fixture
def displayed(monkeypatch) -> list:
    seen = []
    monkeypatch.setattr(module, "display", lambda what, **how: seen.append((what, how)))
    return seen


def fake_kernel(monkeypatch, content: dict | None) -> None:
    """A kernel that executes a request of this content; None for IPython without a kernel."""
    shell = SimpleNamespace()
    if content is not None:
        shell.kernel = SimpleNamespace(get_parent=lambda _channel: {"content": content})
    monkeypatch.setattr(module, "get_ipython", lambda: shell)


def test_controls_are_shown_where_somebody_can_move_them(monkeypatch):
    monkeypatch.delenv(STAGING, raising=False)
    assert not is_live()  # no IPython at all
    for content, live in (({"allow_stdin": True}, True), ({"allow_stdin": False}, False),
                          ({}, False), (None, False)):  # fmt: skip
        fake_kernel(monkeypatch, content)
        assert is_live() is live
    fake_kernel(monkeypatch, {"allow_stdin": True})
    monkeypatch.setenv(STAGING, "somewhere")
    assert not is_live()


def test_under_the_runner_a_static_image_stands_for_all(monkeypatch, displayed, tmp_path):
    fake_kernel(monkeypatch, {"allow_stdin": True})
    study = two_models(limit=2)  # before: a study remembers the folder
    monkeypatch.setenv(STAGING, str(tmp_path))
    explorer = explore(study)
    ((image, how),) = displayed
    assert how == {}
    assert image.data == explorer.still()
    assert Image.open(io.BytesIO(image.data)).width > 900
    assert not list(tmp_path.iterdir())


def test_live_or_static_can_be_forced(monkeypatch, displayed):
    fake_kernel(monkeypatch, {"allow_stdin": True})
    explore(two_models(limit=2), live=False)
    explorer = explore(two_models(limit=2), live=True)
    (image, _), (bundle, how) = displayed
    assert base64.b64decode(bundle["image/png"]) == image.data == explorer.still()
    assert bundle[module.WIDGET_VIEW]["model_id"] == explorer.box.model_id
    assert how == {"raw": True}


def test_what_is_made_ready_ahead_waits_for_its_turn():
    done = []

    async def in_a_kernel():
        module.when_idle([lambda: done.append(1), lambda: done.append(2)])
        assert done == []
        await asyncio.sleep(20 * module.PAUSE)

    asyncio.run(in_a_kernel())
    assert done == [1, 2]
    module.when_idle([lambda: done.append(3)])
    assert done == [1, 2, 3]


CELL = """from lib.explorer import explore
from lib.study import Study

explore(Study.from_profile("demo", models=["caformer_s18"], limit=4));"""


def write_cell(path: Path) -> Path:
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[new_code_cell(CELL)], metadata={"kernelspec": spec}), path)
    return path


def outputs_of(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [o.data for c in cells if "explore(" in c.source for o in c.get("outputs", [])
            if "data" in o]  # fmt: skip


def test_programs_that_run_notebooks_get_the_static_image(monkeypatch, displayed):
    """Of a kernel that one of them started, as it asks; nbconvert and papermill rest on nbclient."""
    monkeypatch.delenv(STAGING, raising=False)
    cell = new_code_cell("get_ipython().kernel.get_parent('shell')['content']")
    NotebookClient(new_notebook(cells=[cell])).execute()
    content = ast.literal_eval(cell.outputs[0]["data"]["text/plain"])
    assert content["code"] == cell.source
    fake_kernel(monkeypatch, content)
    explorer = explore(two_models(limit=2))
    ((image, how),) = displayed
    assert how == {}
    assert image.data == explorer.still()


@pytest.mark.slow  # of which the test above is the quick form
def test_nbconvert_gets_the_static_image(tmp_path, monkeypatch):
    monkeypatch.delenv(STAGING, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = write_cell(tmp_path / "small.ipynb")
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", path],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (data,) = outputs_of(path)
    assert "image/png" in data
    assert module.WIDGET_VIEW not in data


# --- in a browser ---------------------------------------------------------------------------------

ARTEFACTS = OUTPUT / "test-artefacts"
# Of JupyterLab's own, whatever the notebook; none is of the explorer.
HARMLESS: tuple[str, ...] = ()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A JupyterLab of its own over an empty folder: (folder, address)."""
    folder, own = tmp_path / "notebooks", tmp_path / "jupyter"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = own / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    settings = '{"fetchNews": "false", "checkForUpdates": false}'
    (quiet / "notification.jupyterlab-settings").write_text(settings)
    env = {k: v for k, v in os.environ.items() if k != STAGING} | {
        "PYTHONPATH": str(ROOT),  # this checkout's lib, whichever is installed
        "JUPYTER_CONFIG_DIR": str(own / "config"),
        "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "IPYTHONDIR": str(own / "ipython"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.token=",
        "--ServerApp.password=", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    log = tmp_path / "jupyter.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=env, stdout=file, stderr=file, cwd=folder)
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api") as answer:
                if answer.status == 200:
                    break
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield folder, address
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Lab:
    """A notebook in JupyterLab, as somebody at the screen has it."""

    def __init__(self, browser, address: str, name: str):
        self.wrong: list[str] = []
        self.seconds: dict[str, float] = {}
        self.context = browser.new_context(viewport={"width": 1640, "height": 1250})
        self.page = self.context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(f"{address}/lab/tree/{name}?reset")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)

    def _heard(self, message) -> None:
        if message.type == "error" and not any(words in message.text for words in HARMLESS):
            self.wrong.append(f"{message.text} ({message.location.get('url')})")

    def run_all(self) -> None:
        # Before its kernel has answered, JupyterLab would ask which one to take.
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        ask = self.page.get_by_role("button", name="Select Kernel", exact=True)
        self.page.add_locator_handler(ask, lambda button: button.click())
        try:
            self.image().wait_for(timeout=120_000)
        except Exception:
            self.keep("explorer_failed")
            raise

    def image(self, name: str = "maps"):
        return self.page.locator(f"img.explorer-{name}")

    def pixels(self, name: str = "maps") -> bytes:
        """What is on the screen, as PNG; b"" while the next image is being loaded."""
        # Drawn, not fetched: the widget takes an image's address back when the next one comes.
        read = """image => {
            if (!image.complete || !image.naturalWidth) return ',';
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext('2d').drawImage(image, 0, 0);
            return canvas.toDataURL('image/png');
        }"""
        return base64.b64decode(self.image(name).evaluate(read).partition(",")[2])

    def until_new(self, before: bytes, name: str = "maps", control: str = "") -> bytes:
        """The next PNG on the screen; how long it took is kept beside the screenshot."""
        started = time.monotonic()
        while (now := self.pixels(name)) in (b"", before):
            assert time.monotonic() < started + 60, f"the {name} stay as they were"
            self.page.wait_for_timeout(10)
        self.seconds[control or name] = round(time.monotonic() - started, 3)
        return now

    def choose(self, control: str, label: str) -> None:
        self.page.get_by_label(control, exact=True).select_option(label=label)

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="your image").click()
        chooser.value.set_files(path)

    def keep(self, name: str) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        (ARTEFACTS / f"{name}.json").write_text(json.dumps(self.seconds, indent=1))
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")


@pytest.mark.slow  # in a browser; the tests above move the same controls without one
def test_in_jupyterlab_the_image_follows_the_controls(browser, lab, tmp_path):
    folder, address = lab
    path = write_cell(folder / "explorer.ipynb")
    at = Lab(browser, address, path.name)
    at.run_all()
    first = at.pixels()
    here = Explorer(Study.from_profile("demo", models=["caformer_s18"], limit=4))
    assert Image.open(io.BytesIO(first)).size == Image.open(io.BytesIO(here.panel.value)).size

    at.choose("method", "LayerCAM")
    second = at.until_new(first, control="method")
    at.choose("image", here.image.options[2][0])
    third = at.until_new(second, control="image")
    kernels = at.pixels("kernels")
    at.choose("kernels of", here.layer.options[1])
    at.until_new(kernels, "kernels")
    at.page.get_by_role("slider").last.press("ArrowLeft")  # opacity
    fourth = at.until_new(third, control="opacity")
    seen = {hashlib.sha256(png).digest() for png in (first, second, third, fourth)}
    assert len(seen) == 4
    here.method.value, here.image.value = "layer_cam", here.image.options[2][1]
    mine, theirs = (
        np.asarray(Image.open(io.BytesIO(p)).convert("RGB"), int) for p in (here.panel.value, third)
    )
    assert np.abs(mine - theirs).mean() < 0.5  # what is on the screen is what was chosen

    own = folder / "own.png"
    Image.effect_noise((300, 200), 80).save(own)
    at.upload(own)
    fifth = at.until_new(fourth, control="upload")
    assert "own.png (yours)" in at.page.locator(".widget-html").inner_text()
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    at.upload(broken)
    at.page.get_by_text("broken.png is not a readable image").wait_for()
    assert at.pixels() == fifth
    at.choose("image", here.image.options[1][0])
    at.until_new(fifth)
    at.keep("explorer")
    assert at.wrong == []

    # Saved and exported, without a kernel: the static image.
    at.page.keyboard.press("Control+s")
    until = time.monotonic() + 30
    while not outputs_of(path) and time.monotonic() < until:
        at.page.wait_for_timeout(200)
    at.context.close()
    (data,) = outputs_of(path)
    assert {module.WIDGET_VIEW, "image/png"} <= set(data)
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(path))
    assert data["image/png"].strip().replace("\n", "") in page.replace("\n", "")


@pytest.mark.slow
def test_in_jupyterlab_the_studys_own_notebook(browser, lab):
    folder, address = lab
    nb = nbformat.read(NOTEBOOKS / "03_heatmaps.ipynb", as_version=4)
    # The reader's figures stay as they are.
    patch = (
        "import pathlib, lib.study.places\n"
        f"lib.study.places.FIGURES = pathlib.Path({str(folder)!r})"
    )
    nb.cells.insert(0, new_code_cell(patch))
    nbformat.write(nb, folder / "03_heatmaps.ipynb")
    at = Lab(browser, address, "03_heatmaps.ipynb")
    at.run_all()
    first = at.pixels()
    at.choose("network", "FastViT-sa24")
    second = at.until_new(first, control="network")
    at.choose("method", "Grad-CAM")
    at.until_new(second, control="method")
    at.keep("explorer_notebook_03")
    assert at.wrong == []
    at.context.close()
