"""The device of a study's models. This module needs torch, and nothing else of the study."""

from __future__ import annotations

import torch


def chosen_device(name: str) -> torch.device:
    """Return the device of that name; "auto" chooses a GPU if there is one.

    Raises ValueError if it does not exist.
    """
    # Scores must not depend on a GPU's reduced float32 precision.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} does not exist: {error}") from None
    available = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= available:
        raise ValueError(
            f"device {name!r} does not exist: torch sees {available} {device.type} "
            "device(s); try --device cpu"
        )
    return device
