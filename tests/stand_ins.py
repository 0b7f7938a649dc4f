"""Small, seeded stand-ins that tests are made of; nothing here downloads."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from lib.base.paths import ROOT
from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.networks.building import build_network
from lib.networks.models import Provenance, StudyModel
from lib.networks.taps import Halves
from lib.people.stored.shards import Record, encode_jpeg
from lib.scores.agreements import CONSTANT_MODEL_MAP, VALID
from lib.scores.ceiling import HUMAN_CEILING, SPEARMAN_BROWN, Ceiling, Ceilings
from lib.scores.leaderboard import COLUMNS, SCHEMA
from lib.study.study import Study

EIGHT = [b.key for b in THE_EIGHT]
ALL_VARIANTS = [(key, dcls) for key in EIGHT for dcls in (False, True)]


VARIANT_IDS = [f"{key}{'_dcls' if dcls else ''}" for key, dcls in ALL_VARIANTS]


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


# What a browser runs wherever it is not escaped; the name of a file cannot hold a slash.
EVIL = "<img src=x onerror=window.ran=1>"


class InHalves:
    """What a toy of `features` and `head` needs besides to be tapped."""

    def answered(self, x, features):
        return self.head(features)

    def answering(self, x):
        return self.head

    def opened(self, x, features=None):
        return Halves(self.features, self.head).opened(x, features)


# One backbone of each family.
FAMILIES = ["resnet50", "convnext_tiny", "caformer_s18", "convformer_s18", "fastvit_sa24"]
# The eight and their variants; those that differ from one of these by their depth alone are for
# `make test-slow`.
EACH = [
    pytest.param(key, marks=[] if key in FAMILIES else [pytest.mark.slow]) for key in EIGHT
]  # fmt: skip
EACH_VARIANT = [
    pytest.param(*variant, id=name, marks=[] if variant[0] in FAMILIES else [pytest.mark.slow])
    for variant, name in zip(ALL_VARIANTS, VARIANT_IDS, strict=True)
]


def mini(key: str, dcls: bool = False, classes: int = 5) -> StudyModel:
    """A miniature with random weights whose DCLS positions are spread widely."""
    backbone = BACKBONES[key]
    network = build_network(backbone, dcls, mini=True, num_classes=classes)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".P"):
                parameter.uniform_(-backbone.dcls.size // 2 + 1, backbone.dcls.size // 2)
    return StudyModel(network, backbone, Provenance(key, "random", "mini")).eval()


def narrow_vgg(key: str) -> StudyModel:
    """VGG-16, of whose layers only the first fully connected one is narrower: a fifth of the
    weights, without which making it takes seconds."""
    network = build_network(BACKBONES[key], False, mlp_ratio=0.05)
    return StudyModel(network, BACKBONES[key], Provenance(key, "random", "full")).eval()


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return encode_jpeg(pixels, quality)


def make_record(index: int, label: int = 3, side: int = 256) -> Record:
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (8, 8, 3)).repeat(side // 8, 0).repeat(side // 8, 1)
    heatmap = np.zeros((side, side), dtype=np.uint8)
    row, column = rng.integers(30, side - 60, 2)
    heatmap[row : row + 40, column : column + 50] = rng.integers(100, 255)
    return Record(jpeg(image.astype(np.uint8)), jpeg(heatmap), label)


def write_plateaus(folder: Path, count: int) -> Path:
    """Images whose human maps are two plateaus each, of values that differ by a millionth: ties
    for a protocol that settles them, and an ordering for the others."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), ["image,map,label"]
    for index in range(count):
        human = 1e-6 * rng.random((64, 64))
        row, column = rng.integers(0, 40, 2)
        human[row : row + 24, column : column + 20] += 1
        np.save(folder / f"{index:02}.npy", human)
        Image.new("RGB", (64, 64)).save(folder / f"{index:02}.png")
        rows.append(f"{index:02}.png,{index:02}.npy,{index % 5}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def settled(values: np.ndarray) -> np.ndarray:
    """A map's values in whole steps of 1e-5 of its range."""
    exact = np.asarray(values, np.float64)
    return np.round((exact - exact.min()) / (exact.max() - exact.min()) * 1e5)


def copy_lib(folder: Path, *skipped: str) -> None:
    """The package's code into a folder, and what is compiled of it: compiling takes many seconds.

    skipped : names to leave out, beside what another process is writing just now
    """
    ignore = shutil.ignore_patterns("*.pyc.*", "*.nb?.*", *skipped)
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=ignore)


def write_notebook(
    folder: Path,
    name: str,
    *cells: str,
    reads: str = "",
    writes: str = "",
    parameters: str = "",
    cost: str = "seconds",
) -> Path:
    """A numbered notebook with these code cells, declared and parametrised as the study's are."""
    tagged = new_code_cell(
        parameters or 'profile: str = "demo"\nlimit: int = 0\nbatch_size: int = 32'
    )
    tagged.metadata["tags"] = ["parameters"]
    contract = f"**Reads** {reads} · **Writes** {writes} · {cost}"
    notebook = new_notebook(
        cells=[new_markdown_cell("# A title"), new_markdown_cell(contract), tagged]
        + [new_code_cell(source) for source in cells],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def made_up_scores(study: Study) -> pd.DataFrame:
    """Scores with known means; image 0 has a constant map without, image 1 with DCLS."""
    rows = []
    for backbone, dcls in study.choices.variants:
        for method in study.choices.methods:
            for image in range(10):
                constant = image == (1 if dcls else 0)
                rows.append(
                    {
                        "variant": backbone.key, "backbone": backbone.key, "dcls": dcls,
                        "protocol": "published", "method": method.key, "image_id": f"val-0:{image}",
                        "label": 0, "rho": np.nan if constant else image / 10 + 0.05 * dcls,
                        "partial": image / 20, "tied": 0.1, "attainable": 0.99,
                        "validity": CONSTANT_MODEL_MAP if constant else VALID,
                        "top1": image < 8, "top5": True,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def named_module(path: Path, node: ast.ImportFrom) -> str:
    """The module that `from … import` names in a file of the package."""
    if not node.level:
        return node.module
    folders = path.relative_to(ROOT).parts[: -node.level]
    return ".".join([*folders, *filter(None, [node.module])])


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """The package's modules that a file imports, those inside functions too."""
    tree, found = ast.parse(path.read_text()), set()
    checking = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = named_module(path, node)
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    assert "run_all" not in found
    return found & modules


# ClickMe's ceiling, for tables that no people stand behind; and no controls to compare with.
CEILINGS = Ceilings(Ceiling(HUMAN_CEILING, "published", most=SPEARMAN_BROWN))
NO_CONTROLS = pd.DataFrame(
    columns=["protocol", "reading", "control", "image_id", "rho", "partial", "validity"]
)

_OF_A_BOARD = {
    "rank": pd.NA, "model": "m", "timm_name": "resnet18", "weights": "w", "untrained": False,
    "parameters_millions": 1.0, "method": "grad_cam", "method_label": "Grad-CAM",
    "protocol": "gaze", "reading": "whole", "target": "true", "ranked_by": "", "n": 60,
    "ceiling": 0.5, "ceiling_origin": "given", "reachable": 1.2, "control": "centre",
    "control_score": 0.2, "above_control": True, "over_control": 0.1, "over_control_low": 0.0,
    "over_control_high": 0.2, "top1": 0.5, "n_top1": 60, "imagenet_top1": np.nan,
    "imagenet_top1_source": "", "data": "people", "images": 60, "images_sha256": "i" * 64,
    "scored_sha256": "s" * 64, "human_maps": "blurred by 1°", "human_maps_id": "h",
    "rules": "1-abc", "method_id": "f", "attention_sha256": "", "code_id": "c",
    "precision": "float32", "device": "cpu", "versions": "torch 2.1, timm 1.0",
    "commit": "0123", "schema": SCHEMA,
}  # fmt: skip


def board(rho: dict[str, float], run: str = "runs/a", **more) -> pd.DataFrame:
    """A leaderboard's rows: one per model, each of weights of its own; a score is twice its ρ."""
    rows = []
    for name, value in rho.items():
        ends = {"low": value - 0.1, "high": value + 0.1}
        own = {"label": name, "model_id": name, "weights_sha256": name * 4, "run": run}
        own |= {"rho": value, "score": 2 * value}
        own |= {f"rho_{end}": v for end, v in ends.items()}
        own |= {f"score_{end}": 2 * v for end, v in ends.items()}
        rows.append(_OF_A_BOARD | own | more)
    return pd.DataFrame(rows)[[*COLUMNS]]
