"""A profile's run: what is up to date is kept, the rest is executed, all of it is reported.

`side_by_side` says which notebook begins when; here stands what it is to begin and to end one.
"""

from __future__ import annotations

import contextlib
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
from .execution import Attempt, forget_failure
from .faults import RunError, full_disk
from .kernel import end_processes
from .manifest import Facts, Manifest, Record, differences, hashes, step_facts
from .outcomes import Outcome, write_run
from .progress import Progress
from .steps import Step
from .temporary import STAGING_PREFIX, staging_folder
from .warm import WarmParent

# Bytes that a notebook on the embedded data, or on others, is taken to need where no run tells.
_SMALL, _LARGE = 2 * 2**30, 8 * 2**30


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
    warm        : the process that kernels are forked from, None to start each alone
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
    warm: WarmParent | None = None

    def __post_init__(self):
        self.outcomes = [Outcome(step.name, reason="not reached") for step in self.steps]
        self._started = _now()
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._facts_of: dict[int, Facts] = {}
        self._said_of_report = ""
        self._staging = staging_folder(self.study.places.output)

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
                cost = (
                    f"took {clock(usual)} last time"
                    if usual is not None
                    else step.cost.split(";")[0]
                )
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

    def seconds(self, index: int) -> float:
        """About how long a notebook takes: as last time, else as it says."""
        usual = self._usual(self.steps[index])
        return self.steps[index].declared_seconds if usual is None else usual

    def memory(self, index: int) -> int:
        """Bytes that a notebook takes at most: as last time, else a guess."""
        record = self.manifest[self.steps[index].name]
        if record and record.peak_memory_bytes:
            return record.peak_memory_bytes
        return _SMALL if self.study.choices.profile.is_embedded else _LARGE

    @cached_property
    def _suppliers(self) -> list[set[int]]:
        """For each notebook those before it whose results it reads."""
        return [
            {i for i, earlier in enumerate(self.steps[:index]) if step.needed(earlier.writes)}
            for index, step in enumerate(self.steps)
        ]

    @cached_property
    def urgency(self) -> list[float]:
        """For each notebook the seconds from its beginning to the end of what waits for it."""
        urgency = [self.seconds(index) for index in range(len(self.steps))]
        for index in reversed(range(len(self.steps))):
            for supplier in self._suppliers[index]:
                through = self.seconds(supplier) + urgency[index]
                urgency[supplier] = max(urgency[supplier], through)
        return urgency

    @cached_property
    def _would_run(self) -> list[bool]:
        return [bool(reason) for _, reason in self.decisions()]

    def rest(self) -> float | None:
        """Seconds that notebooks that have not begun took last time; None if one is unknown."""
        usual = [self._usual(self.steps[i]) for i in self._left() if self._would_run[i]]
        return None if None in usual else sum(usual)

    # --- running, from one thread ---------------------------------------------------------

    def open(self) -> None:
        """Remove what a run that was killed has left: processes, staged and partial files."""
        for remains in self.study.places.output.glob(f"{STAGING_PREFIX}*"):
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

    def _left(self) -> list[int]:
        return [i for i in range(len(self.steps)) if i not in self._begun]

    def ready(self) -> list[int]:
        """Notebooks that can begin: those whose results they read have ended."""
        return [i for i in self._left() if self._suppliers[i] <= self._ended]

    @property
    def is_over(self) -> bool:
        return len(self._ended) == len(self.steps)

    def end(self) -> None:
        """Nothing more begins; the report says so."""
        self._begun |= {*range(len(self.steps))}
        self._ended |= {*range(len(self.steps))}
        shutil.rmtree(self._staging, ignore_errors=True)
        self._report(ended=_now())

    def begin(self, index: int) -> Attempt | None:
        """Prepare a notebook, for `Attempt.execute`; None if it is not to run, which is told."""
        step, outcome = self.steps[index], self.outcomes[index]
        self._begun.add(index)
        lacking = [i for i in sorted(self._suppliers[index]) if not self.outcomes[i].is_well]
        if lacking:
            outcome.reason = f"it needs the results of {self.steps[lacking[0]].name}"
            self._settle(index)
            return None
        facts = self._facts(step)
        outcome.reason = self.why_run(step, facts)
        title = f"[{index + 1}/{len(self.steps)}] {step.name}"
        if not outcome.reason:
            outcome.status, outcome.reason = "kept", self._kept_since(step)
            outcome.outputs = self.manifest[step.name].outputs
            forget_failure(step, self.study.places)
            self.progress.say(f"{title}: kept, {outcome.reason}")
            self._settle(index)
            return None
        outcome.status = "running"
        self._report()
        attempt = Attempt(
            step, self.values, self.study.places,
            self.progress.begin(title, self._usual(step)), self._staging / step.name,
            self.timeout, self._warm(facts),
        )  # fmt: skip
        self._facts_of[index] = facts
        return attempt

    def _warm(self, facts: Facts) -> WarmParent | None:
        """The warm parent, unless the package's code has changed since it was imported."""
        return self.warm if self.warm and facts.lib == self.warm.code else None

    def finish(self, index: int, attempt: Attempt, error: RunError | None) -> None:
        """Publish and record what came of an attempt, or keep and tell its failure; whole."""
        step, outcome = self.steps[index], self.outcomes[index]
        try:
            if error:
                raise error
            outcome.outputs = hashes(attempt.publish())
            outcome.status = "ok"
            self._measure(outcome, attempt)
            self._record(step, outcome, attempt, self._facts_of[index])
        except RunError as fault:
            outcome.status, outcome.detail = fault.fault.key, str(fault)
        except OSError as fault:  # the manifest
            full = is_disk_full(fault)
            outcome.status = "disk full" if full else "failed"
            outcome.detail = str(full_disk(self.study.places.output) if full else fault)
        self._conclude(index, attempt)

    def interrupt(self, index: int, attempt: Attempt | None, fault: str) -> None:
        """Tell that a notebook that has begun was ended. fault : a key of FAULTS"""
        outcome = self.outcomes[index]
        outcome.status = fault
        if attempt:
            outcome.detail = f"in {attempt.kernel.where}"
            self._conclude(index, attempt)

    def _conclude(self, index: int, attempt: Attempt) -> None:
        outcome = self.outcomes[index]
        self._measure(outcome, attempt)
        if not outcome.is_well:
            kept = attempt.keep_failed(outcome.status, outcome.detail)
            outcome.detail += f"\nsee {shown(kept)}" if kept else ""
        shutil.rmtree(attempt.staging, ignore_errors=True)
        attempt.kernel.progress.end(outcome.status, outcome.seconds, outcome.detail)
        self._settle(index)

    def _settle(self, index: int) -> None:
        self._ended.add(index)
        self._report()

    def _measure(self, outcome: Outcome, attempt: Attempt) -> None:
        outcome.seconds = round(time.monotonic() - attempt.kernel.begun, 3)
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
            text = f"run.json could not be written: {error}"
            if text != self._said_of_report:  # a full disk is told once
                self.progress.say(text)
            self._said_of_report = text


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
