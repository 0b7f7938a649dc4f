"""golden.npz is what pysaliency computes, today too."""

from __future__ import annotations

import numpy as np
import pytest
from measuring import GOLDEN, made_up, measure_with_pysaliency

pytestmark = pytest.mark.pysaliency


def test_golden_values_are_pysaliencys():
    made = made_up()
    fresh = made | measure_with_pysaliency(made)
    with np.load(GOLDEN) as golden:
        assert set(golden) == set(fresh)
        for name, values in fresh.items():
            np.testing.assert_allclose(values, golden[name], rtol=1e-12, atol=1e-12)
