"""What intervals and decisions promise, asked of simulated samples (`make test-slow`)."""

from __future__ import annotations

import numpy as np
import pytest
from simulations import SHAPES, coverage, false_alarms, power

pytestmark = pytest.mark.slow

SAMPLES = 600
# Three standard errors of so many draws of 5 %.
ERROR = 3 * np.sqrt(0.05 * 0.95 / SAMPLES)


def test_false_alarms_of_eight_comparisons_stay_at_most_nominal_from_eight_images_on():
    found = false_alarms((8, 16, 24, 50, 64, 100, 400), SAMPLES)
    assert set(found["shape"]) == set(SHAPES)
    assert (found.alarms[found.n < 50] == 0).all()  # nothing is decided
    assert (found.alarms <= 0.05 + ERROR).all(), found.sort_values("alarms").tail()


def test_intervals_hold_as_often_as_they_say():
    found = coverage((24, 50, 100, 400), SAMPLES, ("here",))
    # Of a mixture whose rare part no sample of 24 need show, no interval can know.
    known = found[(found.n >= 50) | ~found["shape"].str.contains("far worse")]
    assert (known.covered >= 0.95 - ERROR).all(), known.sort_values("covered").head()


def test_they_find_nearly_what_students_test_finds():
    found = power((50, 100, 400), SAMPLES)
    assert (found.found >= found.t_test - 0.08).all(), found
