"""The controls: maps that no model made. One row each, with the function that makes its maps.

Another image's human map shows what a map scores that ignores the image. A map that is high in
the centre, or where people look in other images, scores far more. A score that does not lie above
the strongest control gives no evidence that the heatmap follows the image.

`lib.scores.control_scores` scores them. This table does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..base.geometry import centre_map
from ..base.tables import Table

if TYPE_CHECKING:
    from torch import Tensor

# Whose maps are compared with people's: kinds of rows.
NETWORK, CONTROL, PEOPLE = "network", "control", "people"
OTHER_HUMAN = "other_human"
SEED = 20240803
_CAM_SIDE = 7  # of most backbones' features


@dataclass(frozen=True)
class Shown:
    """What a control may use of some images.

    human  : (image, side, side) human maps that the control is compared with
    other  : (image, side, side) the human map of another image, for each
    others : (image, side, side) the mean human map of all other images, each scaled to 0-1 first
    places : (image,) the images' places among all, used as seeds for random numbers
    """

    human: Tensor
    other: Tensor
    others: Tensor
    places: np.ndarray


@dataclass(frozen=True)
class Control:
    """A row of the table of controls.

    label : the name in figures
    maps : returns (image, h, w) maps of some images, as a tensor or an array; small maps are
           enlarged like heatmaps
    """

    key: str
    label: str
    maps: Callable[[Shown], Tensor | np.ndarray]


def _centre(shown: Shown) -> np.ndarray:
    """Higher the nearer to the centre, so that pixels have the order of any round Gaussian."""
    images, *sides = shown.human.shape
    return np.repeat(centre_map(*sides)[None], images, axis=0)


def _random(shown: Shown) -> np.ndarray:
    """Noise that depends only on the image's place, not on the other images."""
    cells = (_CAM_SIDE, _CAM_SIDE)
    noise = [np.random.default_rng([SEED, place]).random(cells) for place in shown.places]
    return np.stack(noise).astype(np.float32)


CONTROLS: Table[Control] = Table(
    "control",
    [
        Control("centre", "centred Gaussian", _centre),
        Control("mean_human", "mean human map of the other images", lambda shown: shown.others),
        Control(OTHER_HUMAN, "another image's human map", lambda shown: shown.other),
        Control("random", "random 7×7 map", _random),
    ],
)


def control_labels() -> dict[str, str]:
    """{key: label}, for figures."""
    return {control.key: control.label for control in CONTROLS.values()}
