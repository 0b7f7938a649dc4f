"""golden.npz is what TensorFlow reads from the demo shard, today too."""

from __future__ import annotations

import numpy as np
import pytest
from reading import GOLDEN, read_with_tensorflow, sampled

pytestmark = pytest.mark.tensorflow


def test_golden_values_are_tensorflows():
    pytest.importorskip("tensorflow")
    fresh = sampled(read_with_tensorflow())
    with np.load(GOLDEN) as golden:
        np.testing.assert_array_equal(fresh["labels"], golden["labels"])
        np.testing.assert_array_equal(fresh["images"], golden["images"])
        np.testing.assert_allclose(fresh["maps"], golden["maps"], atol=1e-4, rtol=0)
