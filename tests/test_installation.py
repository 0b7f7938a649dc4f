"""The package from other folders: in a checkout under both its names, and installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from stand_ins import copy_lib

from lib.base.paths import ROOT


def run(code: str, folder: Path, *paths: Path, python: str = sys.executable, **more: str) -> str:
    """What a script prints that stands in a folder."""
    script = folder / "script.py"
    script.write_text(code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | more
    done = subprocess.run(
        [python, script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


THREE_LINES = """
import numpy as np
from PACKAGE import Study, agreement, explain, score_study
study = Study.from_profile(PROFILE, [MODEL], ["grad_cam"], limit=2)
scores = score_study(study)
image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
maps = explain(study.networks.load_model(MODEL, False), image)
print(len(scores), agreement(maps, maps) > 0.999, maps.shape, study.places.scores)
"""


def three_lines(package: str, profile: str, model: str) -> str:
    named = THREE_LINES.replace("PACKAGE", package)
    return named.replace("PROFILE", repr(profile)).replace("MODEL", repr(model))


def test_three_lines_from_another_folder_keep_their_scores_in_the_checkout(tmp_path):
    code = three_lines("dcls_alignment", "demo", "resnet50") + (
        "import lib, pickle, sys, importlib, importlib.util, dcls_alignment\n"
        "import dcls_alignment.networks.backbones as one\n"
        "import lib.networks.backbones as other\n"
        "assert dcls_alignment is lib and one is other and Study is lib.Study\n"
        "assert one.__spec__.name == one.__name__ == 'lib.networks.backbones'\n"
        "assert importlib.util.find_spec('dcls_alignment.study.places').origin.endswith('places.py')\n"
        "assert importlib.util.find_spec('dcls_alignment.nowhere') is None\n"
        "assert pickle.loads(b'cdcls_alignment.base.tables\\nTable\\n.').__module__ == 'lib.base.tables'\n"
        "words = importlib.import_module('dcls_alignment.base.words')\n"
        "assert importlib.reload(words) is sys.modules['lib.base.words']\n"
    )
    scores = ROOT / "data" / "output" / "demo" / "scores"
    assert run(code, tmp_path, ROOT) == f"8 True (40, 60) {scores}"
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_the_other_name_serves_beside_somebodys_lib(tmp_path):
    """And `python -m` takes it."""
    (tmp_path / "lib.py").write_text("mine = True")
    code = (
        "import lib\nfrom dcls_alignment.study import Study\nfrom dcls_alignment.base.paths import DATA"
        "\nprint(lib.mine, Study.__module__, DATA)"
    )
    told = f"True dcls_alignment.study.study {ROOT / 'data'}"
    assert run(code, tmp_path, ROOT) == told
    command = [sys.executable, "-m", "dcls_alignment.stored.check", "."]
    (tmp_path / "lib.py").unlink()
    (tmp_path / "tqdm.py").write_text("open('ran', 'w').close()")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "contains no images" in done.stdout) == (2, True)
    assert not (tmp_path / "ran").exists()


def test_an_installation_writes_to_the_working_folder_and_says_what_it_lacks(tmp_path):
    """As a wheel leaves it, under another name and without notebooks and data beside it."""
    copy_lib(tmp_path)
    (tmp_path / "lib").rename(tmp_path / "dcls_alignment")
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "images").mkdir()
    (here / "rows.py").write_text("import os\nfrom lib.extension import add_method\n")
    code = (
        "import sys\nsys.modules['lib'] = None  # of the checkout that the tests run in\n"
        "from dcls_alignment import Study\n"
        "from dcls_alignment.base.paths import DATA, FIGURES, GAZE, OUTPUT, shown\n"
        "print(*map(shown, (DATA, FIGURES, OUTPUT)), GAZE.parent.name, sep='\\n')\n"
        "for call in (lambda: Study.from_profile('demo').inputs.require(),\n"
        "             lambda: Study.from_profile('gaze', extend='rows.py')):\n"
        "    try: call()\n"
        "    except (OSError, ValueError) as error: print(error)\n"
        "paper = Study.from_profile('paper', ['resnet50'], images='../images')\n"
        "print(paper.inputs.fetch_command())\n"
    )
    *places, lacks, rows, command = run(code, here, tmp_path, DCLS_ALIGNMENT_HOME="").splitlines()
    home = Path("dcls-alignment")
    assert places == [
        *map(str, (home / "data", home / "figures", home / "output")),
        "dcls_alignment",
    ]
    assert "demo profile are only in a checkout" in lacks
    assert "git clone" in lacks
    assert "rows.py, line 2: " in rows
    assert "write `from dcls_alignment.extension import" in rows
    assert command == "dcls-fetch resnet50"
    assert {path.name for path in here.iterdir()} - {"__pycache__"} == {"rows.py", "script.py"}
    code = "from dcls_alignment.base.paths import DATA\nprint(DATA)"
    assert run(code, here, tmp_path, DCLS_ALIGNMENT_HOME="/some/where") == "/some/where/data"


@pytest.mark.slow
def test_a_wheel_brings_the_package_under_its_own_name_alone(tmp_path):
    wheels, place = tmp_path / "wheels", tmp_path / "venv"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels)]
    subprocess.run([*build, str(source)], check=True)
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    (site,) = place.glob("lib/python*/site-packages")
    before = {path.name for path in site.iterdir()}
    (wheel,) = wheels.iterdir()
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    added = {path.name for path in site.iterdir()} - before
    assert added == {"dcls_alignment", wheel.name.split("-py3")[0] + ".dist-info"}
    # What it needs is not downloaded: it lies in the environment that runs the tests.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"])
    here = tmp_path / "here"
    here.mkdir()
    files = {path for path in site.glob("dcls_alignment/**/*") if "__pycache__" not in path.parts}
    tracked = subprocess.run(
        ["git", "ls-files", "lib"], cwd=source, capture_output=True, text=True, check=True
    )
    carried = {path.relative_to(site / "dcls_alignment").as_posix() for path in files}
    assert {name.removeprefix("lib/") for name in tracked.stdout.splitlines()} <= carried
    code = three_lines("dcls_alignment", "gaze", "mobilenetv2_100") + (
        "import sys\nassert 'lib' not in sys.modules\n"
        "from dcls_alignment.figures.style import use_study_style\nuse_study_style()\n"
    )
    told = run(code, here, python=str(python))
    scores = here / "dcls-alignment" / "output" / "gaze" / "scores"
    assert told == f"2 True (40, 60) {scores}"
    assert len([*scores.iterdir()]) == 1
    after = {path for path in site.glob("dcls_alignment/**/*") if "__pycache__" not in path.parts}
    assert after == files
    for command in place.glob("bin/dcls-*"):
        done = subprocess.run(
            [command, "--help"], cwd=here, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(f"usage: {command.name} ")
