"""What a kernel says of itself; the preflight runs this file's text in it."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.study.study import Study


def report(modules: list[str], values: dict, reads: list[str] = ()) -> str:
    """JSON: which Python it is, which imports fail, which `lib` and device it finds, and which
    weights cannot be used.

    modules : what the notebooks import
    values  : the notebooks' parameters
    reads   : the inputs that they declare; of "weights", all are opened
    """
    found: dict = {"executable": sys.executable, "prefix": sys.prefix, "errors": {}}
    found["version"] = sys.version
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # whatever a broken package does
            found["errors"][name] = _told(error)
    try:
        import torch
    except BaseException as error:  # not installed, or a library of it or the driver is broken
        told = found["torch"] = _told(error)
        found["errors"] = {name: e for name, e in found["errors"].items() if e != told}
        return json.dumps(found)
    try:
        import lib

        found["lib"] = next(iter(lib.__path__))
        from lib.base.versions import environment
        from lib.study.device import chosen_device
        from lib.study.study import Study

        found["environment"] = environment()
        study = Study.from_profile(**values)
        device = chosen_device(study.choices.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        found["environment"]["device"] = f"{device} {name}".strip()
    except ValueError as error:
        found["device"] = str(error)
    except BaseException as error:
        found["errors"].setdefault("lib", f"{type(error).__name__}: {error}")
    else:
        if "weights" in reads:  # now, and not in a notebook hours later
            found |= _of_weights(study, "training checkpoints" in reads)
    return json.dumps(found)


def _told(error: BaseException) -> str:
    """An error in one line, with the file that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    return " ".join(f"{type(error).__name__}: {error} ({place})".split())


def _of_weights(study: Study, trained: bool) -> dict:
    """Which weights cannot be used, and what results must tell of the others."""
    try:
        # With keep_going, what cannot be used is left out, and named.
        kind = "left_out" if study.choices.keep_going else "weights"
        return {kind: study.networks.unusable(trained), "remarks": study.networks.remarks()}
    except Exception as error:  # a file that may not be read, too little memory
        return {"weights": [f"weights cannot be read: {type(error).__name__}: {error}"]}
