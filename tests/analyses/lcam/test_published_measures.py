"""Average drop and increase in confidence against the published evaluation, written out here from
its description, one image at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stand_ins import InHalves
from torch import nn

from lib.analyses.faithfulness import kept_share, measured
from lib.maps.learned.attention import LCam
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES

SIDE = 20


class Small(InHalves, nn.Module):
    """Its maps have a cell a pixel, so that no two cells of a map are the same."""

    backbone = BACKBONES["resnet50"]

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.end = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)
            self.attentions = {"lcam_img": LCam([6], 4)}

    def normalised(self, images):
        return (images - 0.45) / 0.22

    def features(self, x):
        return self.conv(x).relu() + 0.1 * x.sum(dim=1, keepdim=True)

    def head(self, features):
        return 6 * self.end(features.mean(dim=(2, 3)))

    def forward(self, x):
        return self.head(self.features(x))


def kept_as_published(flat: np.ndarray, percent: float) -> np.ndarray:
    """Which pixels of a map stay: those that reach the value of the rank int(n x percent), and of
    those with just that value no more than ceil(n x (1 - percent)) in all, the first ones lost."""
    count = len(flat)
    if percent == 0:
        return np.ones(count, bool)
    value = np.sort(flat)[int(count * percent) - 1]
    kept = flat >= value
    wanted = math.ceil((1 - percent) * count)
    surplus = int((np.where(kept, flat, 0) > 0).sum()) - wanted
    if surplus >= 1:
        kept[np.flatnonzero(flat == value)[:surplus]] = False
    return kept


def published(model, images, percent: float, less: int = 0) -> tuple[float, float]:
    """Average drop and increase in confidence.

    less : so many pixels fewer are kept, the least ones
    """
    whole, masked = [], []
    for image in images:
        x = model.normalised(image[None])
        with torch.no_grad():
            probabilities = model(x).softmax(dim=1)[0]
            chosen = int(probabilities.argmax())
            c = model.attentions["lcam_img"].maps(model.features(x))[0, chosen].numpy().copy()
            c = c - c.min()
            flat = (c / (c.max() - c.min())).ravel()
            kept = kept_as_published(flat, percent)
            kept[np.flatnonzero(kept)[np.argsort(flat[kept])[:less]]] = False
            mask = torch.from_numpy(np.where(kept, flat, 0).reshape(SIDE, SIDE)).float()
            hidden = model(model.normalised(mask * image[None])).softmax(dim=1)[0]
        whole.append(float(probabilities[chosen]))
        masked.append(float(hidden[chosen]))
    y, o = np.array(whole), np.array(masked)
    drop = sum((y - o).clip(min=0) / y) * 100 / len(y)
    return drop, sum(value > 0 for value in o - y) * 100 / len(y)


def test_measures_are_those_of_the_published_evaluation():
    """At 15 % that keeps a pixel more: 1 - 0.85 is a little above 0.15, and is rounded up."""
    model = Small().eval()
    images = torch.rand(12, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    images[:6, :, :10] *= 0.2
    names = [str(number) for number in range(12)]
    ours = next(measured(model, [METHODS["lcam_img"]], images, range(12), names))
    means = ours.groupby("measure").value.mean()
    for share, percent, less in (("100%", 0, 0), ("50%", 0.5, 0), ("15%", 0.85, 1)):
        drop, increase = published(model, images, percent, less)
        assert means[f"average_drop_{share}"] == pytest.approx(drop, abs=1e-3), share
        assert means[f"increase_{share}"] == pytest.approx(increase), share
        assert drop > 1
    assert 0 < means["increase_100%"] < 100
    drop, _ = published(model, images, 0.85)
    assert 0 < abs(means["average_drop_15%"] - drop) < 0.5


@pytest.mark.parametrize(("percent", "theirs"), [(0.5, 25_088), (0.85, 7_527)])
def test_so_many_of_a_images_50_176_pixels_are_kept(percent, theirs):
    flat = np.random.default_rng(0).permutation(224 * 224) / (224 * 224 - 1)
    assert kept_as_published(flat, percent).sum() == theirs
    order = torch.from_numpy(np.argsort(-flat)[None])
    mask = torch.from_numpy(flat.reshape(1, 224, 224))
    ours = int((kept_share(mask, order, 1 - percent) > 0).sum())
    assert ours == theirs - (percent == 0.85)
