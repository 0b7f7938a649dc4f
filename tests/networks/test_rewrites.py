"""Rewritten networks compute the same; which one is fastest is measured once and remembered."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from stand_ins import EACH_VARIANT, mini
from timm.models.metaformer import StarReLU
from torch import nn

from lib.networks import rewrites
from lib.networks.compiled import CompiledForward
from lib.networks.dcls import fold_dcls
from lib.networks.models import Provenance, StudyModel
from lib.networks.rewrites import (
    MINI_FORM,
    PLAIN,
    Form,
    LinearAsConv,
    candidates,
    fastest_form,
    form_to_compile,
    remembered_form,
    written,
)


def unlike(network: nn.Module) -> nn.Module:
    """Norms and activations with numbers of their own, so that leaving one out shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        elif isinstance(module, StarReLU):
            nn.init.uniform_(module.scale, -2, 2)
            nn.init.normal_(module.bias)
    return network


@pytest.mark.parametrize(("key", "dcls"), EACH_VARIANT)
def test_every_form_computes_the_same_features_and_logits(key, dcls):
    model = mini(key, dcls)
    folded = fold_dcls(unlike(model.network))
    x = torch.randn(2, 3, 96, 96)
    forms = candidates(folded)
    assert PLAIN in forms
    assert Form() in forms
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    with torch.inference_mode():
        expected, logits = folded.forward_features(x), folded(x)
        for form in forms:
            network = written(folded, form)
            there = x.contiguous(memory_format=form.layout)
            features = network.forward_features(there)
            assert (features - expected).abs().max() < 5e-6 * expected.abs().max(), form
            assert (network(there) - logits).abs().max() < 5e-6 * logits.abs().max(), form
    for name, tensor in folded.state_dict().items():
        assert torch.equal(tensor, before[name])  # the network given is unchanged


@pytest.mark.parametrize("shape", [(2, 5, 5, 12), (2, 25, 12), (3, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_as_a_convolution_is_that_layer(shape, bias):
    linear, x = nn.Linear(12, 7, bias=bias), torch.randn(shape)
    torch.testing.assert_close(LinearAsConv(linear)(x), linear(x), rtol=1e-6, atol=1e-6)


def test_the_forms_of_a_family_are_those_that_change_something():
    assert {f.linear_as_conv for f in candidates(mini("resnet50").network)} == {False}
    assert {f.fused for f in candidates(mini("convnext_tiny").network)} == {False}
    assert len(candidates(mini("fastvit_sa24").network)) == 8


def test_the_fastest_form_is_measured_and_one_that_computes_something_else_is_out(monkeypatch):
    network = mini("convnext_tiny").network
    slow, fast, wrong = Form(), PLAIN, Form(linear_as_conv=True)
    seconds = {slow: 3.0, fast: 1.0, wrong: 0.1}
    made: dict[int, Form] = {}

    def rewritten(_, form):
        copy = nn.Module()
        made[id(copy)] = form
        copy.form = form
        return copy

    def timed(candidate, x):
        form = getattr(candidate, "form", None)
        return seconds.get(form, 9.0), torch.ones(1) * (2 if form == wrong else 1)

    monkeypatch.setattr(rewrites, "written", rewritten)
    monkeypatch.setattr(rewrites, "seconds_of", timed)
    assert fastest_form(network, 224, [slow, fast, wrong]) == fast


def test_a_measurement_is_remembered_and_a_damaged_memory_made_anew(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(rewrites, "fastest_form", lambda *_: calls.append(1) or Form(False, True))
    path = tmp_path / "forms.json"
    network = mini("convnext_tiny").network
    for _ in range(2):
        assert remembered_form(network, "a", 224, path) == Form(False, True)
    assert len(calls) == 1
    remembered_form(network, "b", 224, path)
    assert len(calls) == 2
    assert len(json.loads(path.read_text())) == 2
    known = json.loads(path.read_text())
    wrong = [dict.fromkeys(known, value) for value in (3, {}, {"channels_last": "no"})]
    wrong.append({name: form | {"fused": None} for name, form in known.items()})
    wrong.append({name: form | {"more": True} for name, form in known.items()})
    for damaged in ("{", "[1]", "null", "[" * 10**5, *map(json.dumps, wrong)):
        path.write_text(damaged)
        assert remembered_form(network, "a", 224, path) == Form(False, True)
    assert len(calls) == 11


def test_an_embedded_networks_form_is_not_measured_and_another_full_size_networks_is(monkeypatch):
    small = mini("resnet50")
    assert small.for_inference().form == MINI_FORM
    asked = []
    monkeypatch.setattr(
        "lib.networks.models.remembered_form",
        lambda _, name, side: asked.append((name, side)) or PLAIN,
    )
    row = replace(small.backbone, embedded=True)
    embedded = StudyModel(small.network, row, Provenance("resnet50", "random", "full"))
    assert embedded.for_inference().form == MINI_FORM
    assert not asked
    full = StudyModel(small.network, small.backbone, Provenance("resnet50", "random", "full"))
    assert full.for_inference().form == PLAIN
    assert asked == [("resnet50", 224)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(("key", "dcls"), [("resnet50", False), ("caformer_s18", True)])
def test_a_compiled_network_computes_the_same(key, dcls, precision):
    model = mini(key, dcls).eval()
    form = form_to_compile(model.folded().network)
    assert form.channels_last
    assert form.linear_as_conv == (key != "resnet50")
    compiled = model.for_inference(precision, compiled=True, form=form)
    side = model.backbone.preprocessing.crop
    same = 1e-5 if precision == "float32" else 0.05
    with torch.inference_mode():
        for count in (4, 3):
            x = compiled.prepare_pixels(torch.randint(0, 256, (count, side, side, 3)).byte())
            expected = model.folded().features(x)
            features = compiled.features(x)
            assert features.shape == expected.shape
            assert (features - expected).abs().max() < same * expected.abs().max()


def test_smaller_batches_are_filled_up_to_what_is_compiled(monkeypatch):
    sizes = []

    def recorded(x):
        sizes.append(len(x))
        return 2 * x

    monkeypatch.setattr(torch, "compile", lambda forward, **options: forward)
    forward = CompiledForward(recorded, torch.device("cpu"), torch.channels_last)
    x = torch.randn(8, 3, 4, 4)
    with torch.inference_mode():
        for count in (8, 5, 4, 3, 2, 8, 1):
            assert torch.equal(forward(x[:count]), 2 * x[:count])
    # 5 of 8, 3 of 4; half a batch (what memory may leave) is not filled up to the whole.
    assert sizes == [8, 8, 4, 4, 2, 8, 1]


def test_a_forward_that_records_gradients_is_not_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_, **__: None)
    forward = CompiledForward(torch.square, torch.device("cpu"), torch.contiguous_format)
    assert forward(torch.ones(2, requires_grad=True)).requires_grad
