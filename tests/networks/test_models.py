"""Loading, splitting and preprocessing of the sixteen variants."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from stand_ins import ALL_VARIANTS, VARIANT_IDS, mini
from timm.data import create_transform

from lib.base.geometry import Preprocessing
from lib.base.tables import Table, UnknownName
from lib.networks.backbones import BACKBONES
from lib.networks.building import count_parameters, parameter_counts
from lib.networks.checkpoints import MissingWeights, load_weights
from lib.networks.dcls import dcls_layers
from lib.networks.loading import demo_weights_path, load_model, save_weights
from lib.networks.preprocessing import prepare_pixels, resize_images


@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_demo_variant_loads_and_is_split_at_the_last_map(key, dcls, images):
    model = load_model(key, dcls, weights="demo")
    assert not model.training
    assert bool(dcls_layers(model)) == dcls
    x = model.prepare(images)
    with torch.no_grad():
        features = model.features(x)
        assert features.ndim == 4
        assert features.shape[-2:] == (x.shape[-1] // 32,) * 2
        torch.testing.assert_close(model.head(features), model.network(x))
    assert model.provenance.sha256
    assert model.variant == demo_weights_path(key, dcls).stem


def test_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="Did you mean 'convnext_tiny'"):
        load_model("convnet_tiny")


def test_unknown_weights_are_refused():
    with pytest.raises(UnknownName, match="unknown weights 'dmeo'. Did you mean 'demo'"):
        load_model("resnet50", weights="dmeo")


def test_a_repeated_key_is_refused():
    row = BACKBONES["resnet50"]
    with pytest.raises(ValueError, match="two rows of the model table"):
        Table("model", [row, row])


def test_missing_demo_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("lib.networks.loading.DEMO", tmp_path)
    with pytest.raises(MissingWeights, match="make demo-data"):
        load_model("resnet50", weights="demo")


# --- files --------------------------------------------------------------------


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(mini("convnext_tiny", dcls=True).network, path, {})
    return path


def rewrite(path, change):
    state = safetensors.torch.load_file(path)
    change(state)
    safetensors.torch.save_file(state, path)


def test_saved_weights_load_again_rounded_to_half_precision(weights_file):
    network = mini("convnext_tiny", dcls=True).network
    expected = {k: v.half().float() for k, v in network.state_dict().items()}
    save_weights(network, weights_file, {})
    other = mini("convnext_tiny", dcls=True).network
    load_weights(other, weights_file, "convnext")
    assert all(torch.equal(v, expected[k]) for k, v in other.state_dict().items())


def test_weights_that_do_not_fit_are_refused_listing_each_tensor(weights_file):
    def change(state):
        del state["head.fc.bias"]
        state["head.fc.weight"] = torch.zeros(3, 2)
        state["stranger"] = torch.zeros(1)

    rewrite(weights_file, change)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_weights(mini("convnext_tiny", dcls=True).network, weights_file, "convnext")
    for part in ("missing: head.fc.bias", "unexpected: stranger", "head.fc.weight: file has"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken.safetensors is not a readable"):
        load_weights(mini("resnet50").network, path, "resnet")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    shutil.copy(demo_weights_path("resnet50", False), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut.safetensors is not a readable"):
        load_weights(mini("resnet50", classes=12).network, path, "resnet")


# --- preprocessing ------------------------------------------------------------


@pytest.mark.parametrize("key", ["resnet50", "convnext_tiny", "caformer_s18"])
def test_preprocessing_equals_timms_evaluation_transform(key, images):
    geometry = BACKBONES[key].preprocessing
    transform = create_transform(
        224, crop_pct=224 / geometry.resize, interpolation="bicubic", mean=geometry.mean,
        std=geometry.std,
    )  # fmt: skip
    expected = torch.stack([transform(Image.fromarray(p)) for p in images])
    ours = prepare_pixels(torch.from_numpy(resize_images(images, geometry)), geometry)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_fastvit_sees_the_whole_image_at_256(images):
    geometry = BACKBONES["fastvit_sa24"].preprocessing
    resized = resize_images(images, geometry)
    expected = np.asarray(Image.fromarray(images[0]).resize((256, 256), Image.BICUBIC))
    np.testing.assert_array_equal(resized[0], expected)


def test_prepared_images_are_contiguous(images):
    model = mini("fastvit_sa24")
    assert model.prepare(images).is_contiguous()


@pytest.mark.parametrize(
    "wrong", [np.zeros((224, 224, 3), np.uint8), np.zeros((1, 224, 224, 3), np.float32),
              np.zeros((1, 3, 224, 224), np.uint8)]
)  # fmt: skip
def test_images_of_another_shape_or_type_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be \(image, height, width, 3\) uint8"):
        resize_images(wrong, Preprocessing(256, 224))


def test_convformers_head_norm_has_the_originals_eps():
    assert load_model("convformer_s18", weights="demo").network.head.fc.norm.eps == 1e-5
    with torch.device("meta"):
        import timm

        import lib.networks.timm_variants  # noqa: F401 - registers

        assert timm.create_model("convformer_s18_dcls").head.fc.norm.eps == 1e-5


@pytest.mark.parametrize("key", [key for key, row in BACKBONES.items() if not row.embedded])
def test_baseline_tags_are_timms_and_of_imagenet_1k(key):
    import timm

    row = BACKBONES[key]
    assert row.timm_tag in timm.list_pretrained()
    assert timm.get_pretrained_cfg(row.timm_tag).num_classes == 1000


def test_parameters_are_counted_without_making_any_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.networks.building.COUNTS", tmp_path / "parameters.json")
    row, made = BACKBONES["caformer_s18"], []
    expected = {dcls: mini(row.key, dcls, 12).network for dcls in (False, True)}
    expected = {
        dcls: sum({id(p): p.numel() for p in network.parameters()}.values())
        for dcls, network in expected.items()
    }
    monkeypatch.setattr(
        "lib.networks.building.count_parameters",
        lambda network: (made.append(network), count_parameters(network))[1],
    )
    for damage in ("", "{", '{"a": {"True": -1}}', None, None):
        parameter_counts.cache_clear()  # as another process
        if damage is not None:
            (tmp_path / "parameters.json").write_text(damage)
        assert parameter_counts(row, mini=True, classes=12) == expected
    parameter_counts.cache_clear()
    assert len(made) == 2 * 3  # not where it was remembered
    assert all(p.is_meta for network in made for p in network.parameters())
    assert parameter_counts(row, mini=True, classes=13)[False] > expected[False]
    parameter_counts.cache_clear()
