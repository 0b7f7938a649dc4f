"""Work by several processes, on this machine or on many. Dask schedules them.

Workers must see this project and its data under the same paths (a shared disk), because they
read and write the same files as a single process does. If a worker dies, only its current unit is
lost, and Dask gives that unit to another worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import lazy_loader
import torch
from tqdm import tqdm

from ..networks.checkpoints import MissingWeights, WeightsError
from ..study.choices import Choices
from ..study.study import Study
from .units import Unit, Work

distributed = lazy_loader.load("distributed")  # its import takes a second

WAIT = 60  # seconds for a scheduler to answer
STARTS = 3  # of the workers here

# Of a worker's process: {what it was asked for: (the work, its units)}.
_works: dict[str, tuple[Work, list[Unit]]] = {}


class ClusterError(RuntimeError):
    """The cluster, or one of its workers, cannot do the work; the message says why."""


def do_on_cluster(work: Work, units: list[Unit]) -> Iterator[tuple[Unit, Exception | None]]:
    """Compute units in other processes. Yields each as soon as it is finished, with the error if
    it cannot be computed (with `keep_going`). Raises ClusterError, and what computing raises."""
    if not units:
        return
    study = work.study
    made_from = type(work), study.choices.options(), work.arguments
    with _client(study.choices, len(units)) as client:
        waiting = {}
        for number, unit in enumerate(units):
            future = client.submit(
                do_unit, *made_from, str(unit.path), unit.name,
                key=f"{unit.name}-{unit.path.stem[-16:]}",
                priority=-number,  # units of one part together, while a worker holds that part
                pure=False,
            )  # fmt: skip
            waiting[future] = unit
        for future in distributed.as_completed(list(waiting)):
            unit = waiting.pop(future)
            error = future.exception()
            if error is not None and not (
                study.choices.keep_going and isinstance(error, MissingWeights | WeightsError)
            ):
                client.cancel(list(waiting))
                raise error
            yield unit, error


@contextmanager
def _client(choices: Choices, units: int) -> Iterator[distributed.Client]:
    if choices.scheduler:
        try:
            client = distributed.Client(choices.scheduler, timeout=WAIT)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no Dask scheduler answers at {choices.scheduler}: {error}"
            ) from None
        with client:
            yield client
        return
    own = _cluster_here(min(choices.workers, units))
    with own, distributed.Client(own) as client:
        yield client


def _cluster_here(count: int) -> distributed.LocalCluster:
    """Start `count` workers. On a busy machine a worker may lack a port or time to start; the
    start is then repeated. Raises ClusterError."""
    threads = max(1, (os.cpu_count() or 1) // count)

    def started() -> distributed.LocalCluster:
        return distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, memory_limit=0, dashboard_address=None,
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )  # fmt: skip

    for _ in range(STARTS - 1):
        try:
            return started()
        except (RuntimeError, OSError) as error:
            tqdm.write(f"a worker did not start; trying again: {error}")
    try:
        return started()
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"the workers did not start in {STARTS} attempts: {error}; use fewer --workers, or none"
        ) from error


def do_unit(kind: type[Work], choices: dict, arguments: dict, path: str, name: str) -> None:
    """Compute a unit's table in a worker and cache it, unless another worker has done so.

    Raises ClusterError if this worker's files or code differ from those of the process that
    sent the unit.
    """
    work, units = _of(kind, choices, arguments)
    unit = next((u for u in units if str(u.path) == path and u.name == name), None)
    if unit is None:
        raise ClusterError(
            f"this worker would not cache {name} as {path}: its project, packages, images or "
            "weights differ from those of the process that started the run; give all workers the "
            "same ones"
        )
    if work.cached(unit) is None:
        work.do(unit)


def _of(kind: type[Work], choices: dict, arguments: dict) -> tuple[Work, list[Unit]]:
    key = repr((kind, choices, arguments))
    if key not in _works:
        _works.clear()  # they belong to another study; their memory is freed
        study = Study.from_profile(**choices | {"device": _device(choices["device"])})
        work = kind(study, **arguments)
        _works[key] = work, list(work.units())
    return _works[key]


def _device(chosen: str) -> str:
    """One GPU per worker, if the machine has several and nobody has assigned them."""
    count = torch.cuda.device_count()
    name = str(distributed.get_worker().name)
    if chosen == "auto" and count > 1 and name.isdecimal():
        return f"cuda:{int(name) % count}"
    return chosen
