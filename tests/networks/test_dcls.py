"""DCLS conversion against the paper's facts and the DCLS package's own kernels."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import timm
import torch
from DCLS.construct.modules import ConstructKernel2d, Dcls2d
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import ALL_VARIANTS, EACH, EIGHT, FAMILIES, VARIANT_IDS, mini
from torch import nn

from lib.networks import timm_variants  # noqa: F401 - registers
from lib.networks.backbones import BACKBONES, DclsRecipe
from lib.networks.building import build_network, count_parameters
from lib.networks.dcls import (
    KernelBuilder,
    clamp_positions,
    convert_to_dcls,
    dcls_layers,
    dense_kernel,
    fold_dcls,
    replaced_layers,
)

# The published counts, shared positions counted once: without and with DCLS.
PARAMETERS = {
    "resnet50": (25_557_032, 24_008_744),
    "convnext_tiny": (28_589_128, 28_587_688),
    "convnext_small": (50_223_688, 50_217_064),
    "convnext_base": (88_591_464, 88_582_632),
    "caformer_s18": (26_341_656, 26_350_488),
    "convformer_s18": (26_774_448, 26_848_432),
    "fastvit_sa24": (21_554_216, 21_523_496),
    "fastvit_sa36": (31_527_464, 31_452_584),
}


@cache
def on_meta(key: str, dcls: bool) -> nn.Module:
    """The variant in full size, without its numbers; made once for all tests that look at it."""
    with torch.device("meta"):
        return build_network(BACKBONES[key], dcls)


@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_parameter_count_equals_the_published_one(key, dcls):
    network = on_meta(key, dcls)
    assert count_parameters(network) == PARAMETERS[key][dcls]


def expected_layers(key: str) -> list[str]:
    """The layers that the study replaces, by name, from the architectures' depths."""
    if key == "resnet50":
        return [f"layer{i + 1}.{j}.conv2" for i, n in enumerate((3, 4, 6, 3)) for j in range(n)]
    if key.startswith("convnext"):
        depths = (3, 3, 9, 3) if key == "convnext_tiny" else (3, 3, 27, 3)
        return [f"stages.{i}.blocks.{j}.conv_dw" for i, n in enumerate(depths) for j in range(n)]
    if key.endswith("former_s18"):
        depths = (3, 3) if key == "caformer_s18" else (3, 3, 9, 3)
        return [
            f"stages.{i}.blocks.{j}.token_mixer.dwconv" for i, n in enumerate(depths)
            for j in range(n)
        ]  # fmt: skip
    depths = (4, 4, 12, 4) if key == "fastvit_sa24" else (6, 6, 18, 6)
    ffn = [f"stages.{i}.blocks.{j}.mlp.conv.conv" for i, n in enumerate(depths) for j in range(n)]
    return [*ffn, "stages.3.pos_emb.pos_enc"]


@pytest.mark.parametrize("key", EIGHT)
def test_exactly_the_listed_layers_are_replaced(key):
    plain, layers = on_meta(key, False), dcls_layers(on_meta(key, True))
    assert sorted(layers) == sorted(expected_layers(key))
    recipe = BACKBONES[key].dcls
    for name, layer in layers.items():
        old = plain.get_submodule(name)
        assert layer.stride == old.stride
        assert layer.groups == old.groups
        assert (layer.bias is None) == (old.bias is None)
        assert layer.padding == (recipe.size // 2,) * 2
        assert (layer.kernel_count, layer.version) == (recipe.kernel_count, recipe.version)
        assert layer.dilated_kernel_size == (recipe.size,) * 2


@pytest.mark.parametrize("key", EIGHT)
def test_positions_are_shared_within_a_stage_and_only_there(key):
    layers = dcls_layers(on_meta(key, True))
    # Stages differ in width, and no two stages of these backbones have the same.
    by_width: dict[int, set[int]] = {}
    for layer in layers.values():
        by_width.setdefault(layer.in_channels, set()).add(id(layer.P))
    assert all(len(shared) == 1 for shared in by_width.values())
    assert len({i for shared in by_width.values() for i in shared}) == len(by_width)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    version=st.sampled_from(["v0", "v1"]),
    size=st.sampled_from([(7, 7), (17, 17), (5, 9)]),
    groups=st.sampled_from([1, 6]),
    reach=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_kernel_builder_equals_the_packages_construction(seed, version, size, groups, reach):
    torch.manual_seed(seed)
    weight = torch.randn(6, 6 // groups, 8, requires_grad=True)
    limit = torch.tensor([s // 2 for s in size], dtype=torch.float32)
    # P's first axis is the row in v0 and the column in v1; up to thrice too far out
    limit = limit if version == "v0" else limit.flip(0)
    positions = (torch.rand(2, *weight.shape) * 2 - 1) * (limit * reach).view(2, 1, 1, 1)
    # The package's two axes of `lim` fit square kernels only.
    if size[0] != size[1]:
        positions = positions.clamp(-min(size) // 2 + 1, min(size) // 2)
    positions.requires_grad_()
    reference = ConstructKernel2d(6, 6, groups, 8, size, version)
    if size[0] != size[1] and version == "v1":
        return  # the package itself confuses the axes of oblong v1 kernels
    expected = reference(weight, positions, None)
    built = KernelBuilder(size, version)(weight, positions)
    torch.testing.assert_close(built, expected, atol=1e-5, rtol=1e-5)

    probe = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * probe).sum(), (weight, positions))
    got = torch.autograd.grad((built * probe).sum(), (weight, positions))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_v0_reads_row_first_and_v1_column_first():
    positions = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
    weight = torch.ones(1, 1, 1)
    by_row = KernelBuilder((7, 7), "v0")(weight, positions)[0, 0]
    by_column = KernelBuilder((7, 7), "v1")(weight, positions)[0, 0]
    assert by_row[3 + 2, 3 - 1] == 1
    assert by_column[3 - 1, 3 + 2] == pytest.approx(1)


def test_a_position_between_cells_is_spread_bilinearly():
    positions = torch.tensor([0.25, -0.5]).view(2, 1, 1, 1)
    kernel = KernelBuilder((3, 3), "v0")(torch.ones(1, 1, 1), positions)[0, 0]
    expected = torch.tensor([[0, 0, 0], [0.375, 0.375, 0], [0.125, 0.125, 0]])
    torch.testing.assert_close(kernel, expected)


@pytest.mark.parametrize("key", EACH)
def test_folded_model_equals_dcls_model(key):
    model = mini(key, dcls=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        features, logits = model.features(x), model(x)
        folded = fold_dcls(model)
        torch.testing.assert_close(folded.features(x), features, atol=1e-6, rtol=0)
        torch.testing.assert_close(folded(x), logits, atol=1e-6, rtol=0)
    assert dcls_layers(model)
    assert not dcls_layers(folded)


@pytest.mark.slow
@pytest.mark.parametrize("key", EIGHT)
def test_folded_full_size_model_equals_dcls_model(key):
    network = build_network(BACKBONES[key], True).eval()
    side = BACKBONES[key].preprocessing.crop
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(fold_dcls(network)(x), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("key", FAMILIES)
def test_folding_survives_a_change_of_dtype_and_device_after_a_forward(key):
    model = mini(key, dcls=True)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = model(x)  # builds the package's index tensors, which do not move
        torch.testing.assert_close(fold_dcls(model.double())(x.double()).float(), expected,
                                   atol=1e-5, rtol=1e-4)  # fmt: skip
    moved = fold_dcls(model.to("meta"))
    assert {p.device.type for p in moved.parameters()} == {"meta"}
    assert moved(x.double().to("meta")).shape == expected.shape


def test_folding_leaves_the_model_given_alone():
    model = mini("convnext_tiny", dcls=True)
    before = copy.deepcopy(model.state_dict())
    fold_dcls(model)
    assert len(dcls_layers(model)) == 5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_bfloat16_layer_builds_its_kernel_in_float32():
    layer = next(iter(dcls_layers(mini("convnext_tiny", dcls=True)).values())).bfloat16()
    positions, weight = layer.P.float(), layer.weight.float()
    construct = ConstructKernel2d(16, 16, 16, 34, (17, 17), "v0")
    assert torch.equal(dense_kernel(layer), construct(weight, positions, None).bfloat16())


@pytest.mark.parametrize("key", EACH)
def test_state_dict_round_trips_with_positions_repeated_per_layer(key):
    one, other = mini(key, dcls=True), mini(key, dcls=True)
    state = one.state_dict()
    layers = dcls_layers(one)
    assert sum(name.endswith(".P") for name in state) == len(layers)
    other.load_state_dict(state)
    for name, layer in dcls_layers(other).items():
        assert torch.equal(layer.P, layers[name].P)
        assert torch.equal(dense_kernel(layer), dense_kernel(layers[name]))


@pytest.mark.parametrize("key", EIGHT)
def test_dcls_variants_are_in_timms_registry(key):
    with torch.device("meta"):
        network = timm.create_model(f"{key}_dcls", num_classes=7)
    assert dcls_layers(network)
    assert network.num_classes == 7


def test_timm_entry_refuses_pretrained_weights_it_does_not_have():
    with pytest.raises(ValueError, match="no pretrained weights of resnet50_dcls"):
        timm.create_model("resnet50_dcls", pretrained=True)


def test_conversion_without_a_match_is_refused():
    recipe = DclsRecipe(4, 7, "v0", lambda conv: False)
    with pytest.raises(ValueError, match="no convolution inside Sequential matches"):
        convert_to_dcls(nn.Sequential(nn.Conv2d(3, 4, 3)), recipe)


def test_conversion_of_a_dilated_convolution_is_refused():
    recipe = DclsRecipe(4, 7, "v0", lambda conv: True)
    with pytest.raises(ValueError, match="only undilated convolutions"):
        convert_to_dcls(nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2)), recipe)


def test_conversion_is_quiet(caplog):
    mini("convnext_tiny", dcls=True)
    assert not caplog.records


def test_new_layers_follow_the_recipe_of_initialisation():
    recipe = DclsRecipe(16, 17, "v1", lambda conv: True)
    network = convert_to_dcls(nn.Sequential(nn.Conv2d(64, 64, 7, padding=3, groups=64)), recipe)
    layer = network[0]
    assert isinstance(layer, Dcls2d)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert layer.P.std().item() == pytest.approx(0.5, rel=0.15)
    assert not layer.bias.any()


def test_clamped_positions_lie_inside_the_square():
    model = mini("fastvit_sa24", dcls=True)
    for layer in dcls_layers(model).values():
        nn.init.normal_(layer.P, 0, 100)
    clamp_positions(model)
    assert all(layer.P.abs().max() == 8 for layer in dcls_layers(model).values())


def test_replaced_layers_number_the_shared_positions():
    lines = replaced_layers(mini("convnext_tiny", dcls=True))
    assert [line["positions"] for line in lines] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("conv", [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, padding=2)])
def test_conversion_that_would_change_the_output_size_is_refused(conv):
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), conv)
    with pytest.raises(ValueError, match="keep the size of their output"):
        convert_to_dcls(network, DclsRecipe(4, 7, "v0", lambda c: True))
    assert not dcls_layers(network)  # nothing is half-converted
    with pytest.raises(ValueError, match="size must be odd"):
        convert_to_dcls(network, DclsRecipe(4, 6, "v0", lambda c: True))


def test_a_convolution_used_twice_is_replaced_in_both_places_by_one_layer():
    conv = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    network = convert_to_dcls(
        nn.Sequential(conv, nn.ReLU(), conv), DclsRecipe(4, 7, "v0", lambda c: True)
    )
    assert network[0] is network[2]
    assert isinstance(network[0], Dcls2d)
    assert not any(p.requires_grad for p in network.parameters())
