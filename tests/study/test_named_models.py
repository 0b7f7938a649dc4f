"""Models that a name makes: the same rows in every process, and nothing is taken silently."""

from __future__ import annotations

import re

import pytest
import timm
import torch

from lib.base.tables import UnknownName
from lib.networks.backbones import BACKBONES
from lib.networks.sources import WEIGHTS
from lib.scores.units import ScoreWork
from lib.study.inputs import MissingInputs
from lib.study.stages import stages_of
from lib.study.study import NamedModels, Study

TINY = "test_resnet"  # timm's own, of half a million parameters

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture(autouse=True)
def nothing_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.networks.checked.LAYERS", tmp_path / "layers.json")


def chosen(*models: str, profile: str = "gaze", **options) -> Study:
    return Study.from_profile(profile, list(models), limit=2, **options)


@pytest.fixture
def training(tmp_path):
    """Checkpoints of a training as timm's script writes them."""
    folder = tmp_path / "run_a"
    folder.mkdir()
    for epoch in (2, 10, 1):
        torch.manual_seed(epoch)
        state = timm.create_model(TINY).state_dict()
        torch.save({"state_dict": state, "epoch": epoch}, folder / f"checkpoint-{epoch}.pth.tar")
    torch.save({"state_dict": state}, folder / "model_best.pth.tar")
    return folder


def test_random_weights_need_no_file_and_are_the_same_everywhere():
    study = chosen(f"untrained:{TINY}")
    (row,) = study.choices.backbones
    assert (row.key, row.label, row.untrained) == (f"{TINY}_untrained", f"{TINY}, untrained", True)
    assert study.inputs.missing() == []
    assert study.choices.options()["models"] == [row.named]
    network = study.networks.load_model(row.key, False).network
    torch.manual_seed(0)
    for name, tensor in timm.create_model(TINY).state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    again = Study.from_profile(**study.choices.options())
    (one,), (other,) = (list(ScoreWork(s).units()) for s in (study, again))
    assert one.path == other.path


def test_a_name_of_timms_is_fetched_from_where_timm_says(tmp_path):
    with pytest.warns(NamedModels, match=r"timm:resnet18 is resnet18.a1_in1k"):
        study = chosen("timm:resnet18", "timm:cspnext_tiny.rsb_a1_in1k", data_dir=str(tmp_path))
    first, second = study.choices.backbones
    assert (first.key, first.named) == ("resnet18_a1_in1k", "timm:resnet18.a1_in1k")
    about = {b.key: timm.get_pretrained_cfg(b.timm_tag) for b in study.choices.backbones}
    for source in study.inputs.sources():
        assert source.url == (
            f"https://huggingface.co/{about[source.key].hf_hub_id}/resolve/main/model.safetensors"
        )
    assert "munehiro-k" in WEIGHTS[second.key].url  # not timm's own repository
    assert first.preprocessing.mean == about[first.key].mean
    with pytest.raises(MissingInputs) as raised:
        study.inputs.require()
    assert "--profile gaze --data-dir" in str(raised.value)
    assert "--models timm:resnet18.a1_in1k timm:cspnext_tiny.rsb_a1_in1k --download-only" in str(
        raised.value
    )


def test_checkpoints_of_a_folder_are_rows_in_the_order_of_their_numbers(training):
    with pytest.warns(NamedModels, match=r"skipped.*model_best.pth.tar"):
        study = chosen(f"{TINY}@{training}")
    rows = study.choices.backbones
    assert [row.stage for row in rows] == [1, 2, 10]
    assert {row.series for row in rows} == {"run_a"}
    assert rows[2].label.startswith(TINY)  # with the folder, if there is another training
    assert rows[2].label.endswith(", epoch 10")
    assert all(re.fullmatch(r"\w+", row.key) for row in rows)
    texts = study.choices.options()["models"]
    assert texts[2] == f"timm:{TINY}@{training}/checkpoint-10.pth.tar#10"
    before = [(row.key, row.label, row.series, row.stage, row.origin) for row in rows]
    BACKBONES.keep([key for key in BACKBONES if not BACKBONES[key].named])  # as another process
    again = chosen(*texts).choices.backbones
    assert [(row.key, row.label, row.series, row.stage, row.origin) for row in again] == before
    torch.manual_seed(10)
    wanted = timm.create_model(TINY).state_dict()["conv1.0.weight"]
    network = study.networks.load_model(rows[2].key, False).network
    assert torch.equal(network.state_dict()["conv1.0.weight"], wanted)


def test_a_second_process_finds_the_layer_without_a_forward(monkeypatch):
    first = chosen("untrained:test_vit").choices.backbones[0]
    assert first.layer
    assert first.around
    BACKBONES.keep([key for key in BACKBONES if not BACKBONES[key].named])
    monkeypatch.setattr("lib.networks.checked.build_network", None)
    second = chosen("untrained:test_vit").choices.backbones[0]
    assert (second.layer, second.around) == (first.layer, first.around)


def test_weights_of_other_classes_are_for_predicted_classes_alone(tmp_path):
    torch.save(timm.create_model(TINY, num_classes=7).state_dict(), tmp_path / "seven.pth")
    study = chosen(f"{TINY}@{tmp_path}/seven.pth")
    model = study.networks.load_model(study.choices.backbones[0].key, False)
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, 7)
    (why,) = chosen(f"{TINY}@{tmp_path}/seven.pth", target="true").networks.unusable()
    assert "has 7 classes" in why
    assert "--target predicted" in why


def test_a_model_of_the_table_takes_weights_too_and_the_example_its_miniatures(tmp_path):
    study = chosen("untrained:resnet50", "untrained:convnext_tiny_dcls", profile="demo")
    plain, dcls = study.choices.backbones
    assert (plain.label, dcls.label) == (
        "ResNet-50 mini, untrained", "ConvNeXt-T + DCLS mini, untrained",
    )  # fmt: skip
    weights = study.networks.load_model(dcls.key, False).network.state_dict()
    assert any(name.endswith(".P") for name in weights)  # positions of points
    torch.save(weights, tmp_path / "step_300.pth")
    (row,) = chosen(f"convnext_tiny_dcls@{tmp_path}", profile="demo").choices.backbones
    assert row.stage == 300
    assert row.label == "ConvNeXt-T + DCLS mini, step 300"
    assert study.networks.load_model(row.key, False).provenance.source == "file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:resent50", "unknown timm model 'resent50'. Did you mean 'resnet50'"),
        ("timm:resnet18.a9_in1k", "Did you mean 'a3_in1k'"),
        ("timm:*", r"matches \d+ models, .* at most 60"),
        ("timm:gcvit_tiny", "not on timm's hub: fetch https://github.com"),
        ("timm:vit_base_patch16_clip_224.openai", "no classifier whose evidence"),
        ("tim:resnet18", "tim: is not a known prefix"),
        ("resnet18", "timm has it: timm:resnet18, or untrained:resnet18"),
        ("untrained:resnet18@a.pth", "do not come from a file"),
        ("resnet50@nowhere", "no file or folder is named, or matches, nowhere"),
        ("vgg16_dcls@nowhere", "vgg16 has no DCLS form"),
        ("unheard@nowhere", "unknown model 'unheard'"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(text, message):
    before = list(BACKBONES), list(WEIGHTS)
    with pytest.raises(ValueError, match=message):
        chosen(text)
    assert (list(BACKBONES), list(WEIGHTS)) == before
    assert issubclass(UnknownName, ValueError)


def test_classes_of_published_weights_must_be_the_profiles_or_none_is_asked():
    with pytest.raises(ValueError, match="21841 classes, but the profile 1000: --target"):
        chosen("timm:convnext_tiny.fb_in22k", target="true")
    with pytest.raises(ValueError, match="1000 classes, but the profile 12"):
        chosen("timm:resnet18.a1_in1k", profile="demo")


@pytest.mark.parametrize(
    ("names", "numbers", "left"),
    [
        (["epoch_9.pth", "epoch_10.pth", "last.pth"], [9, 10], ["last.pth"]),
        (["e-1-acc0.7.pt", "e-2-acc0.6.pt", "e-3-acc0.5.pt"], [1, 2, 3], []),
        (["r18_lr3_step200.pth", "r18_lr3_step1000.pth"], [200, 1000], []),
        (["val0.71_epoch_2.bin", "val0.72_epoch_5.bin"], [2, 5], []),
        (["resnet18_7.safetensors"], [7], []),
    ],
)
def test_the_number_that_tells_when_a_file_was_written(tmp_path, names, numbers, left):
    stages, rest = stages_of([tmp_path / name for name in names], "here")
    assert ([stage.number for stage in stages], rest) == (numbers, left)


def test_files_whose_order_cannot_be_told_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no weights file there has a number"):
        stages_of([tmp_path / "last.pth"], "here")
    with pytest.raises(ValueError, match="two files have epoch 3"):
        stages_of([tmp_path / "epoch_3.pth", tmp_path / "epoch_03.pth"], "here")
