"""A reader's own models and methods: added by a file, scored like the study's own, told when wrong."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import CEILINGS, NO_CONTROLS
from torch import nn

from lib.analyses.conversion import parameter_table
from lib.analyses.sanity import parts
from lib.base.paths import ROOT
from lib.maps.cam import cam_maps
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.dcls import dcls_layers
from lib.networks.loading import load_model, save_weights
from lib.networks.models import Provenance, StudyModel
from lib.networks.rewrites import PLAIN
from lib.report.result_table import results_table
from lib.runner.manifest import differences, step_facts
from lib.scores.kept import facts_of_maps
from lib.scores.study_scores import score_study
from lib.study import extension
from lib.study import own_files as own_files_module
from lib.study.extension import ExtensionError, load_extension
from lib.study.own_rows import add_method, guarded
from lib.study.study import Study

FILE = """
    from torch import nn
    from lib.backbones import DclsRecipe
    from lib.extension import add_method, add_model
    from pytorch_grad_cam import GradCAM

    class Small(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 7, stride=4, padding=3), nn.BatchNorm2d(8), nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=4, padding=1), nn.ReLU(),
            )
            self.classes = nn.Linear(16, classes)

        def forward(self, x):
            return self.classes(self.body(x).mean((2, 3)))

    def dense_3x3(conv):
        return conv.kernel_size == (3, 3)

    add_model("small", build=Small, weights="small.safetensors", label="Small",
              weights_dcls="small_dcls.safetensors", dcls=DclsRecipe(4, 5, "v1", dense_3x3))
    add_model("lone", build=Small, weights="small.safetensors", layer="body.2")
    add_method("largest", lambda features, gradient: features.amax(dim=1).relu(), label="Largest")
    add_method("whole", lambda model, x, passed: model.features(x).mean(dim=1))
    add_method("theirs", cam=GradCAM, label="Their Grad-CAM")
    add_method("theirs_on_images", cam=GradCAM, on_images=True)
"""


# Maps of one cell, logits without an axis of classes, grey images.
ODD = """
    from torch import nn

    class N(nn.Module):
        def __init__(self, classes, ends="", channels=3):
            super().__init__()
            self.body, self.ends = nn.Conv2d(channels, classes, 8, stride=8), ends

        def forward_features(self, x):
            return self.body(x).mean((2, 3), keepdim=True)

        def forward_head(self, features):
            return features.flatten(1)

        def forward(self, x):
            found = self.body(x)
            return found.mean((1, 2, 3)) if self.ends else found.mean((2, 3))
"""


@pytest.fixture
def own(tmp_path, tables, monkeypatch):
    """The file, with random weights of both variants beside it."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    path = tmp_path / "mine" / "my_rows.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(FILE))
    load_extension(path)
    for name, dcls in (("small", False), ("small_dcls", True)):
        network = build_network(BACKBONES["small"], dcls, num_classes=12)
        network.classes.weight.data *= 1e4  # the package's scaling adds 1e-7
        save_weights(network, path.parent / f"{name}.safetensors", {})
    return path


def test_own_models_and_methods_are_scored_like_the_studys_own(own):
    study = Study.from_profile(
        "demo", ["small", "lone", "resnet50"],
        ["grad_cam", "largest", "whole", "theirs", "theirs_on_images"], 5, extend=str(own),
    )  # fmt: skip
    assert study.inputs.missing() == []
    assert study.choices.variants == [
        (BACKBONES[key], dcls)
        for key, dcls in (("resnet50", False), ("resnet50", True), ("small", False),
                          ("small", True), ("lone", False))
    ]  # fmt: skip
    assert BACKBONES["small"].layer == "body"  # found: the last with a map
    assert study.places.name.startswith("demo_my_rows")
    scores = score_study(study)
    assert len(scores) == 5 * 5 * 5 * len(study.choices.protocols)
    table = results_table(study, scores, NO_CONTROLS, CEILINGS)
    lone = table[table.group == "lone"]
    assert set(lone.place) == {0}
    assert lone.difference.isna().all()
    assert table[table.group == "Small"].n_paired.max() > 0
    assert "ResNet-50 mini" in set(table.model)
    assert len(parameter_table(study.choices)) == 3

    model = study.networks.inference_model("small", True)
    assert not dcls_layers(model.network)  # folded
    batch = next(study.clickme().batches(5))
    x = model.prepare(batch.images)
    maps = cam_maps(model, x, batch.labels, study.choices.methods)
    passed = head_pass(model, x, batch.labels)
    weighted = passed.gradient.mean((2, 3), keepdim=True) * passed.features
    small = _scaled(weighted.mean(1).relu())[:, None]
    expected = nn.functional.interpolate(small, (224, 224), mode="bilinear")[:, 0]
    assert (maps["theirs"] - expected).abs().max() < 1e-3
    # The package scales once more after it has enlarged.
    assert (maps["theirs_on_images"] - _scaled(expected)).abs().max() < 1e-3
    largest = model.features(x).amax(dim=1).relu()[:, None]
    expected = nn.functional.interpolate(largest, (224, 224), mode="bilinear")[:, 0]
    assert torch.allclose(maps["largest"], expected, atol=1e-5)
    logits = model(x)
    assert torch.allclose(head_pass(model, x).logits, logits, atol=1e-5)


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-12), 0.0)


def test_other_processes_make_the_same_study_and_kept_scores_know_the_file(own, monkeypatch):
    study = Study.from_profile("demo", ["small"], ["largest"], 3, extend=str(own))
    again = Study.from_profile(**study.choices.options())
    assert again == study
    facts = facts_of_maps(study, BACKBONES["small"], True)
    assert facts["origin"] == facts["methods"]["largest"] != ""
    plain = Study.from_profile("demo", ["resnet50"], ["grad_cam"], 3)
    assert facts_of_maps(plain, BACKBONES["resnet50"], True)["origin"] == ""
    assert "small" not in [b.key for b in plain.choices.profile.known]
    with pytest.raises(ValueError, match="the demo profile has no model small"):
        Study.from_profile("demo", ["small"])
    own.write_text(own.read_text() + "\n# changed\n")
    with pytest.raises(ExtensionError, match=r"has changed since this process read it: restart"):
        Study.from_profile("demo", ["small"], extend=str(own))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = 1", "adds nothing: it should call add_model, add_method"),
        ("import nowhere", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("\nif True\n    pass", "line 2: SyntaxError"),
        (
            "A('resnet50', timm='resnet18.a1_in1k')",
            "line 2: ValueError: two rows of the model table",
        ),
        ("A('my dog', timm='resnet18.a1_in1k')", "must be a text of letters, digits and _"),
        ("A('dog_dcls', timm='resnet18.a1_in1k')", "must not end in _dcls"),
        ("A('dog')", "either timm's name or a function"),
        ("A('dog', timm='resnet18')", "without a tag of timm, weights must name a file"),
        ("A('dog', timm='resnet18', weights='a.pth', weights_dcls='b.pth')", "belong together"),
        (
            "A('dog', timm='resnet18', weights='a.pth', layer='layer9')",
            "layer 'layer9' does not exist",
        ),
        ("A('dog', timm='resnot18', weights='a.pth')", "resnot18"),
        ("M('dog')", "either a function that makes maps or a class"),
        ("M('dog', lambda x: x)", "not 1 parameters"),
        ("M('../dog', lambda f, g: f)", "the key '../dog' must be a text"),
        ("M(3, lambda f, g: f)", "the key 3 must be a text"),
        ("import sys\nsys.exit()", "SystemExit"),
        ("M('dog', lambda f, g: f)\nimport json", "json.py is hidden by another module"),
        ("M('dog', lambda f, g: f, label='Grad-CAM')", "the label Grad-CAM belongs to grad_cam"),
        (
            "A('dog', timm='resnet18', weights='a.pth', layer='global_pool')",
            "not maps (image, channel, h, w) of more than one",
        ),
        (
            "A('dog', build=lambda n: N(n, ends='logits'), weights='a.pth', layer='body')",
            "the network returns (2,) for two images",
        ),
        (
            "A('dog', build=lambda n: N(n, channels=1), weights='a.pth', layer='body')",
            "a forward pass of two images, (2, 3, 224, 224), fails",
        ),
        (
            "A('dog', timm='resnet18', weights='a.pth', preprocessing=P(resize=224, crop=256))",
            "a crop of 256 pixels does not fit into 224",
        ),
        ("M('dog', lambda f, g: f)\nraise KeyError('late')", "line 3: KeyError: 'late'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nothing_of_it_stays(text, why, tmp_path, tables):
    path = tmp_path / "rows.py"
    if "A(" in text or "M(" in text:
        names = (
            "add_model as A, add_method as M; from lib.networks.backbones import Preprocessing as P"
        )
        text = f"from lib.extension import {names}; from odd_networks import N\n{text}"
        (tmp_path / "odd_networks.py").write_text(textwrap.dedent(ODD))
    path.write_text(text)
    if "json" in text:
        (tmp_path / "json.py").write_text("")
    before = list(BACKBONES), list(METHODS)
    with pytest.raises(ExtensionError, match=".*") as raised:
        load_extension(path)
    assert why in str(raised.value)
    assert str(path.parent) in str(raised.value)
    assert (list(BACKBONES), list(METHODS)) == before


def test_a_file_that_is_not_there_or_no_python_is_said(tmp_path, tables):
    with pytest.raises(ExtensionError, match="cannot be read"):
        load_extension(tmp_path / "none.py")
    (tmp_path / "rows.txt").write_text("x = 1")
    with pytest.raises(ExtensionError, match=r"must end in \.py"):
        load_extension(tmp_path / "rows.txt")
    with pytest.raises(ExtensionError, match="work only in the file that --extend"):
        add_method("late", lambda features, gradient: features)


def test_timms_models_bring_their_preprocessing_and_address(tmp_path, tables):
    path = tmp_path / "rows.py"
    path.write_text(
        "from lib.extension import add_model\nadd_model('r18', timm='resnet18.a1_in1k')\n"
        "add_model('r18_layer3', timm='resnet18.a1_in1k', layer='layer3')\n"
    )
    load_extension(path)
    row = BACKBONES["r18"]
    assert (row.preprocessing.resize, row.preprocessing.crop) == (236, 224)
    assert np.allclose(row.preprocessing.mean, (0.485, 0.456, 0.406))
    study = Study.from_profile("paper", ["r18"], extend=str(path))
    (source,) = [s for s in study.inputs.sources() if s.key == "r18"]
    assert source.url.endswith("timm/resnet18.a1_in1k/resolve/main/model.safetensors")
    assert study.inputs.weights_path("r18", False).name == "resnet18.a1_in1k.safetensors"
    assert BACKBONES["r18_layer3"].layer == "layer3"


def test_modules_beside_the_file_are_its_own_and_count_in_its_hash(own, tables):
    beside, deeper = own.with_name("beside.py"), own.parent / "pack" / "inner.py"
    deeper.parent.mkdir()
    (deeper.parent / "__init__.py").write_text("")
    deeper.write_text("POWER = 2\n")
    beside.write_text("import pack\nfrom pack.inner import POWER\nimport torch\n")
    rows = own.with_name("rows.py")
    rows.write_text(
        "from lib.extension import add_method\nfrom beside import POWER\n"
        "add_method('power', lambda f, g, power=POWER: (f * g).relu().pow(power).sum(1))\n"
    )
    expected = [rows, beside, deeper.with_name("__init__.py"), deeper]
    assert extension.extension_files(rows) == expected
    study = Study.from_profile("demo", ["resnet50"], ["power"], 2, extend=str(rows))
    assert study.inputs.files()["extension"] == expected
    step = SimpleNamespace(code=(), reads=(), writes=(), inputs=lambda study: [])
    before = step_facts(step, {}, study, {})
    deeper.write_text("POWER = 3\n")
    assert differences(before, step_facts(step, {}, study, {})).endswith("inner.py changed")
    with pytest.raises(ExtensionError, match="or a module that it imports, has changed"):
        load_extension(rows)


def written(folder: Path, files: dict[str, str] | list[str]) -> Path:
    """A folder with files of these names, empty without a text."""
    texts = files if isinstance(files, dict) else dict.fromkeys(files, "")
    for name, text in texts.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return folder


def own_files(folder: Path, *names: str) -> list[str]:
    """What is the reader's own of a file in the folder that imports these, from the folder on."""
    rows = folder / "rows.py"
    rows.write_text("".join(f"import {name}\n" for name in names))
    first, *others = extension.extension_files(rows)
    assert first == rows
    return [file.relative_to(folder).as_posix() for file in others]


# One distribution's list of what it installed, in each of the forms that there are.
LISTS = {
    "RECORD": {
        "theirs-1.0.dist-info/RECORD": (
            "theirs/__init__.py,sha256=abc,0\ntheirs/deeper.py,,\n"
            "lone.py,,\nutils.py,,\n../bin/theirs,,\ntheirs-1.0.dist-info/RECORD,,\n"
        ),
        "theirs-1.0.dist-info/top_level.txt": "theirs\nmine\n",  # the list of files counts
    },
    "installed-files.txt": {
        "theirs-1.0-py3.11.egg-info/installed-files.txt": (
            "../theirs/__init__.py\n../theirs/deeper.py\n../lone.py\n../utils.py\nPKG-INFO\n"
        ),
    },
    "top_level.txt": {
        "theirs-1.0.egg-info/top_level.txt": "theirs\nlone\nutils\n",
        "theirs-1.0.egg-info/SOURCES.txt": "setup.py\nsrc/mine.py\n",
    },
    "nothing": {"theirs-1.0.dist-info/METADATA": "Name: theirs\n"},
}


@pytest.mark.parametrize("kind", LISTS)
def test_what_an_installed_distribution_claims_is_not_the_readers_own(kind, tmp_path, tables):
    """A folder of `pip install --target` beside the file; one module there is the reader's."""
    written(tmp_path, {"utils.py": "import deepest", "deepest.py": ""})
    vendor = written(tmp_path / "vendor", LISTS[kind])
    installed = ["theirs/__init__.py", "theirs/deeper.py", "lone.py", "utils.py"]
    # What a package writes into its own folder later is on no list.
    written(vendor, [*installed, "theirs/generated.py", "mine.py"])
    # A module beside the file is own although the distribution has one of that name.
    sys.path += [str(tmp_path), str(vendor)]
    found = own_files(tmp_path, "theirs", "lone", "utils", "mine")
    mine = [] if kind == "nothing" else ["mine.py"]
    assert found == ["deepest.py", "utils.py", *(f"vendor/{name}" for name in mine)]
    # From inside the folder, too.
    assert own_files(vendor, "theirs", "lone", "mine") == mine


def test_an_own_package_installed_to_be_edited_stays_own(tmp_path, tables):
    written(
        tmp_path,
        {
            "src/pack/__init__.py": "import numpy",
            "src/pack/deeper.py": "",
            "src/pack.egg-info/top_level.txt": "pack\n",
            "src/pack.egg-info/SOURCES.txt": "src/pack/__init__.py\nsrc/pack/deeper.py\n",
            "flat/__init__.py": "",
            "pack-1.0.dist-info/RECORD": "__editable__.pack-1.0.pth,,\npack-1.0.dist-info/RECORD,,",
            "pack-1.0.dist-info/top_level.txt": "pack\nflat\n",
        },
    )
    sys.path += [str(tmp_path / "src")]
    assert own_files(tmp_path, "pack", "flat") == [
        "flat/__init__.py", "src/pack/__init__.py", "src/pack/deeper.py",
    ]  # fmt: skip


@pytest.mark.parametrize("installed", ["site-packages", "dist-packages"])
def test_nothing_in_an_installers_folder_is_own_whatever_metadata_are_missing(
    installed, tmp_path, tables
):
    site = tmp_path / "env" / "lib" / installed
    written(site, ["heavy/__init__.py", "single.py"])
    sys.path += [str(site)]
    assert own_files(tmp_path, "heavy", "single") == []
    # The file itself may lie in one.
    assert own_files(site, "heavy", "single") == ["heavy/__init__.py", "single.py"]


def test_modules_outside_of_the_files_folder_are_not_followed(tmp_path, tables):
    lab = written(tmp_path / "lab", ["lab_wide.py", "lab_pack/__init__.py", "spaces/part.py"])
    mine = written(tmp_path / "mine", ["beside.py", "spaces/other.py"])
    (mine / "linked.py").symlink_to(lab / "lab_wide.py")
    sys.path += [str(lab)]
    names = "lab_wide", "lab_pack", "spaces", "beside"
    assert own_files(mine, *names) == ["beside.py", "spaces/other.py"]
    written(mine, {"inner/__init__.py": ""})
    (mine / "inner" / "linked.py").symlink_to(lab / "lab_wide.py")
    (mine / "inner" / "lab").symlink_to(lab)
    assert own_files(mine, "inner") == ["inner/__init__.py"]


def test_python_and_this_project_are_not_own_where_they_lie_in_the_files_tree(
    tmp_path, tables, monkeypatch
):
    written(tmp_path, ["python/ours.py", "python/pack/__init__.py", "study/lib/room.py"])
    sys.path += [str(tmp_path / "python"), str(tmp_path / "study" / "lib")]
    found = ["python/ours.py", "python/pack/__init__.py", "study/lib/room.py"]
    assert own_files(tmp_path, "ours", "pack", "room") == found
    paths = sysconfig.get_paths() | {"stdlib": str(tmp_path / "python")}
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)
    monkeypatch.setattr(own_files_module, "CODE", tmp_path / "study" / "lib")
    assert own_files(tmp_path, "ours", "pack", "room") == []


def test_a_packages_folder_is_searched_but_for_what_others_put_there(tmp_path, tables):
    pack = written(
        tmp_path / "pack",
        [
            "__init__.py", "sub/deep.py", "sub/notes.txt", "plain/x.py", ".hidden/x.py",
            "__pycache__/x.py", "env/pyvenv.cfg", "env/lib/x.py", "site-packages/x.py",
            "sub/dist-packages/x.py", "web/node_modules/x.py", "vendor/theirs/__init__.py",
            "vendor/theirs/more.py", "vendor/mine.py",
        ],
    )  # fmt: skip
    written(pack, {"vendor/theirs-1.0.dist-info/RECORD": "theirs/__init__.py,,\ntheirs/more.py,,"})
    written(tmp_path, ["beside/y.py", "unasked.py"])
    (pack / "linked").symlink_to(tmp_path / "beside")
    (pack / "round").symlink_to(pack)
    (pack / ".#deep.py").symlink_to("somebody@some.host")  # as Emacs does while one edits
    (pack / "loop.py").symlink_to("loop.py")
    assert own_files(tmp_path, "pack") == [
        "beside/y.py", "pack/__init__.py", "pack/plain/x.py", "pack/sub/deep.py",
        "pack/vendor/mine.py",
    ]  # fmt: skip


def test_a_module_in_an_archive_is_left_out(tmp_path, tables):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("packed.py", "")
    sys.path += [str(tmp_path / "mine.zip")]
    assert own_files(tmp_path, "packed") == []


PACKAGES = Path(torch.__file__).parents[1]  # where those of the running environment lie
SITE = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")

ASK = """
import ast, json, sys
from importlib.util import find_spec
from pathlib import Path
from lib.study.extension import extension_files

parse, parsed = ast.parse, []
ast.parse = lambda text: parsed.append(text) or parse(text)
files = [str(file) for file in extension_files(Path(sys.argv[1]))]
print(json.dumps({
    "files": files, "parsed": len(parsed), "torch": find_spec("torch").origin,
    "imported": "torch" in sys.modules,
}))
"""


def linked(folder: Path) -> Path:
    """A folder that holds the running environment's packages."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in PACKAGES.iterdir():
        if place.suffix != ".pth":
            (folder / place.name).symlink_to(place)
    return folder


def made(folder: Path, **options) -> Path:
    """An environment without packages of its own."""
    venv.create(folder, symlinks=True, **options)
    return folder


def by_pythonpath(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    return made(folder / "bare"), PACKAGES, {"PYTHONPATH": f"{PACKAGES}{os.pathsep}{ROOT}"}


def by_pip_user(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """As in a home folder; an environment sees it only together with the system's packages."""
    environment = made(folder / "env", system_site_packages=True)
    base = folder / "home" / ".local"
    return environment, linked(base / SITE), {"PYTHONUSERBASE": str(base)}


def by_system_site_packages(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """On top of an interpreter that has the packages, its standard library linked."""
    standard = folder / "system" / SITE.parent
    standard.mkdir(parents=True)
    for place in Path(sysconfig.get_path("stdlib")).iterdir():
        if place.name != SITE.name:
            (standard / place.name).symlink_to(place)
    packages = linked(folder / "store")
    (standard / SITE.name).symlink_to(packages)  # as stacked software on clusters has it
    environment = made(folder / "env", system_site_packages=True)
    settings = environment / "pyvenv.cfg"
    lines = [f"home = {folder / 'system' / 'bin'}", *settings.read_text().splitlines()[1:]]
    settings.write_text("\n".join(lines))
    return environment, standard / SITE.name, {}


def by_dist_packages(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """As Debian and its descendants have it, beside the standard library's folder."""
    packages = linked(folder / "usr" / "lib" / "python3" / "dist-packages")
    environment = made(folder / "env")
    (environment / SITE / "debian.pth").write_text(f"{packages}\n")
    return environment, packages, {}


def by_an_environment_beside_the_file(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    environment = made(folder / "project" / ".venv")
    return environment, linked(environment / SITE), {}


@pytest.mark.skipif(sys.platform != "linux", reason="environments as Linux lays them out")
@pytest.mark.parametrize(
    "way",
    [by_pythonpath, pytest.param(by_pip_user, marks=pytest.mark.slow),
     pytest.param(by_system_site_packages, marks=pytest.mark.slow),
     pytest.param(by_dist_packages, marks=pytest.mark.slow), by_an_environment_beside_the_file],
)  # fmt: skip
def test_no_installed_package_is_searched_wherever_it_lies(way, tmp_path):
    environment, packages, variables = way(tmp_path)
    texts = {"rows.py": "import numpy\nimport timm\nimport torch\nimport helper\n"}
    project = written(tmp_path / "project", texts | {"helper.py": "import torch\n"})
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [environment / "bin" / "python", "-c", ASK, project / "rows.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=outside | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "files": [str(project / "rows.py"), str(project / "helper.py")],
        "parsed": 2,
        "torch": str(packages / "torch" / "__init__.py"),
        "imported": False,
    }


def test_features_with_their_channels_last_are_turned(tmp_path, tables):
    path = tmp_path / "rows.py"
    path.write_text(
        "from lib.extension import add_model\n"
        "add_model('swin', timm='swin_tiny_patch4_window7_224', weights='a.pth')\n"
    )
    load_extension(path)
    assert BACKBONES["swin"].channels_last
    network = build_network(BACKBONES["swin"], False, num_classes=5).eval()
    model = StudyModel(network, BACKBONES["swin"], Provenance("swin", "random", "full"))
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        features = model.features(x)
        assert torch.equal(features, network.forward_features(x).permute(0, 3, 1, 2))
        assert torch.allclose(model.head(features), network(x), atol=1e-6)
    assert head_pass(model, x).gradient.shape == features.shape == (1, 768, 7, 7)


def test_a_transformer_of_tokens_is_watched_where_its_class_token_reads(tmp_path, tables):
    path = tmp_path / "rows.py"
    path.write_text(
        "from lib.extension import add_model\n"
        "add_model('vit', timm='vit_tiny_patch16_224', weights='a.pth')\n"
    )
    load_extension(path)
    row = BACKBONES["vit"]
    assert (row.layer, row.around) == ("blocks.11.norm1", True)
    network = build_network(row, False, num_classes=5).eval()
    model = StudyModel(network, row, Provenance("vit", "random", "full")).for_inference(
        form=PLAIN, keep_plain=True
    )
    x = torch.randn(1, 3, 224, 224)
    seen = []
    handle = network.blocks[11].norm1.register_forward_hook(lambda _, __, out: seen.append(out))
    logits = network(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 2], seen[0])
    passed = head_pass(model, x, torch.tensor([2]))

    def arranged(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(1, 192, 14, 14)

    assert torch.allclose(passed.features, arranged(seen[0]), atol=1e-5)
    assert torch.allclose(passed.gradient, arranged(gradient), atol=1e-6)
    assert torch.allclose(passed.logits, logits, atol=1e-5)
    assert torch.allclose(model.answered(x, passed.features), logits, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be cut in two"):
        model.head(passed.features)
    bf16 = model.for_inference("bf16", form=PLAIN)
    assert head_pass(bf16, x).features.dtype == torch.float32


def test_a_network_that_names_no_stages_forgets_in_parts(own):
    network = build_network(BACKBONES["small"], False, num_classes=12)
    assert parts(network) == {
        "head": ["classes"], "part 3": ["body.3"], "part 2": ["body.1"], "part 1": ["body.0"],
    }  # fmt: skip


def test_a_network_of_other_classes_than_the_profiles_is_told(own):
    study = Study.from_profile("demo", ["small"], extend=str(own))
    five = build_network(BACKBONES["small"], False, num_classes=5)
    save_weights(five, own.parent / "small.safetensors", {})
    row = replace(BACKBONES["small"], build=lambda classes: copy.deepcopy(five))
    BACKBONES.keep(key for key in BACKBONES if key != "small")
    BACKBONES.add(row)
    with pytest.raises(ValueError, match="has 5 classes, but the demo profile has 12"):
        study.networks.load_model("small", False)


def _own(maps):
    """The row that `add_method` makes of a function in the place of "largest"."""
    said = "Largest (largest), a method of --extend,"
    return replace(METHODS["largest"], small_map=guarded(said, maps))


def test_a_method_that_makes_no_maps_is_told(own):
    load_extension(own)
    wrong = _own(lambda features, gradient: features[:, :1])
    model = load_model("resnet50", weights="demo")
    with pytest.raises(
        ValueError,
        match=r"Largest \(largest\), a method of --extend, must make maps of shape \(image, h, w\)",
    ):
        cam_maps(model, torch.zeros(2, 3, 224, 224), None, [wrong])


@pytest.mark.parametrize("place", ["features", "gradient"])
def test_a_method_that_works_in_place_does_not_change_the_next_ones(place, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo").for_inference()
    x = torch.randn(2, 3, 224, 224)

    def greedy(features, gradient):
        (features if place == "features" else gradient).zero_()
        return features.sum(dim=1)

    rows = [replace(_own(greedy), key="greedy"), METHODS["largest"]]
    alone = cam_maps(model, x, None, ["grad_cam", "largest"])
    beside = cam_maps(model, x, None, [rows[0], "grad_cam", "largest"])
    for key, maps in alone.items():
        assert torch.equal(beside[key], maps)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda f, g: None, "must return a tensor of real numbers, not NoneType"),
        (lambda f, g: f.numpy(), "not ndarray"),
        (lambda f, g: f.sum(1) * 1j, "not torch.complex64"),
        (lambda f, g: f.sum(1)[:1], r"here 2 of them, but made \(1, 7, 7\)"),
        (lambda f, g: 1 / 0, "fails: ZeroDivisionError: division by zero"),
    ],
)
def test_what_an_own_method_makes_is_checked(made, why, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo")
    row = _own(made)
    with pytest.raises(ValueError, match=rf"Largest \(largest\), a method of --extend, .*{why}"):
        cam_maps(model, torch.zeros(2, 3, 224, 224), None, [row])


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int32, torch.bool])
def test_own_maps_may_be_of_any_real_kind(kind, own):
    load_extension(own)
    model = load_model("resnet50", weights="demo")
    row = _own(lambda f, g: (f.sum(1) > 0).to(kind))
    (maps,) = cam_maps(model, torch.rand(2, 3, 224, 224), None, [row]).values()
    assert maps.dtype == torch.float32
