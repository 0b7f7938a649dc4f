"""The house: which room imports which, doors that open, public names that exist."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from nbformat import read
from stand_ins import imports_of, module_of, named_module

from lib.base.paths import NOTEBOOKS, ROOT

LIB = ROOT / "lib"
ROOMS = sorted(p.parent for p in LIB.rglob("__init__.py") if p.parent != LIB / "stored")
FACES = [room for room in ROOMS if "lazy_loader" in (room / "__init__.py").read_text()]
DOORS = sorted(p.stem for p in LIB.glob("*.py") if p.name != "__init__.py")


def code_files() -> list[Path]:
    return sorted(LIB.rglob("*.py"))


def test_every_contract_is_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports("pyproject.toml", no_cache=True) == 0


def test_there_are_no_import_cycles():
    files = {module_of(p): p for p in code_files() if p.name != "__init__.py"}
    left = {name: imports_of(path, set(files)) - {name} for name, path in files.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"these import one another: {sorted(left)}"


# What costs torch is imported where it is asked for, so that options, checks and reports do not
# wait for it. The runner's text runs in a kernel.
INSIDE_FUNCTIONS = {
    "lib.base.progress_bar": {"tqdm.auto"},  # which asks at its import where it is shown
    "lib.people.stored.layouts.hdf5": {"h5py"},  # of data sets of gaze alone, as scipy.io
    "lib.people.stored.layouts.matlab": {"scipy.io"},
    "lib.people.stored.shards": {"tfrecord"},  # which takes torch along
    "lib.study.study": {
        "lib.study.networks", "lib.people.clickme", "lib.study.device", "lib.study.named_models"
    },
    "lib.runner.forking": {"ipykernel"},  # in the child; the parent has imported it
    "lib.runner.steps": {"IPython.core.inputtransformer2"},  # of magics alone
    "lib.runner.within": {"lib", "lib.base.versions", "lib.study.device", "lib.study.study", "torch"},
}  # fmt: skip


def test_imports_inside_functions_are_those_with_a_reason():
    found: dict[str, set[str]] = {}
    for path in code_files():
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import):
                        names = {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom):
                        names = {named_module(path, node)}
                    else:
                        continue
                    found.setdefault(module_of(path), set()).update(names)
    assert found == INSIDE_FUNCTIONS


@pytest.mark.parametrize("room", [room for room in ROOMS if room != LIB], ids=module_of)
def test_a_room_says_what_it_is_for_and_what_it_may_import(room):
    words = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert words.splitlines()[0].endswith((".", ","))
    assert [line for line in words.splitlines() if line.startswith("May import: ")]


@pytest.mark.parametrize("room", FACES, ids=module_of)
def test_every_public_name_of_a_room_is_there(room):
    face = importlib.import_module(module_of(room))
    assert face.__all__
    for name in face.__all__:
        assert getattr(face, name) is not None
        # A function of its module's name would take the module's place.
        assert not (room / f"{name}.py").exists(), f"{name} hides a module"
        assert not (room / name).is_dir(), f"{name} hides a room"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_and_holds_no_code_of_its_own(door):
    text = (LIB / f"{door}.py").read_text()
    assert importlib.import_module(f"lib.{door}").__doc__.startswith("Door")
    assert not any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(text))
    )
    for name in getattr(importlib.import_module(f"lib.{door}"), "__all__", ()):
        assert getattr(importlib.import_module(f"lib.{door}"), name) is not None


COMMANDS = {
    "lib.cam": "dcls-cam", "lib.lcam": "dcls-lcam", "lib.score_maps": "dcls-score-maps",
    "lib.average_drop": "dcls-average-drop", "lib.stored.check": "dcls-check",
    "lib.cose": "dcls-cose", "lib.cose_train": "dcls-cose-train", "lib.fetch": "dcls-fetch",
    "lib.leaderboards": "dcls-leaderboard",
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_where_users_scripts_expect_them(command, monkeypatch, capsys):
    """As `python -m` runs them, without a process of their own, which would import torch anew."""
    monkeypatch.delitem(sys.modules, command, raising=False)
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {COMMANDS[command]} ")


def test_installed_commands_lead_to_the_doors_functions():
    scripts = {p.name: p for p in entry_points(group="console_scripts") if p.name[:5] == "dcls-"}
    assert sorted(scripts) == sorted(COMMANDS.values())
    for module, command in COMMANDS.items():
        door = importlib.import_module(module)
        main = getattr(door, "main", None) or importlib.import_module("lib.commands.one_image").main
        assert scripts[command].load() is main


def test_commands_import_nothing_from_the_folder_in_which_they_are_typed(tmp_path):
    for name in ("tqdm", "numpy", "argparse", "lib"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()")
    script = Path(sys.executable).with_name("dcls-check")
    done = subprocess.run([script, "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "contains no images" in done.stdout) == (2, True)
    (tmp_path / "argparse.py").unlink()  # python's own start imports what no package can hide
    (tmp_path / "lib.py").unlink()
    command = [sys.executable, "-m", "lib.stored.check", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "contains no images" in done.stdout) == (2, True)
    assert not (tmp_path / "ran").exists()


def test_the_shortest_way_in_costs_no_torch():
    code = (
        "import sys; from lib import Study; Study.from_profile('demo').inputs.require();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_come_in_by_the_rooms_public_names(path):
    faces = {module_of(room) for room in FACES} | {"lib.people.stored.check"}
    for cell in read(path, as_version=4).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("lib"):
                    assert node.module in faces


def test_the_architecture_page_names_files_that_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`([\w/]+\.py)`", page):
        assert (LIB / name).is_file() or (ROOT / name).is_file(), name
    for room in LIB.iterdir():
        if (room / "__init__.py").is_file() and room.name != "stored":
            assert re.search(rf"\b{room.name}\[\"", page), f"{room.name} is not drawn"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: p.stem)
def test_tests_call_public_names(path):
    """Where a test needs what is private, the public interface is wrong."""
    tree = ast.parse(path.read_text())
    ours, private = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lib"):
            ours |= {alias.asname or alias.name for alias in node.names}
            private += [alias.name for alias in node.names if alias.name.startswith("_")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1] != "_":
            private += (
                [node.attr] if isinstance(node.value, ast.Name) and node.value.id in ours else []
            )
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setattr":
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            private += [
                n for n in names if isinstance(n, str) and re.search(r"(^|\.)_[a-z]", n, re.I)
            ]
    assert not private
