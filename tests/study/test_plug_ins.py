"""Plug-ins: what another package adds by entry points is chosen, scored and told when wrong."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.base.tables import rows_noted
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.people.stored.layouts import LAYOUTS
from lib.scores.fixation_measures import FIXATION_MEASURES, measure_fixations
from lib.scores.kept import facts_of_maps
from lib.scores.measures import MEASURES, score_measures, summarise_measures
from lib.scores.study_scores import score_study
from lib.study import plug_ins
from lib.study.extension import ExtensionError, load_extension
from lib.study.plug_ins import VARIABLE, PlugInError, load_plug_ins
from lib.study.study import Study

ROWS = """
    import csv
    import numpy as np
    from torch import nn
    from dcls_alignment.extension import (
        Looked, Viewing, add_layout, add_measure, add_method, add_model,
    )

    class Tiny(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 8, 8)
            self.head = nn.Linear(4, classes)

        def forward(self, x):
            return self.head(self.body(x).mean((2, 3)))

    def models():
        add_model("tiny_plugged", build=Tiny, weights="tiny.pth", label="Tiny")

    def methods():
        add_method("plugged", lambda features, gradient: features.amax(dim=1).relu())

    def read(folder):
        with (folder / "mine.csv").open() as file:
            rows = list(csv.DictReader(file))
        looked = {}
        for row in rows:
            looked.setdefault(row["file"], []).append((float(row["x"]), float(row["y"]), 1.0))
        return [
            Looked(name, folder / name, np.array(p), np.array(["a"] * len(p)), np.arange(len(p)))
            for name, p in looked.items()
        ], []

    def data_sets():
        add_layout("mine", label="Mine", source="nobody, 2026", read=read,
                   holds=lambda folder: (folder / "mine.csv").is_file(),
                   viewing=Viewing(sigma_pixels=9))

    def measures():
        add_measure("apart", lambda maps, human: (maps - human).abs().mean((1, 2)), best=-1)
        add_measure("at_eyes", lambda seen, looked: seen.scaled[looked.pixels].mean(),
                    fixations=True, unit="share", chance=0.5, within=(0, 1))
"""
POINTS = {name: f"plugged_rows:{name}" for name in ("models", "methods", "data_sets", "measures")}


def install(folder: Path, points: dict[str, str], text: str = ROWS, version: str = "1.0") -> None:
    """A package of one module, as an installer leaves it, and weights beside it."""
    (folder / "plugged_rows.py").write_text(textwrap.dedent(text))
    about = folder / "plugged_nets-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: plugged-nets\nVersion: {version}\n"
    )
    lines = [f"[dcls_alignment.{group}]\nown = {value}" for group, value in points.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path, tables, monkeypatch) -> Path:
    """A folder of installed packages; what they add is taken back."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(plug_ins, "loaded", {})
    shapes = {"body.weight": (4, 3, 8, 8), "body.bias": (4,), "head.weight": (1000, 4)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save(state | {"head.bias": torch.zeros(1000)}, folder / "tiny.pth")
    with rows_noted() as added:
        yield folder
    for table, key in added:
        if key in table:
            table.take_back(key)
    sys.modules.pop("plugged_rows", None)


@pytest.fixture
def people(tmp_path) -> Path:
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / name)
    (folder / "mine.csv").write_text("file,x,y\na.png,20,30\na.png,40,10\nb.png,50,50\n")
    return folder


def test_what_a_package_adds_is_scored_like_the_studys_own(site, people, no_real_data, monkeypatch):
    monkeypatch.setattr("lib.study.places.OUTPUT", site.parent / "output")
    install(site, POINTS)
    study = Study.from_profile(
        "paper", ["tiny_plugged"], ["plugged"], images=people, target="predicted"
    )
    assert (study.choices.layout, study.choices.profile.label) == ("mine", "Mine")
    scores = score_study(study)
    assert set(scores.backbone) == {"tiny_plugged"}
    assert scores.rho.notna().tolist() == [True, True]
    measured = summarise_measures(score_measures(study))
    assert measured[measured.measure == "apart"].label.tolist() == ["apart"]
    assert study.facts()["plug_ins"] == {"plugged-nets": "1.0"}
    assert site / "plugged_rows.py" in study.inputs.files()["extension"]
    here = Study.from_profile("demo")
    assert "tiny_plugged" not in [b.key for b in here.choices.backbones]
    assert "plug_ins" not in here.facts()


def test_a_measure_of_fixations_stands_beside_the_others(site):
    install(site, POINTS)
    load_plug_ins("measures")
    from lib.scores.fixation_measures import FixationSet

    looked = FixationSet({"a": np.array([[0.5, 0.5], [3.5, 3.5]])}, 4, 4).of("a")
    found = measure_fixations(np.arange(16.0).reshape(1, 4, 4), [looked])
    assert list(found) == [*FIXATION_MEASURES]
    assert found["at_eyes"] == [0.5]  # of the least value and the largest


def test_kept_scores_know_the_packages_version_and_text(site, people, no_real_data, monkeypatch):
    def origins() -> tuple[str, str]:
        study = Study.from_profile(
            "paper", ["tiny_plugged"], ["plugged"], images=people, target="predicted"
        )
        facts = facts_of_maps(study, BACKBONES["tiny_plugged"], False)
        return facts["origin"], facts["methods"]["plugged"]

    found = []
    for text, version in ((ROWS, "1.0"), (ROWS, "1.1"), (ROWS + "\n    # edited", "1.1")):
        install(site, POINTS, text, version)
        monkeypatch.setattr(plug_ins, "loaded", {})
        sys.modules.pop("plugged_rows", None)
        with rows_noted() as added:
            found += origins()
        for table, key in added:
            table.take_back(key)
    assert len(set(found)) == 3  # one origin a state, of whatever row


def test_nothing_is_imported_that_nobody_asks_for(site, monkeypatch):
    install(site, POINTS)
    Study.from_profile("demo", ["resnet50"], ["grad_cam"])
    assert "plugged_rows" not in sys.modules
    monkeypatch.setenv(VARIABLE, "none")
    for chosen in ({"models": ["tiny_plugged"]}, {"methods": ["plugged"]}):
        with pytest.raises(ValueError, match="unknown"):
            Study.from_profile("demo", **chosen)
    assert "plugged_rows" not in sys.modules
    monkeypatch.setenv(VARIABLE, "other, Plugged_Nets")
    load_plug_ins()
    assert {"tiny_plugged"} <= set(BACKBONES)
    assert {"plugged"} <= set(METHODS)
    assert {"mine"} <= set(LAYOUTS)
    assert {"apart"} <= set(MEASURES)
    load_plug_ins()  # once a process


@pytest.mark.parametrize(
    ("group", "value", "text", "said"),
    [
        ("models", "nowhere_at_all:f", "", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("models", "plugged_rows:f", "1 / 0", "ZeroDivisionError"),
        ("models", "plugged_rows:f", "g = 1", "AttributeError"),
        ("models", "plugged_rows:f", "f = 1", "is not a function"),
        ("models", "plugged_rows:f", "f = lambda: None", "adds nothing"),
        ("models", "plugged_rows:methods", ROWS, "it adds a method, but belongs to the group"),
        ("measures", "plugged_rows:methods", ROWS, "it adds a method, but belongs to the group"),
        ("methods", "plugged_rows:models", ROWS, "it adds a model, but belongs to the group"),
        ("measures", "plugged_rows:f",
         "from lib.extension import add_measure as a\nf = lambda: a('m', lambda x, y: x)",
         r"one real number per image, here 2, but returned .* \(2, 16, 16\)"),
        ("measures", "plugged_rows:f",
         "from lib.extension import add_measure as a\nf = lambda: a('auc', lambda x, y: x.sum((1, 2)))",
         "two rows of the measure table have the key 'auc'"),
        ("data_sets", "plugged_rows:f",
         "from lib.extension import add_layout as a\nf = lambda: a('gaze', holds=1, read=2, source='')",
         "the key 'gaze'"),
    ],
)  # fmt: skip
def test_a_plug_in_that_fails_is_named_and_adds_nothing(site, group, value, text, said):
    install(site, {group: value}, text)
    before = [list(table) for table in (BACKBONES, METHODS, LAYOUTS, MEASURES)]
    named = f"plugged-nets 1.0, dcls_alignment.{group}: own = {value}, fails: .*{said}.*{VARIABLE}"
    for _ in range(2):  # it is not taken for done
        with pytest.raises(PlugInError, match=f"(?s){named}"):
            load_plug_ins()
    assert [list(table) for table in (BACKBONES, METHODS, LAYOUTS, MEASURES)] == before


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("1 / 0", "reading it as odd fails: ZeroDivisionError"),
        ("[1], []", "image 0 of odd is a int, but must be a Looked"),
        (
            "[Looked('a', folder / 'no.png', np.zeros((1, 3)), [], [0])], []",
            "no.png, which does not exist",
        ),
        ("[Looked('a', folder / 'a.png', np.zeros((1, 2)), [], [0])], []", "points of shape"),
        ("[Looked('a', folder / 'a.png', np.zeros((2, 3)), [], [0])], []", "an order of 1"),
        ("[Looked('a', folder / 'a.png', np.zeros((1, 3)), [], [0])] * 2, []", "another, a"),
    ],
)
def test_a_data_sets_reader_is_checked(tables, people, tmp_path, read, said):
    """Of a file of own rows, which may add data sets and measures, too."""
    (tmp_path / "odd.py").write_text(
        "import numpy as np\nfrom lib.extension import Looked, add_layout\n"
        f"def read(folder):\n    return {read}\n"
        "add_layout('odd', holds=lambda folder: False, read=read, source='')\n"
    )
    with rows_noted() as added:
        options = {"extend": tmp_path / "odd.py", "images": people, "layout": "odd"}
        study = Study.from_profile("demo", gaze=["sigma_pixels=9"], **options)
    try:
        with pytest.raises(ValueError, match=said):
            study.clickme()
    finally:
        for table, key in added:
            table.take_back(key)


def test_rows_are_added_by_files_and_plug_ins_alone(tmp_path, tables):
    from lib.extension import add_layout, add_measure

    with pytest.raises(ExtensionError, match="or in a plug-in"):
        add_measure("m", lambda maps, human: maps.sum((1, 2)))
    with pytest.raises(ExtensionError, match="or in a plug-in"):
        add_layout("d", holds=bool, read=bool, source="")
    (tmp_path / "nothing.py").write_text("")
    with pytest.raises(ExtensionError, match="adds nothing: .*add_measure"):
        load_extension(tmp_path / "nothing.py")
