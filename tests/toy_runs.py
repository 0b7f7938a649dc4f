"""Toy notebooks, run as the study's are."""

from __future__ import annotations

import io
from pathlib import Path

from stand_ins import write_notebook

from lib.runner.manifest import code_of_the_package
from lib.runner.outcomes import Outcome
from lib.runner.progress import Progress
from lib.runner.session import Session
from lib.runner.side_by_side import SideBySide
from lib.runner.steps import find_steps
from lib.study.study import Study

VALUES = {"profile": "demo", "limit": 3, "batch_size": 32}


class ToySession(Session):
    """A session that runs by itself."""

    def run(self, jobs: int = 1) -> list[Outcome]:
        SideBySide(jobs).run([self])
        return self.outcomes


class Runner:
    """Runs toy notebooks of a folder as the study's are run; results go below the folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.study = Study.from_profile("demo", limit=3)
        self.environment = {"python": "3", "torch": "2"}
        self.printed = io.StringIO()
        self.changed: dict | None = None  # code that the warm parent is said to have imported

    def code(self) -> dict:
        """The package's code now."""
        return code_of_the_package()

    @property
    def notebooks(self) -> Path:
        return self.study.places.output / "notebooks"

    def write(self, name: str, *cells: str, **declared: str) -> None:
        """declared : reads, writes, cost, as `write_notebook` takes them"""
        write_notebook(self.folder / "sources", name, *cells, **declared)

    def session(self, values: dict | None = None, **options) -> ToySession:
        steps = find_steps(self.folder / "sources")
        progress = Progress(self.printed, log=self.study.places.output / "run.log")
        self.study.places.output.mkdir(parents=True, exist_ok=True)
        if options.get("warm"):
            options["warm"].code = self.code() if self.changed is None else self.changed
        return ToySession(
            steps, steps, VALUES | (values or {}), self.study,
            self.environment, progress, **options,
        )  # fmt: skip

    def run(self, *cells: str, values: dict | None = None, **options) -> Outcome:
        """One notebook "01_it" of these cells."""
        writes = options.pop("writes", "")
        self.write("01_it", *cells, writes=writes)
        (outcome,) = self.session(values, **options).run()
        return outcome

    def figure(self, name: str = "a.txt") -> Path:
        return self.study.places.figures / name


def writing(text: str = "made", name: str = "a.txt") -> str:
    """A cell that writes a result as notebooks do."""
    return (
        "from lib.outputs import write_result\nfrom pathlib import Path\n"
        f"with write_result(FIGURES / {name!r}) as partial:\n    partial.write_text({text!r})"
    )
