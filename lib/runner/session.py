"""A run: what is up to date is kept, the rest is executed in order, all of it is reported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from lib.outputs import commit
from lib.paths import ROOT
from lib.runner import signals
from lib.runner.execution import Outcome, run_step
from lib.runner.faults import disk_advice, is_disk_full
from lib.runner.manifest import Manifest, Record, hashes, step_facts
from lib.runner.outcomes import write_run
from lib.runner.progress import Progress, clock
from lib.runner.steps import Step
from lib.study import Study

_STAGING = ".staging-"
# After these no further notebook is tried; after any other fault those that do not need
# the failed one's results are.
_ENDS_THE_RUN = ("disk full", "hung up", "interrupted", "terminated")


@dataclass
class Session:
    """A run's fixed choices.

    steps       : those that are asked for, in order
    known       : the names of all notebooks
    values      : the notebooks' parameters
    environment : as the preflight found it in the kernel
    force       : run also what is up to date
    timeout     : seconds for each notebook
    command     : as typed, for the report
    """

    steps: Sequence[Step]
    known: Sequence[str]
    values: Mapping[str, object]
    study: Study
    environment: Mapping[str, str]
    progress: Progress
    force: bool = False
    timeout: float | None = None
    command: str = ""

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest(self.study.output / "manifest.json")

    def why_run(self, step: Step) -> str:
        """Why a step must run; "" if its results hold."""
        facts = step_facts(step, self.values, self.study, self.environment)
        reason = self.manifest.why_run(step.name, facts)
        return reason or "--force" * self.force

    def _kept_since(self, step: Step) -> str:
        return f"unchanged since {self.manifest[step.name].finished}"

    def plan(self) -> str:
        """For each notebook whether it would run now, and why; and about how long it takes."""
        width = max(len(step.name) for step in self.steps)
        lines = [self.manifest.problem] if self.manifest.problem else []
        rerun: set[str] = set()
        for step in self.steps:
            reason = self.why_run(step)
            waiting = sorted(rerun.intersection(step.reads))
            if waiting and not reason:
                reason = f"{waiting[0]} is written anew"
            if reason:
                rerun.update(step.writes)
                usual = self._usual(step)
                cost = f"took {clock(usual)} last time" if usual is not None else step.cost
                lines.append(f"  {step.name:<{width}}  run   {reason} ({cost})")
            else:
                lines.append(f"  {step.name:<{width}}  keep  {self._kept_since(step)}")
        return "\n".join(lines)

    def _usual(self, step: Step) -> float | None:
        record = self.manifest[step.name]
        return record.seconds if record else None

    def run(self) -> list[Outcome]:
        """Execute what must be. Writes `manifest.json` at every success, `run.json` at the end."""
        outcomes = [Outcome(step.name, "not run", "not reached") for step in self.steps]
        for remains in self.study.output.glob(f"{_STAGING}*"):  # of a run that was killed
            shutil.rmtree(remains, ignore_errors=True)
        usual_after = self._usual_after()
        broken: dict[str, str] = {}  # file: the notebook that was to write it
        try:
            for index, step in enumerate(self.steps):
                needs = next((broken[read] for read in step.reads if read in broken), "")
                if needs:
                    outcomes[index].reason = f"it needs the results of {needs}"
                    broken.update(dict.fromkeys(step.writes, step.name))
                    continue
                outcomes[index] = self._run(step, index, usual_after[index])
                if not outcomes[index].is_well:
                    broken.update(dict.fromkeys(step.writes, step.name))
                if outcomes[index].status in _ENDS_THE_RUN:
                    break
        except signals.Interruption as interruption:
            # Between two notebooks, or a second one while the first was being heeded.
            reached = next((o for o in outcomes if o.reason == "not reached"), outcomes[-1])
            reached.status = interruption.fault.key
        finally:
            with signals.held():
                self._write_run(outcomes)
        return outcomes

    def _usual_after(self) -> list[float | None]:
        """For each step the seconds that those after it took last time, None if one is unknown."""
        after: list[float | None] = []
        total: float | None = 0.0
        for step in reversed(self.steps):
            after.append(total)
            usual = self._usual(step) if self.why_run(step) else 0.0
            total = None if total is None or usual is None else total + usual
        return after[::-1]

    def _run(self, step: Step, index: int, usual_after: float | None) -> Outcome:
        title = f"[{index + 1}/{len(self.steps)}] {step.name}"
        facts = step_facts(step, self.values, self.study, self.environment)
        reason = self.why_run(step)
        if not reason:
            since = self._kept_since(step)
            self.progress.say(f"{title}: kept, {since}")
            return Outcome(step.name, "kept", since, outputs=[*self.manifest[step.name].outputs])
        self.progress.begin(title, self._usual(step), usual_after)
        staging = self.study.output / f"{_STAGING}{os.getpid()}" / step.name
        outcome = run_step(step, self.values, self.study, self.progress, staging, self.timeout)
        outcome.reason = reason
        if outcome.status == "ok":
            record = Record(
                facts,
                hashes([ROOT / path for path in outcome.outputs]),
                commit(),
                datetime.now().astimezone().isoformat(timespec="seconds"),
                round(outcome.seconds, 3),
                outcome.peak_memory_bytes,
                outcome.peak_gpu_bytes,
            )
            try:
                with signals.held():
                    self.manifest.add(step.name, record, self.known)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                outcome.status, outcome.detail = "disk full", disk_advice([self.study.output])
        self.progress.end(outcome.status, outcome.seconds, outcome.detail)
        return outcome

    def _write_run(self, outcomes: Sequence[Outcome]) -> None:
        shutil.rmtree(self.study.output / f"{_STAGING}{os.getpid()}", ignore_errors=True)
        try:
            write_run(self.study.output / "run.json", self.values, outcomes, self.command)
        except OSError as error:
            self.progress.say(f"run.json could not be written: {error}")
