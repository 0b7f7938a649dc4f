"""What every committed notebook and the README's commands must keep to."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest
import torch
import yaml
from stand_ins import mini
from torch import nn

from lib.base.paths import DATA, NOTEBOOKS, ROOT
from lib.runner.faults import FAULTS

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(params=PATHS, ids=[p.stem for p in PATHS])
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list[str]:
    return [c.source for c in notebook.cells if c.cell_type == "code"]


def test_notebook_is_valid_and_numbered(notebook):
    nbformat.validate(notebook)
    assert all(re.match(r"\d\d[a-z]?_\w+$", p.stem) for p in PATHS)


def test_notebook_has_no_outputs(notebook):
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_notebook_runs_in_the_environments_kernel(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"


def test_notebook_opens_with_title_contract_and_one_parameters_cell(notebook):
    title, contract, parameters = notebook.cells[:3]
    assert title.cell_type == contract.cell_type == "markdown"
    assert title.source.startswith("# ")
    assert "**Reads**" in contract.source
    assert "**Writes**" in contract.source
    quoted = re.findall(r"`([^`]+)`", contract.source.partition("**Writes**")[2])
    assert all(path.startswith(("data/output/", "figures/")) for path in quoted)
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert tagged == [parameters]
    profile = "gaze" if title.source.startswith("# 00") else "demo"
    assert f'profile: str = "{profile}"' in parameters.source


def test_notebook_is_short(notebook):
    lines = [line for cell in code(notebook) for line in cell.splitlines()
             if line.strip() and not line.strip().startswith("#")]  # fmt: skip
    assert len(lines) <= 60


def test_every_code_cell_is_introduced_by_a_sentence(notebook):
    cells = notebook.cells[4:]
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown"


def test_notebook_defines_no_long_function_and_holds_no_absolute_path(notebook):
    for cell in code(notebook):
        for node in ast.walk(ast.parse(cell)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 5
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|[A-Z]:\\|~)", node.value)


# --- README, Makefile, environment ------------------------------------------------------


def test_readmes_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", readme, re.MULTILINE)) <= targets
    options = set(re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"python run_all.py.*", readme))))
    from run_all import build_parser

    known = {o for action in build_parser()._actions for o in action.option_strings}
    assert options <= known


def test_the_page_on_running_lists_every_exit_status():
    readme = (ROOT / "docs" / "running.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|.*\|.*\|$", readme, re.MULTILINE)
    listed = {int(number) for row in rows for number in row.split(", ")}
    assert listed == {0} | {fault.exit_status for fault in FAULTS.values()}


def test_readmes_code_runs():
    (example,) = _examples("README.md")
    photographs = sorted((DATA / "gaze" / "pictures").glob("*.jpg"))[:2]
    scope: dict = {"photographs": photographs, "human_maps": torch.rand(2, 64, 64)}
    exec(compile(example, "README.md", "exec"), scope)
    assert set(scope["scores"].backbone) == {"mobilenetv2_100"}
    assert scope["scores"].image_id.nunique() == 4
    assert scope["heatmaps"].shape == (2, 256, 256)
    assert scope["rho"].shape == (2,)


def test_the_code_of_the_page_on_networks_in_memory_runs():
    first, segmenting, more = _examples("docs/live.md")
    network, x = mini("resnet50").network, torch.rand(2, 3, 64, 64)
    given = {"network": network, "x": x, "classes": torch.tensor([1, 3])}
    exec(compile(first, "docs/live.md", "exec"), given)
    exec(compile(more, "docs/live.md", "exec"), given)
    assert given["refined"].shape == (2, 64, 64)
    assert given["concepts"].answers.shape == (5, 5)
    assert given["guided"].shape == x.shape
    assert set(given["table"].image) == {0, 1}

    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.end = network, nn.Conv2d(256, 13, 1)

        def forward(self, x):
            return {"out": self.end(self.backbone.forward_features(x))}

    given = {"segmenter": Segmenter().eval(), "x": x, "mask": torch.ones(2, 2)}
    exec(compile(segmenting, "docs/live.md", "exec"), given)
    assert given["maps"].shape == (2, 64, 64)


def _examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_environment_yml_installs_the_lock_and_ci_calls_the_readmes_command():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip[0] == "-r requirements.lock"
    assert "python=3.11" in environment["dependencies"]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_lock_holds_exact_versions_and_no_address():
    lines = [line.split("#")[0].strip() for line in
             (ROOT / "requirements.lock").read_text().splitlines()]  # fmt: skip
    pinned = [line for line in lines if line]
    assert all(re.match(r"[a-zA-Z0-9._-]+(\[[^]]*\])?==\S+", line) for line in pinned)
    names = {re.split(r"[=\[]", line)[0].lower() for line in pinned}
    assert {"torch", "timm", "dcls", "grad-cam", "papermill", "jupyterlab"} <= names


# Losses and looks of a reader's own trainings, and what Python keeps of the tour's rows.
_NOT_EMBEDDED = (".csv", ".png", ".pyc")


def test_data_readme_names_every_embedded_file():
    text = (ROOT / "data" / "README.md").read_text()
    for path in (ROOT / "data" / "demo").rglob("*"):
        if path.is_file() and path.suffix not in _NOT_EMBEDDED:
            name = path.relative_to(ROOT / "data").as_posix()
            folder, *_ = re.sub(r"(attention)/[^/]+", r"\1/VARIANT", name).rpartition("/")
            assert name in text or f"{folder}/*{path.suffix}" in text, name


def test_embedded_example_is_small():
    files = [
        p for p in (ROOT / "data" / "demo").rglob("*")
        if p.is_file() and p.suffix not in _NOT_EMBEDDED
    ]  # fmt: skip
    total = sum(p.stat().st_size for p in files)
    assert total <= 15e6
