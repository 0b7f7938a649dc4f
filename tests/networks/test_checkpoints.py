"""Published checkpoints: original names, containers, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from rehearsal import in_original_names, random_network, write_stand_in
from stand_ins import ALL_VARIANTS, EACH_VARIANT, VARIANT_IDS, mini
from timm.utils.model import reparameterize_model

from lib.networks import opened
from lib.networks.backbones import BACKBONES, variant_name
from lib.networks.building import build_network
from lib.networks.checkpoints import load_weights
from lib.networks.loading import load_weights_file
from lib.networks.sources import SHARDS, UNREAD_SHARD, WEIGHTS, Reading
from lib.networks.weights_files import WeightsError, read_weights
from lib.study.study import Study


@pytest.mark.slow
@pytest.mark.parametrize(("key", "dcls"), ALL_VARIANTS, ids=VARIANT_IDS)
def test_a_full_size_checkpoint_in_the_original_naming_gives_the_same_logits(tmp_path, key, dcls):
    compare(tmp_path, key, dcls, random_network(key, dcls), build_network(BACKBONES[key], dcls))


@pytest.mark.parametrize(("key", "dcls"), EACH_VARIANT)
def test_a_checkpoint_in_the_original_naming_gives_the_same_logits(tmp_path, key, dcls):
    compare(tmp_path, key, dcls, mini(key, dcls).network, mini(key, dcls).network)


def compare(tmp_path, key, dcls, trained, fresh):
    """`trained` stored as published and loaded into `fresh`: every logit is the same."""
    source = WEIGHTS[variant_name(key, dcls)]
    path = write_stand_in(trained, BACKBONES[key].family, source, tmp_path)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(float("nan"))  # what is not loaded shows
    assert load_weights(fresh, path, BACKBONES[key].family, source.reading) == []
    x = torch.randn(2, 3, 96, 96)
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


def load(path, key="convnext_tiny", accepted=()):
    reading = Reading(accepted=accepted)
    return load_weights(mini(key, dcls=True).network, path, BACKBONES[key].family, reading)


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


# Names in the convnext miniature's file, and in its network.
WEIGHT, BIAS = "stages.0.0.dwconv.weight", "stages.0.0.dwconv.bias"
FIRST, LAST, LAST_HERE = "stages.2.0.dwconv.P", "stages.2.1.dwconv.P", "stages.2.blocks.1.conv_dw.P"


def changed(name, function):
    def change(contents):
        contents["model"][name] = function(contents["model"][name].clone())

    return change


def test_copies_of_positions_that_differ_by_rounding_are_told(stored):
    (told,) = load(stored(changed(FIRST, lambda p: p + 1e-6)))
    assert told.startswith(f"copies of the positions of {LAST_HERE} differ by rounding (")
    assert load(stored()) == []


def test_of_copies_of_positions_that_differ_the_last_is_taken_and_told(stored):
    path = stored(changed(LAST, lambda p: p * 0.5))
    expected = torch.load(path)["model"][LAST]
    network = mini("convnext_tiny", dcls=True).network
    (told,) = load_weights(network, path, "convnext")
    assert "the stage's copies of its positions differ by up to" in told
    assert LAST_HERE in told
    for name in ("stages.2.blocks.0.conv_dw.P", LAST_HERE):
        torch.testing.assert_close(network.state_dict()[name], expected, rtol=0, atol=0)


def test_positions_outside_of_the_window_are_refused_unless_accepted_by_name(stored):
    path = stored(changed(LAST, lambda p: p.fill_(8.01)))
    said = rf"{LAST_HERE}: positions up to 8.01 from the centre of a window of 17; --accept"
    with pytest.raises(WeightsError, match=said):
        load(path)
    told = load(path, accepted=("stages.2.*.P",))
    assert any("weights there are lost" in words for words in told)
    assert load(stored(changed("stages.0.0.dwconv.P", lambda p: p.fill_(8)))) == []  # the border


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (WEIGHT, float("nan")),
        (BIAS, float("inf")),
        (LAST, -float("inf")),
        ("head.weight", float("nan")),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(stored, name, value):
    def change(tensor):
        tensor.view(-1)[1] = value
        return tensor

    with pytest.raises(WeightsError, match=r": 1 of its \d+ values are not finite"):
        load(stored(changed(name, change)))


def test_a_number_too_large_for_the_network_is_not_finite(stored):
    path = stored(changed(BIAS, lambda t: t.double().fill_(1e200)))
    with pytest.raises(WeightsError, match="conv_dw.bias: 16 of its 16 values are not finite"):
        load(path)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64, torch.uint8])
def test_weights_of_an_impossible_kind_are_refused(stored, kind):
    name = str(kind).removeprefix("torch.")
    with pytest.raises(WeightsError, match=f"conv_dw.weight: file has {name}, which no weights"):
        load(stored(changed(WEIGHT, lambda t: t.to(kind))))


def test_counts_must_be_whole_numbers(stored):
    with pytest.raises(WeightsError, match="num_batches_tracked: file has float32, model whole"):
        load(stored(changed("patch_embed.0.rbr_conv.0.bn.num_batches_tracked", torch.Tensor.float),
                    "fastvit_sa24"), "fastvit_sa24")  # fmt: skip


def test_a_kind_changed_in_a_header_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file(mini("resnet50").network.state_dict(), path)
    content = path.read_bytes()
    begin = content.index(b'"F32"')
    path.write_bytes(content[:begin] + b'"I32"' + content[begin + 5 :])
    with pytest.raises(WeightsError, match="file has int32, which no weights have"):
        load_weights(mini("resnet50").network, path, "resnet")


def test_positions_with_their_axes_exchanged_are_not_reshaped_in_silence(stored):
    """timm's filter of MetaFormers gives any tensor the shape that is wanted, if it can."""
    name = "stages.0.0.token_mixer.dwconv.P"
    path = stored(changed(name, lambda p: p.transpose(0, 1).contiguous()), "caformer_s18")
    with pytest.raises(WeightsError, match=r"dwconv.P: file has shape \(32, 2, 1, 34\)"):
        load(path, "caformer_s18")


def test_a_re_parameterised_fastvit_is_told_as_such(stored):
    def fold(contents):
        network = reparameterize_model(mini("fastvit_sa24").network)
        contents["model"] = in_original_names(network, "fastvit")

    with pytest.raises(
        WeightsError, match="holds FastViT re-parameterised for inference"
    ) as caught:
        load(stored(fold, "fastvit_sa24"), "fastvit_sa24")
    assert "as it was trained" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- what may be missing or left over ------------------------------------------------------------


def profiled(contents):
    """As a profiler leaves a network that is stored after it ran."""
    state = contents["model"]
    for name in [n.rpartition(".")[0] for n in state if n.endswith(".weight")]:
        state |= {f"{name}.total_ops": torch.zeros(1), f"{name}.total_params": torch.zeros(1)}
    state |= {"total_ops": torch.zeros(1), "total_params": torch.zeros(1)}


@pytest.mark.parametrize("key", ["convnext_tiny", "caformer_s18", "fastvit_sa24", "resnet50"])
def test_a_profilers_counters_in_a_published_file_are_passed_over_and_told(stored, key):
    reading = replace(WEIGHTS[f"{key}_dcls"].reading, container="model")
    network, plain = mini(key, dcls=True), torch.load(stored(key=key))["model"]
    path, count = stored(profiled, key), 2 + 2 * sum(n.endswith(".weight") for n in plain)
    (told,) = load_weights(network.network, path, BACKBONES[key].family, reading)
    assert told.startswith(f"not read, because the network has no such names: {count} (")
    with pytest.raises(WeightsError, match="unexpected: .*total_ops"):  # in any other file
        load(path, key)


def test_a_published_file_may_lack_counts_of_batches_and_nothing_else(stored):
    key, reading = "fastvit_sa24", replace(WEIGHTS["fastvit_sa24_dcls"].reading, container="model")

    def without(end):
        def change(contents):
            state = contents["model"]
            contents["model"] = {n: t for n, t in state.items() if not n.endswith(end)}

        return stored(change, key)

    network = mini(key, dcls=True).network
    (told,) = load_weights(network, without(".num_batches_tracked"), "fastvit", reading)
    assert told.startswith("not in the file, initialised as in a new network: ")
    with pytest.raises(WeightsError, match="missing: .*running_mean"):
        load_weights(network, without(".running_mean"), "fastvit", reading)


def test_what_is_accepted_by_its_name_is_told_and_the_same_in_every_run(tmp_path):
    key, path = "resnet50", tmp_path / "c.safetensors"
    state = mini(key, classes=12).network.state_dict()
    state["stranger"] = state.pop("fc.bias")
    safetensors.torch.save_file(state, path)
    with pytest.raises(WeightsError, match=r"(?s)missing: fc.bias.*--accept stranger$"):
        load_weights_file(key, False, path, mini=True, classes=12)
    reading = Reading(accepted=("fc.bias", "stranger"))
    both = [load_weights_file(key, False, path, reading, True, 12) for _ in range(2)]
    assert len(both[0].provenance.remarks) == 2
    assert "stranger" in both[0].provenance.remarks[0]
    assert "fc.bias" in both[0].provenance.remarks[1]
    biases = [model.network.fc.bias for model in both]
    torch.testing.assert_close(*biases, rtol=0, atol=0)
    with pytest.raises(WeightsError, match="unexpected: stranger"):
        load_weights_file(key, False, path, Reading(accepted=("fc.*",)), True, 12)


@pytest.mark.parametrize("pattern", ["*", "?", "*.*", "", "**", "[a]", 3])
def test_accepting_everything_is_refused(pattern):
    with pytest.raises(ValueError, match="names no tensor"):
        Study.from_profile("demo", accept=[pattern])
    with pytest.raises(ValueError, match="lists of names"):
        Study.from_profile("demo", accept="fc.bias")


def test_what_is_told_is_remembered_by_the_files_hash(tmp_path, monkeypatch):
    memory = tmp_path / "weights.json"
    monkeypatch.setattr(opened, "OPENED", memory)
    path = tmp_path / "c.safetensors"
    state = mini("resnet50", classes=12).network.state_dict() | {"stranger": torch.zeros(1)}
    safetensors.torch.save_file(state, path)
    of = BACKBONES["resnet50"], False, path, Reading(accepted=("stranger",)), True, 12
    (told,) = opened.remarks_on(*of)
    assert "stranger" in told
    monkeypatch.setattr(opened, "fitted", lambda *_: pytest.fail("it was opened again"))
    assert opened.remarks_on(*of) == [told]
    monkeypatch.undo()
    monkeypatch.setattr(opened, "OPENED", memory)
    for damaged in ("{", "[]", '{"a": 1}', "[" * 100_000):
        memory.write_text(damaged)
        assert opened.remarks_on(*of) == [told]
    state["fc.bias"][0] = float("nan")
    safetensors.torch.save_file(state, path)
    with pytest.raises(WeightsError, match="not finite"):
        opened.remarks_on(*of)


@pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "model", "state_dict"])
def test_the_usual_containers_are_found_and_averaged_weights_preferred(stored, name):
    load(stored(container=name))
    path = stored(lambda c: c.update(state_dict_ema=c["model"], model={"x": torch.zeros(1)}))
    load(path)


def test_a_wrong_container_is_told_with_what_is_there(stored):
    path = stored(lambda contents: contents.update(epoch=3))
    with pytest.raises(
        WeightsError, match="no weights under 'state_dict_ema'; it contains: model, epoch"
    ):
        read_weights(path, "state_dict_ema")


def test_weights_of_parallel_training_lose_their_prefix(stored):
    load(stored(lambda c: c.update(model={f"module.{k}": v for k, v in c["model"].items()})))


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_checkpoint_is_refused(stored, keep):
    path = stored()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"checkpoint.pth is (not a readable|refused)"):
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
