"""Comparisons: which models belong together, what they are compared with, and the words for it."""

from __future__ import annotations

import pytest

from lib.study.comparisons import COMPARISONS, arranged, forms_of, groups_of, pairs_of
from lib.study.study import Study

_TWO = ["resnet50", "caformer_s18"]


def in_words(choices) -> list[tuple]:
    return [(g.label, [(m.variant, m.form) for m in g.members]) for g in groups_of(choices)]


def test_the_papers_comparison_is_the_first_row_and_what_its_models_ask_for():
    choices = Study.from_profile("paper", [*_TWO, "vgg16"]).choices
    assert choices.comparison is next(iter(COMPARISONS.values()))
    assert in_words(choices) == [
        ("ResNet-50", [("resnet50", "without DCLS"), ("resnet50_dcls", "with DCLS")]),
        ("CAFormer-S18", [("caformer_s18", "without DCLS"), ("caformer_s18_dcls", "with DCLS")]),
        ("VGG-16", [("vgg16", "")]),  # has no pair: stands alone
    ]
    assert forms_of(choices) == ("without DCLS", "with DCLS")
    pairs = [(a.member.variant, b.member.variant, b.panel) for a, b in pairs_of(choices)]
    assert pairs == [
        (key, f"{key}_dcls", method) for key in _TWO for method in ("grad_cam", "threshold_grad_cam")
    ]  # fmt: skip
    assert len(arranged(choices)) == 5 * 2
    assert choices.of_paper


def test_models_without_any_pair_stand_side_by_side():
    choices = Study.from_profile("paper", ["vgg16", "vgg16_pooled", "untrained:resnet18"]).choices
    assert choices.comparison.key == "none"
    assert not pairs_of(choices)
    assert not choices.of_paper
    assert "DCLS" not in choices.comparison.question


def test_two_methods_are_compared_on_each_model():
    choices = Study.from_profile("demo", ["resnet50"], compare=["methods"]).choices
    forms = ["Grad-CAM", "Threshold-Grad-CAM"]
    for label, members in in_words(choices):
        assert [form for _, form in members] == forms
        assert len({variant for variant, _ in members}) == 1
        assert label in ("ResNet-50", "ResNet-50 + DCLS")
    assert {each.panel for each in arranged(choices)} == {""}
    assert [(a.method.key, b.method.key) for a, b in pairs_of(choices)] == [
        ("grad_cam", "threshold_grad_cam")
    ] * 2


def test_models_that_are_named_are_compared_with_the_first_of_them():
    names = ["resnet50_dcls", "caformer_s18", "resnet50"]
    choices = Study.from_profile("demo", _TWO, compare=names).choices
    (group, alone) = groups_of(choices)
    assert [m.variant for m in group.members] == names
    assert alone.label == "CAFormer-S18 + DCLS"
    assert not forms_of(choices)
    methods = Study.from_profile("demo", _TWO, compare=["resnet50", "resnet50:grad_cam"]).choices
    assert [m.label for m in groups_of(methods)[0].members] == [
        "ResNet-50, Threshold-Grad-CAM", "ResNet-50, Grad-CAM",
    ]  # fmt: skip


def test_untrained_and_trained_are_a_pair_whatever_order_they_come_in(tables):
    names = ["mobilenetv2_100", "untrained:mobilenetv2_100", "untrained:resnet18"]
    choices = Study.from_profile("gaze", names).choices
    assert choices.comparison.key == "learning"
    first, *others = in_words(choices)
    assert [form for _, form in first[1]] == ["untrained", "trained"]
    assert first[1][1][0] == "mobilenetv2_100"
    assert [len(members) for _, members in others] == [1]


def write_checkpoints(folder, epochs) -> None:
    from safetensors.torch import save_file
    from timm import create_model

    folder.mkdir(parents=True, exist_ok=True)
    for epoch in epochs:
        name = "weights" if epoch is None else f"epoch_{epoch}"
        weights = create_model("test_resnet", num_classes=1000).state_dict()
        save_file(weights, folder / f"{name}.safetensors")


def test_checkpoints_stand_in_the_order_of_their_epochs(tmp_path, tables):
    folder = tmp_path / "my_training"
    write_checkpoints(folder, (10, 2, 1))
    choices = Study.from_profile("gaze", [f"timm:test_resnet@{folder}"]).choices
    assert choices.comparison.key == "training"
    (group,) = groups_of(choices)
    assert group.label == "test_resnet"
    assert [m.at for m in group.members] == [1, 2, 10]
    assert [m.form for m in group.members] == ["epoch 1", "epoch 2", "epoch 10"]


def test_trainings_of_folders_of_one_name_stay_apart(tmp_path, tables):
    folders = [tmp_path / run / "checkpoints" for run in ("a", "b")]
    for folder, epochs in zip(folders, ((1, 2), (3, 4)), strict=True):
        write_checkpoints(folder, epochs)
    choices = Study.from_profile("gaze", [f"timm:test_resnet@{f}" for f in folders]).choices
    found = {g.label: [m.at for m in g.members] for g in groups_of(choices)}
    assert found == {
        "test_resnet (a/checkpoints)": [1, 2], "test_resnet (b/checkpoints)": [3, 4],
    }  # fmt: skip


def test_random_weights_and_files_are_no_published_ones(tmp_path, tables):
    write_checkpoints(tmp_path, (None,))
    file = f"timm:test_resnet@{tmp_path}/weights.safetensors"
    choices = Study.from_profile("gaze", ["untrained:test_resnet", file]).choices
    assert choices.comparison.key == "models"  # nothing is from before fine-tuning
    for key in ("tuning", "learning", "recipes", "training", "methods"):
        with pytest.raises(ValueError, match=f"--compare {key} .* nothing of that kind"):
            Study.from_profile("gaze", ["untrained:test_resnet", file], ["grad_cam"], compare=[key])


def test_a_network_with_dcls_is_no_pair_of_one_without(tables):
    choices = Study.from_profile("demo", ["convnext_tiny", "untrained:convnext_tiny_dcls"]).choices
    assert COMPARISONS["learning"].groups(choices) == []


def test_models_are_compared_by_the_names_that_made_them(tables):
    names = ["untrained:test_resnet", "untrained:test_convnext:grad_cam"]
    models = [name.removesuffix(":grad_cam") for name in names]
    choices = Study.from_profile("gaze", models, compare=names).choices
    assert [(m.backbone.named, m.method.key) for m in choices.compared] == [
        ("untrained:test_resnet", "threshold_grad_cam"), ("untrained:test_convnext", "grad_cam"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{'A': ['small', 'lone']}, forms=('a', 'a')", "forms must differ"),
        ("{'A': ['small', 'lone']}, axis='x', at={'small': 1}", "a number for lone, got None"),
        ("{'A': ['small', 'lone']}, axis='x', at={'small': 1, 'lone': 'b'}", "for lone, got 'b'"),
        ("{'A': ['small']}, label='x'", "groups of two or more models"),
        ("{'A': ['small', 'small']}", "names one model twice: small, small"),
        ("{'A': ['small', 'lone']}, forms=('before',)", "must name every place"),
        ("{'A': ['small', 'lone']}, axis='dose'", "axis, its name, and at"),
        ("{'A': ['small', 'lone'], 'B': ['lone', 'x']}, forms=('a', 'b')", None),
    ],
)
def test_a_readers_own_comparison(tmp_path, tables, words, message):
    file = tmp_path / "rows.py"
    file.write_text(
        "import torch\n"
        "from lib.extension import add_comparison, add_model\n"
        "def net(classes):\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 4), torch.nn.AdaptiveAvgPool2d(1),\n"
        "                               torch.nn.Flatten(), torch.nn.Linear(4, classes))\n"
        "for key in ('small', 'lone'):\n"
        "    add_model(key, build=net, weights=key + '.safetensors')\n"
        f"add_comparison('mine', {words})\n"
    )
    asked = {"extend": str(file), "compare": ["mine"]}
    if message:
        with pytest.raises(ValueError, match=message):
            Study.from_profile("demo", ["small", "lone"], **asked)
        return
    choices = Study.from_profile("demo", ["small", "lone"], **asked).choices
    # The second group has only one of the study's models.
    assert in_words(choices) == [("A", [("small", "a"), ("lone", "b")])]
    assert forms_of(choices) == ("a", "b")
    with pytest.raises(ValueError, match=r"no group .* two of the study's models"):
        Study.from_profile("demo", ["small"], **asked)


def test_a_name_with_a_method_gives_every_model_of_the_comparison_one(tmp_path, tables):
    file = tmp_path / "rows.py"
    file.write_text(
        "from lib.extension import add_comparison\n"
        "add_comparison('mixed', {'A': ['resnet50:grad_cam', 'resnet50'],\n"
        "                         'B': ['resnet50', 'caformer_s18']})\n"
    )
    choices = Study.from_profile("demo", _TWO, extend=str(file), compare=["mixed"]).choices
    assert {each.panel for each in arranged(choices) if each.group.label in "AB"} == {""}
    assert [m.form for m in groups_of(choices)[0].members] == [
        "ResNet-50, Grad-CAM", "ResNet-50, Threshold-Grad-CAM",
    ]  # fmt: skip
