"""Published checkpoints: original names, containers, and what is refused."""

from __future__ import annotations

import argparse
import os
import pickle

import pytest
import torch
from rehearsal import in_original_names, random_network, write_stand_in
from stand_ins import ALL_VARIANTS, VARIANT_IDS, mini

from lib.networks.backbones import BACKBONES, variant_name
from lib.networks.building import build_network
from lib.networks.checkpoints import WeightsError, load_weights, read_weights
from lib.networks.sources import SHARDS, UNREAD_SHARD, WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_a_full_size_checkpoint_in_the_original_naming_gives_the_same_logits(tmp_path, key, dcls):
    compare(tmp_path, key, dcls, random_network(key, dcls), build_network(BACKBONES[key], dcls))


@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_a_checkpoint_in_the_original_naming_gives_the_same_logits(tmp_path, key, dcls):
    compare(tmp_path, key, dcls, mini(key, dcls).network, mini(key, dcls).network)


def compare(tmp_path, key, dcls, trained, fresh):
    """`trained` stored as published and loaded into `fresh`: every logit is the same."""
    source = WEIGHTS[variant_name(key, dcls)]
    path = write_stand_in(trained, BACKBONES[key].family, source, tmp_path)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(float("nan"))  # what is not loaded shows
    load_weights(fresh, path, BACKBONES[key].family, source.container)
    x = torch.randn(2, 3, *[BACKBONES[key].preprocessing.crop] * 2)
    with torch.inference_mode():
        torch.testing.assert_close(fresh.eval()(x), trained.eval()(x), rtol=0, atol=0)


# Names as the original repositories print them, written down by hand.
ORIGINAL_NAMES = {
    ("convnext_tiny", True): [
        "downsample_layers.0.0.weight", "downsample_layers.0.1.bias", "downsample_layers.2.1.weight",
        "stages.0.0.dwconv.weight", "stages.0.0.dwconv.P", "stages.0.0.dwconv.bias",
        "stages.2.1.pwconv1.weight", "stages.2.1.gamma", "norm.weight", "head.bias",
    ],
    ("caformer_s18", True): [
        "downsample_layers.0.conv.weight", "downsample_layers.0.post_norm.weight",
        "downsample_layers.3.pre_norm.weight", "stages.0.0.token_mixer.dwconv.P",
        "stages.0.0.token_mixer.pwconv1.weight", "stages.3.0.token_mixer.qkv.weight",
        "stages.2.0.res_scale1.scale", "norm.weight", "head.fc1.weight", "head.norm.bias",
    ],
    ("fastvit_sa24", True): [
        "patch_embed.0.rbr_conv.0.conv.weight", "network.0.0.token_mixer.mixer.rbr_skip.weight",
        "network.0.0.convffn.conv.conv.P", "network.1.proj.0.lkb_origin.conv.weight",
        "network.6.pe.P", "network.6.pe.bias", "network.7.0.layer_scale_1", "network.0.0.layer_scale",
        "conv_exp.se.reduce.weight", "head.weight",
    ],
    ("resnet50", True): ["layer1.0.conv2.weight", "layer1.0.conv2.P", "fc.weight"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "dcls"), ORIGINAL_NAMES)
def test_stand_ins_carry_the_original_names(key, dcls):
    with torch.device("meta"):
        names = in_original_names(build_network(BACKBONES[key], dcls), BACKBONES[key].family)
    assert set(ORIGINAL_NAMES[key, dcls]) <= set(names)
    assert not any(".blocks." in name or name.startswith("stem") for name in names)


def test_linear_layers_of_the_original_metaformer_are_two_dimensional():
    state = in_original_names(mini("convformer_s18").network, "metaformer")
    assert state["stages.0.0.token_mixer.pwconv1.weight"].ndim == 2
    assert state["stages.0.0.mlp.fc1.weight"].ndim == 2


# --- what is refused --------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """A convnext miniature's checkpoint as published, changed and stored again."""

    def store(change=lambda stored: None, key="convnext_tiny", container="model"):
        network = mini(key, dcls=True).network
        contents = {container: in_original_names(network, BACKBONES[key].family)}
        change(contents)
        path = tmp_path / "checkpoint.pth"
        torch.save(contents, path)
        return path

    return store


def load(path, key="convnext_tiny"):
    load_weights(mini(key, dcls=True).network, path, BACKBONES[key].family)


class Harmful:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_file_that_would_run_code_is_refused_and_does_not(stored, tmp_path):
    trace = tmp_path / "trace"
    path = stored(lambda contents: contents.update(args=Harmful(f"touch {trace}")))
    with pytest.raises(WeightsError, match=r"refused: it would run code \(posix.system\)"):
        load(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Harmful(f"touch {trace}")))
    with pytest.raises(WeightsError, match=r"plain.pth is (refused|no readable)"):
        load(plain)
    assert not trace.exists()


def test_a_trainers_options_beside_the_weights_are_no_reason_to_refuse(stored):
    load(stored(lambda contents: contents.update(args=argparse.Namespace(lr=1), epoch=3)))


@pytest.mark.parametrize("key", ["convnext_tiny", "caformer_s18", "fastvit_sa24"])
def test_missing_and_unexpected_tensors_are_listed(stored, key):
    def change(contents):
        state = contents["model"]
        del state["head.bias" if key != "caformer_s18" else "head.fc2.bias"]
        state["stranger.weight"] = torch.zeros(3)

    with pytest.raises(WeightsError, match="does not fit") as caught:
        load(stored(change, key), key)
    assert "missing: head.fc" in str(caught.value)
    assert "unexpected: stranger.weight" in str(caught.value)


def test_disagreeing_copies_of_positions_are_told(stored):
    def change(contents):
        state = contents["model"]
        state["stages.2.1.dwconv.P"] = state["stages.2.1.dwconv.P"] + 0.5

    with pytest.raises(WeightsError, match="conv_dw.P differs from .* shares its positions"):
        load(stored(change))


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "model", "state_dict"])
def test_the_usual_containers_are_found_and_averaged_weights_preferred(stored, name):
    load(stored(container=name))
    path = stored(lambda c: c.update(state_dict_ema=c["model"], model={"x": torch.zeros(1)}))
    load(path)


def test_a_wrong_container_is_told_with_what_is_there(stored):
    path = stored(lambda contents: contents.update(epoch=3))
    with pytest.raises(
        WeightsError, match="no weights under 'state_dict_ema'; it holds: model, epoch"
    ):
        read_weights(path, "state_dict_ema")


def test_weights_of_parallel_training_lose_their_prefix(stored):
    load(stored(lambda c: c.update(model={f"module.{k}": v for k, v in c["model"].items()})))


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_checkpoint_is_refused(stored, keep):
    path = stored()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"checkpoint.pth is (no readable|refused)"):
        load(path)


# --- the tables ----------------------------------------------------------------------------


def test_every_variant_has_a_published_file_and_resnet_its_matched_baseline():
    studys = {variant_name(*v) for v in ALL_VARIANTS}
    assert set(WEIGHTS) == studys | {"resnet50_a3", "vgg16", "vgg16_pooled"}
    assert [WEIGHTS[variant_name(*v)].variant for v in ALL_VARIANTS] == ALL_VARIANTS
    assert "a3_in1k" in WEIGHTS["resnet50_a3"].url
    assert "fastvit_sa24_seed0" in WEIGHTS["fastvit_sa24"].url
    assert len(SHARDS) == 18
    assert list(SHARDS)[-1] == UNREAD_SHARD
    assert WEIGHTS["vgg16"].place == WEIGHTS["vgg16_pooled"].place  # one network, two layers
    others = [row for key, row in WEIGHTS.items() if key != "vgg16_pooled"]
    places = [row.place for row in (*others, *SHARDS.values())]
    assert len(set(places)) == len(places)


def test_addresses_are_the_publishers_or_a_mirrors(monkeypatch):
    row = WEIGHTS["resnet50_dcls"]
    file = "resnet_dcls_kernel_5_model_best.pth.tar"
    assert row.address == f"https://zenodo.org/records/8373830/files/{file}"
    monkeypatch.setenv("DCLS_MIRROR", "http://localhost:8000/")
    assert row.address == f"http://localhost:8000/zenodo.org/records/8373830/files/{file}"
