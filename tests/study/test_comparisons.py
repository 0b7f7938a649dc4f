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


def test_untrained_and_trained_are_a_pair_whatever_order_they_come_in():
    names = ["mobilenetv2_100", "untrained:mobilenetv2_100", "untrained:resnet18"]
    choices = Study.from_profile("gaze", names).choices
    assert choices.comparison.key == "learning"
    first, *others = in_words(choices)
    assert [form for _, form in first[1]] == ["untrained", "trained"]
    assert first[1][1][0] == "mobilenetv2_100"
    assert [len(members) for _, members in others] == [1]


def test_checkpoints_stand_in_the_order_of_their_epochs(tmp_path):
    from safetensors.torch import save_file
    from timm import create_model

    folder = tmp_path / "my_training"
    folder.mkdir()
    for epoch in (10, 2, 1):
        weights = create_model("test_resnet", num_classes=1000).state_dict()
        save_file(weights, folder / f"epoch_{epoch}.safetensors")
    choices = Study.from_profile("gaze", [f"timm:test_resnet@{folder}"]).choices
    assert choices.comparison.key == "training"
    (group,) = groups_of(choices)
    assert group.label == "my_training"
    assert [m.at for m in group.members] == [1, 2, 10]
    assert [m.form for m in group.members] == ["epoch 1", "epoch 2", "epoch 10"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{'A': ['small']}, label='x'", "groups of two models or more"),
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
