"""Maps that no network made: what a score is worth. One row each, with what makes its maps.

Another image's human map is what any map gets that follows no image; a map that is high
in the centre, or where people look in other images, gets far more. A score that does not
lie above the strongest of them may be no more than that.

`lib.scores.control_scores` scores them. This table costs no import of torch.
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
    """Some images, as a control may use them.

    human  : (image, side, side) human maps that the control is compared with
    other  : the same of another image each
    others : the same, the mean human map of all other images, each scaled to 0-1 before
    places : (image,) the images' places among all, which seed what is drawn by lot
    """

    human: Tensor
    other: Tensor
    others: Tensor
    places: np.ndarray


@dataclass(frozen=True)
class Control:
    """label : as figures name it
    maps : (image, h, w) maps of some images, tensor or array; smaller ones are enlarged as a
           network's are
    """

    key: str
    label: str
    maps: Callable[[Shown], Tensor | np.ndarray]


def _centre(shown: Shown) -> np.ndarray:
    """Higher the nearer to the centre: it orders pixels as any round Gaussian does."""
    images, *sides = shown.human.shape
    return np.repeat(centre_map(*sides)[None], images, axis=0)


def _random(shown: Shown) -> np.ndarray:
    """The same for an image whatever the others."""
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
