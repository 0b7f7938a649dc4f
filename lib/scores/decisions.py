"""Decisions about differences: one rule for every comparison, also for several at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..study.rules import RULES
from .statistics import holm, mean_p

RISES, FALLS = "rises", "falls"
RISES_LITTLE, FALLS_LITTLE = "rises, too little to matter", "falls, too little to matter"
EQUIVALENT = "equivalent"
OPEN = "undecided"
TOO_FEW = f"fewer than {RULES.fewest_images} images"
LITTLE = (RISES_LITTLE, FALLS_LITTLE, EQUIVALENT)  # the difference is below the smallest effect


def equivalence_p(differences: Sequence[float], smallest: float) -> float:
    """p of the test of equivalence: the larger p of two one-sided tests against ± smallest."""
    above = mean_p(differences, -smallest, "greater")
    below = mean_p(differences, smallest, "less")
    return float(np.maximum(above, below))


def decisions(family: Sequence[Sequence[float]], smallest: float) -> list[str]:
    """Return the decision for each sample of differences: one of the words defined above.

    family   : samples of differences that are corrected together
    smallest : the smallest difference that matters, in the same units

    The mean rises or falls if its Holm-corrected p is below alpha. It is equivalent if the
    Holm-corrected p of the test of equivalence is below alpha. It is "too little to matter" if
    both are.
    """
    moved = holm([mean_p(sample) for sample in family])
    within = holm([equivalence_p(sample, smallest) for sample in family])
    found = []
    for sample, p, p_within in zip(family, moved, within, strict=True):
        if np.isnan(p):
            found.append(TOO_FEW)
        elif p < RULES.alpha:
            words = (RISES, RISES_LITTLE) if np.nanmean(sample) > 0 else (FALLS, FALLS_LITTLE)
            found.append(words[bool(p_within < RULES.alpha)])
        else:
            found.append(EQUIVALENT if p_within < RULES.alpha else OPEN)
    return found
