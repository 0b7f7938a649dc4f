"""What a kernel says of itself; the preflight runs this file's text in it."""

from __future__ import annotations

import importlib
import json
import sys
import traceback


def report(modules: list[str], values: dict) -> str:
    """JSON: which Python it is, which imports fail, which `lib` and device it finds.

    modules : what the notebooks import
    values  : the notebooks' parameters
    """
    found: dict = {"executable": sys.executable, "prefix": sys.prefix, "errors": {}}
    found["version"] = sys.version
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:  # whatever a broken package does
            place = traceback.extract_tb(error.__traceback__)[-1].filename
            found["errors"][name] = f"{type(error).__name__}: {error} ({place})"
    try:
        import lib

        found["lib"] = next(iter(lib.__path__))
        from lib.base.versions import environment
        from lib.study.device import chosen_device
        from lib.study.study import Study

        found["environment"] = environment()
        device = chosen_device(Study.from_profile(**values).choices.device)
        import torch

        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        found["environment"]["device"] = f"{device} {name}".strip()
    except ValueError as error:
        found["device"] = str(error)
    except BaseException as error:
        found["errors"].setdefault("lib", f"{type(error).__name__}: {error}")
    return json.dumps(found)
