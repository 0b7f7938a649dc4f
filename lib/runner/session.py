"""A run: what is up to date is kept, the rest is executed in order, all of it is reported."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from ..base.files import is_partial
from ..base.paths import shown
from ..base.shortage import is_disk_full
from ..base.versions import commit
from ..base.words import clock
from ..study.study import Study
from . import signals
from .execution import Attempt
from .faults import RunError, full_disk
from .kernel import end_processes
from .manifest import Facts, Manifest, Record, differences, hashes, step_facts
from .outcomes import END_THE_RUN, Outcome, write_run
from .progress import Progress
from .steps import Step
from .temporary import sweep_temporary_folders

_STAGING = ".staging-"


@dataclass
class Session:
    """A run's fixed choices.

    steps       : those that are asked for, in order
    known       : all notebooks
    values      : the notebooks' parameters
    environment : as the preflight found it in the kernel
    force       : run also what is up to date
    timeout     : seconds for each notebook
    command     : as typed, for the report
    """

    steps: Sequence[Step]
    known: Sequence[Step]
    values: Mapping[str, object]
    study: Study
    environment: Mapping[str, str]
    progress: Progress
    force: bool = False
    timeout: float | None = None
    command: str = ""

    def __post_init__(self):
        self.outcomes = [Outcome(step.name, reason="not reached") for step in self.steps]
        self._started = _now()

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest(self.study.places.output / "manifest.json")

    def _facts(self, step: Step) -> Facts:
        return step_facts(step, self.values, self.study, self.environment)

    def why_run(self, step: Step, facts: Facts | None = None) -> str:
        """Why a step must run; "" if its results hold."""
        reason = self.manifest.why_run(step.name, facts or self._facts(step))
        return reason or "--force" * self.force

    def decisions(self) -> list[tuple[Step, str]]:
        """Each step with why it would run, as things are now; "" if it would be kept."""
        found = []
        anew: set[str] = set()
        for step in self.steps:
            waiting = step.needed(sorted(anew))
            reason = self.why_run(step)
            if waiting and not reason:
                reason = (
                    f"{waiting[0].replace('{profile}', self.study.places.name)} is written anew"
                )
            if reason:
                anew.update(step.writes)
            found.append((step, reason))
        return found

    def plan(self) -> str:
        """For each notebook whether it would run now, and why; and about how long it takes."""
        width = max((len(step.name) for step in self.steps), default=0)
        lines = [self.manifest.problem] if self.manifest.problem else []
        for step, reason in self.decisions():
            if reason:
                usual = self._usual(step)
                cost = f"took {clock(usual)} last time" if usual is not None else step.cost
                lines.append(
                    f"  {step.name:<{width}}  run   {reason}{f' ({cost})' if cost else ''}"
                )
            else:
                lines.append(f"  {step.name:<{width}}  keep  {self._kept_since(step)}")
        return "\n".join([*lines, *self._stale_sources()])

    def _stale_sources(self) -> list[str]:
        """Warnings of notebooks that are not asked for, whose results are read, and are old."""
        lines = []
        for step in self.known:
            if step not in self.steps and any(s.needed(step.writes) for s in self.steps):
                reason = self.manifest.why_run(step.name, self._facts(step))
                if reason:
                    lines.append(
                        f"  attention: {step.name}, whose results are read, is not up to date "
                        f"({reason}); --from {step.name.split('_')[0]} makes them anew"
                    )
        return lines

    def _kept_since(self, step: Step) -> str:
        finished = datetime.fromisoformat(self.manifest[step.name].finished)
        return f"unchanged since {finished:%Y-%m-%d %H:%M}"

    def _usual(self, step: Step) -> float | None:
        record = self.manifest[step.name]
        return record.seconds if record else None

    def _usual_after(self) -> list[float | None]:
        """For each step the seconds that those after it took last time, None if one is unknown."""
        after: list[float | None] = []
        total: float | None = 0.0
        for step, reason in reversed(self.decisions()):
            after.append(total)
            usual = self._usual(step) if reason else 0.0
            total = None if total is None or usual is None else total + usual
        return after[::-1]

    # --- running --------------------------------------------------------------------------

    def run(self) -> list[Outcome]:
        """Execute what must be. Writes `manifest.json` at every success, `run.json` throughout."""
        self._sweep()
        try:
            self._run_all()
        except signals.Interruption as interruption:
            left = next((o for o in self.outcomes if o.status in ("not run", "running")), None)
            if left is not None:
                left.status = interruption.fault.key
        # The run is over: what asks it to end now has been heeded.
        with contextlib.suppress(signals.Interruption), signals.held():
            shutil.rmtree(self.study.places.output / f"{_STAGING}{os.getpid()}", ignore_errors=True)
            self._report(ended=_now())
        return self.outcomes

    def _sweep(self) -> None:
        """Remove what a run that was killed has left: processes, staged and partial files."""
        sweep_temporary_folders()
        for remains in self.study.places.output.glob(f"{_STAGING}*"):
            end_processes(remains)
            shutil.rmtree(remains, ignore_errors=True)
        an_hour_ago = time.time() - 3600  # what is younger may be JupyterLab's
        for folder in (
            self.study.places.output,
            self.study.places.figures,
            self.study.places.scores,
        ):
            for path in folder.rglob(".*"):
                with contextlib.suppress(OSError):
                    if is_partial(path) and path.stat().st_mtime < an_hour_ago:
                        path.unlink()

    def _run_all(self) -> None:
        usual_after = self._usual_after()
        broken: dict[str, str] = {}  # file: the notebook that was to write it
        for index, step in enumerate(self.steps):
            outcome = self.outcomes[index]
            needs = step.needed(broken)
            if needs:
                outcome.reason = f"it needs the results of {broken[needs[0]]}"
            else:
                self._run(step, index, usual_after[index])
            if not outcome.is_well:
                broken.update(dict.fromkeys(step.writes, step.name))
            self._report()
            if outcome.status in END_THE_RUN:
                break

    def _run(self, step: Step, index: int, usual_after: float | None) -> None:
        outcome = self.outcomes[index]
        title = f"[{index + 1}/{len(self.steps)}] {step.name}"
        staging = self.study.places.output / f"{_STAGING}{os.getpid()}" / step.name
        attempt = Attempt(
            step, self.values, self.study.places, self.progress, staging, self.timeout
        )
        facts = self._facts(step)
        outcome.reason = self.why_run(step, facts)
        if not outcome.reason:
            outcome.status, outcome.reason = "kept", self._kept_since(step)
            outcome.outputs = self.manifest[step.name].outputs
            attempt.forget_failure()
            self.progress.say(f"{title}: kept, {outcome.reason}")
            return
        outcome.status = "running"
        self._report()
        self.progress.begin(title, self._usual(step), usual_after)
        started = time.monotonic()
        asked_to_end = None
        try:
            attempt.execute()
            with signals.held():  # published and recorded, or neither
                outcome.outputs = hashes(attempt.publish())
                outcome.status = "ok"
                self._measure(outcome, attempt, started)
                self._record(step, outcome, attempt, facts)
        except signals.Interruption as interruption:
            asked_to_end = interruption
            if outcome.status != "ok":
                outcome.status = interruption.fault.key
                outcome.detail = f"in {attempt.kernel.where}"
        except RunError as error:
            outcome.status, outcome.detail = error.fault.key, str(error)
        except OSError as error:  # the manifest
            full = is_disk_full(error)
            outcome.status = "disk full" if full else "failed"
            outcome.detail = str(full_disk(self.study.places.output) if full else error)
        with signals.held():
            self._measure(outcome, attempt, started)
            if not outcome.is_well:
                kept = attempt.keep_failed(outcome.status, outcome.detail)
                outcome.detail += f"\nsee {shown(kept)}" if kept else ""
            shutil.rmtree(staging, ignore_errors=True)
            self.progress.end(outcome.status, outcome.seconds, outcome.detail)
        if asked_to_end and outcome.is_well:
            raise asked_to_end

    def _measure(self, outcome: Outcome, attempt: Attempt, started: float) -> None:
        outcome.seconds = round(time.monotonic() - started, 3)
        if attempt.kernel.memory:
            outcome.peak_memory_bytes = attempt.kernel.memory.peak
            outcome.peak_gpu_bytes = attempt.kernel.memory.gpu_peak

    def _record(self, step: Step, outcome: Outcome, attempt: Attempt, facts: Facts) -> None:
        changed = differences(facts, self._facts(step))
        if not attempt.ran_as_read:
            changed = f"its cells changed; {changed}".rstrip("; ")
        if changed:
            # Nobody can say from which state its results were made.
            self.manifest.drop(step.name)
            outcome.detail = f"while it ran: {changed}. It will run again"
            return
        record = Record(
            facts, outcome.outputs, commit(), _now(), outcome.seconds,
            outcome.peak_memory_bytes, outcome.peak_gpu_bytes,
        )  # fmt: skip
        self.manifest.add(step.name, record, [known.name for known in self.known])

    def _report(self, ended: str = "") -> None:
        path = self.study.places.output / "run.json"
        try:
            write_run(path, self.outcomes, self.values, self.command, self._started, ended)
        except OSError as error:
            self.progress.say(f"run.json could not be written: {error}")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
