"""Scores of a GPU are those of the CPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stand_ins import ALL_VARIANTS, VARIANT_IDS, mini

from lib.maps.live import live_maps
from lib.maps.methods import METHODS
from lib.networks.batch_size import BatchSize
from lib.scores.prepared import PreparedPart
from lib.scores.scoring import score_part
from lib.study.study import Study

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_scores_are_the_cpus(key, dcls):
    """float32 without TF32: rho to 1e-5, and the same maps are invalid."""
    tables = {}
    for device in ("cpu", "cuda"):
        study = Study.from_profile("demo", models=[key], limit=64, device=device)
        model = study.networks.load_model(key, dcls).for_inference()
        part = PreparedPart(study.clickme(), study.networks.device(), 32)
        tables[device] = score_part(model, study.choices.methods, part, BatchSize(32))
    here, there = tables["cpu"], tables["cuda"]
    assert here.image_id.tolist() == there.image_id.tolist()
    assert here.validity.tolist() == there.validity.tolist()
    np.testing.assert_allclose(there.rho, here.rho, atol=1e-5, rtol=0)


def test_too_large_a_batch_is_halved_on_the_device(monkeypatch):
    study = Study.from_profile("demo", models=["resnet50"], limit=64, device="cuda")
    model = study.networks.load_model("resnet50", False).for_inference()
    features = model.features

    def greedy(x):
        if len(x) > 16:
            torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
        return features(x)

    monkeypatch.setattr(model, "features", greedy)
    size = BatchSize(64)
    scores = score_part(
        model,
        study.choices.methods,
        PreparedPart(study.clickme(), study.networks.device(), 64),
        size,
    )
    assert size.now == 16
    assert len(scores) == 64 * 2 * 2


@pytest.mark.parametrize("method", [key for key, row in METHODS.items() if not row.learned])
def test_maps_of_a_network_in_memory_are_the_cpus(method):
    """On its own device."""
    if method == "guided_ig":
        pytest.skip("its path follows rounding errors")
    network, x = mini("resnet50").network, torch.rand(2, 3, 64, 64)
    layer = ["layer3", "layer4"] if method == "refine_cam" else "layer4"
    expected = live_maps(network, x, method, layer=layer)
    found = live_maps(network.cuda(), x, method, layer=layer)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=0)
