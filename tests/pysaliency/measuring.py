"""Fixation measures as pysaliency computes them, of small maps with ties.

    python tests/pysaliency/measuring.py     writes golden.npz

Runs in an environment of its own (`make test-pysaliency`); the study never imports pysaliency.
`golden.npz` holds maps, fixations and pysaliency's values, a mean over each image's fixations;
`tests/scores/test_fixation_measures.py` compares the study's measures with them.

pysaliency compares densities that it is given. Those here are written out from the definitions of
docs/fixations.md, pixel by pixel and fixation by fixation.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

GOLDEN = Path(__file__).with_name("golden.npz")
HEIGHT, WIDTH = 14, 20
BANDWIDTH, UNIFORM = 0.1 * 14, 0.01
FIXATIONS = (9, 1, 30, 4, 12, 5)  # of each image


def made_up() -> dict[str, np.ndarray]:
    """Maps, and fixations: `x`, `y`, and `image`, whose each is."""
    rng = np.random.default_rng(23)
    maps = rng.gamma(0.4, size=(len(FIXATIONS), HEIGHT, WIDTH))  # skewed
    maps[1] = -maps[1] * 1e6 - 5
    maps[2] = np.floor(maps[2] * 4)  # many ties, most of them at the least value
    maps[3] = maps[3].clip(max=np.quantile(maps[3], 0.6))  # a plateau on top
    maps[4] = maps[4] * 1e-3 + 1
    maps[5] = 0.25  # constant
    image = np.repeat(np.arange(len(FIXATIONS)), FIXATIONS)
    x = rng.beta(3, 2, len(image)) * WIDTH
    y = rng.beta(2, 4, len(image)) * HEIGHT
    x[0], y[0] = 0, 0  # corners, and pixels that are fixated twice
    x[1], y[1] = np.nextafter(WIDTH, 0), np.nextafter(HEIGHT, 0)
    x[10:14], y[10:14] = 7.2, 3.9
    return {"maps": maps, "x": x, "y": y, "image": image}


def density_of(one: np.ndarray) -> np.ndarray:
    """A map as a density."""
    above = one - one.min()
    share = above / above.sum() if above.any() else np.full(one.shape, 1 / one.size)
    return (1 - UNIFORM) * share + UNIFORM / one.size


def centre_bias(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A Gaussian around the pixel of every fixation, summed up."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    found = np.zeros((HEIGHT, WIDTH))
    for column, row in zip(x.astype(int), y.astype(int), strict=True):
        found += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * BANDWIDTH**2))
    return (1 - UNIFORM) * found / found.sum() + UNIFORM / found.size


def measure_with_pysaliency(made: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{measure: one value per image}"""
    # These need MATLAB and torch, which no measure here does.
    sys.modules.setdefault("pysaliency.external_models", MagicMock())
    from pysaliency import FixationSet, Model, SaliencyMapModel, Stimuli

    maps, x, y, image = (made[name] for name in ("maps", "x", "y", "image"))
    # Images that differ, by which pysaliency tells images apart.
    images = [np.full((HEIGHT, WIDTH, 3), n, np.uint8) for n in range(len(maps))]

    class Maps(SaliencyMapModel):
        def _saliency_map(self, stimulus):
            return maps[stimulus[0, 0, 0]]

    class Densities(Model):
        def _log_density(self, stimulus):
            return np.log(density_of(maps[stimulus[0, 0, 0]]))

    class CentreBias(Model):
        def _log_density(self, stimulus):
            others = image != stimulus[0, 0, 0]
            return np.log(centre_bias(x[others], y[others]))

    stimuli = Stimuli(images)
    fixations = FixationSet.create_without_history(x, y, image)
    each = {
        "nss": Maps().NSSs(stimuli, fixations),
        "auc_judd": Maps().AUCs(stimuli, fixations, nonfixations="uniform"),
        "shuffled_auc": Maps().AUCs(stimuli, fixations, nonfixations="shuffled"),
        "information_gain": Densities().information_gains(
            stimuli, fixations, baseline_model=CentreBias()
        ),
    }
    means = {name: np.bincount(image, values) / np.bincount(image) for name, values in each.items()}
    # As Judd's own script has it: thresholds at the fixated values, fixated pixels no negatives.
    judd = Maps().AUC_per_image(
        stimuli, fixations, nonfixations="unfixated", thresholds="fixations"
    )
    return means | {"judds_script": np.array(judd)}


if __name__ == "__main__":
    made = made_up()
    np.savez_compressed(GOLDEN, **made, **measure_with_pysaliency(made))
    print(f"wrote {GOLDEN}")
