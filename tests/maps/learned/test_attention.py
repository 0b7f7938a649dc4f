"""Learned attention maps: loss terms by hand, what is learned, resuming, files."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from stand_ins import InHalves, mini
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lib.analyses.lcam.trainings import trainable
from lib.base.files import write_atomically
from lib.maps.forward import head_pass
from lib.maps.learned.attention import (
    ATTENTIONS,
    AttentionError,
    LCam,
    Tame,
    area,
    attention_loss,
    chosen_masks,
    learned_map,
    load_attention,
    save_attention,
    variation,
)
from lib.maps.learned.training import (
    EPOCHS,
    HISTORY,
    RECIPES,
    Recipe,
    Run,
    Standardised,
    look_steps,
    new_attention,
    train_attention,
)
from lib.people.image_folders import (
    ArrayImages,
    FolderImages,
    ImageFolderError,
    listed_images,
)

# --- the loss, by hand ----------------------------------------------------------------------


def test_the_area_is_the_mean_of_a_power():
    masks = torch.tensor([[[[0.0, 1.0], [0.25, 0.5]]]])
    by_hand = sum((v + 0.0005) ** 0.3 for v in (0, 1, 0.25, 0.5)) / 4
    assert area(masks).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_variation_counts_differences_and_borders():
    mask = torch.tensor([[0.0, 0.2, 0.0], [0.1, 1.0, 0.3], [0.0, 0.5, 0.0]])
    across = (0.2**2 + 0.2**2) + (0.9**2 + 0.7**2) + (0.5**2 + 0.5**2)
    down = (0.1**2 + 0.1**2) + (0.8**2 + 0.5**2) + (0.3**2 + 0.3**2)
    border = 0.2**2 + 0.5**2 + 0.1**2 + 0.3**2  # top, bottom, left, right
    one = (across + down + 0.3 * border) / 2
    assert variation(mask[None, None]).item() == pytest.approx(one, rel=1e-6)
    # Of two images: the sum by twice their number; of two masks an image: it doubles.
    assert variation(mask.expand(2, 1, 3, 3)).item() == pytest.approx(one, rel=1e-6)
    assert variation(mask.expand(2, 2, 3, 3)).item() == pytest.approx(2 * one, rel=1e-6)


def test_the_corners_lie_on_two_lines():
    corner = torch.zeros(1, 1, 4, 4)
    corner[0, 0, 0, 0] = 1.0
    assert variation(corner).item() == pytest.approx((1 + 1 + 0.3 * 2) / 2)


def test_masks_of_both_maskings():
    maps = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    labels = torch.tensor([2, 0])
    diagonal = chosen_masks(maps, labels)
    assert torch.equal(diagonal, torch.stack([maps[0, 2], maps[1, 0]])[:, None])
    everybodys = chosen_masks(maps, labels, "random")
    assert everybodys.shape == (2, 2, 2, 2)
    assert torch.equal(everybodys[1, 0], maps[1, 2])
    with pytest.raises(ValueError, match="unknown masking 'diagnal'"):
        chosen_masks(maps, labels, "diagnal")


# --- a network whose evidence is known -------------------------------------------------------

SIDE = 16


class Toy(InHalves, nn.Module):
    """Class k's logit is how much of colour k there is: its evidence lies where k is bright."""

    variant = "toy"

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(60.0))
        self.dropout = nn.Dropout(0.9)  # must stay off

    def normalised(self, images):
        return 2 * images - 1

    def features(self, x):
        return nn.functional.avg_pool2d((x + 1) / 2, 2)

    def layers(self, x):
        return [(x + 1) / 2, nn.functional.avg_pool2d((x + 1) / 2, 2), self.features(x)]

    def head(self, features):
        return self.scale * self.dropout(features).mean(dim=(2, 3))

    def forward(self, x):
        return self.head(self.features(x))


def patches(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Dim images, each with a bright 6 x 6 patch of one colour; the patches' places."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (count, SIDE, SIDE, 3))
    where = np.zeros((count, SIDE, SIDE), bool)
    for image, mask in zip(images, where, strict=True):
        top, left = rng.integers(0, SIDE - 6, 2)
        mask[top : top + 6, left : left + 6] = True
        image[mask, rng.integers(3)] = 230
    return images.astype(np.uint8), where


_TOY = Recipe("toy", lr=2.0, epochs=30, batch=16, weight_decay=0.0)


def trained_on_patches(key: str, **options):
    images, _ = patches(64)
    return train_attention(
        Toy().train(), key, ArrayImages(images, "patches"), _TOY, SIDE, **options
    )


@pytest.mark.parametrize("key", list(ATTENTIONS))
def test_the_learned_map_finds_the_evidence(key):
    recipe = replace(_TOY, lr=0.2) if key == "tame" else _TOY
    images, _ = patches(64)
    model = Toy().train()
    trained = train_attention(model, key, ArrayImages(images, "patches"), recipe, SIDE)
    assert model.training
    assert model.dropout.training
    assert model.scale.grad is None
    assert model.scale.requires_grad
    held_out, where = patches(32, seed=1)
    x = model.normalised(torch.from_numpy(held_out).permute(0, 3, 1, 2) / 255)
    model.attentions = {key: trained.attention}
    maps = learned_map(key, model, x, head_pass(model, x))
    assert maps.min() >= 0
    assert maps.max() <= 1
    size = maps.shape[-1]
    place = nn.functional.adaptive_avg_pool2d(torch.from_numpy(where).float(), size) > 0.5
    inside = torch.stack([m[p].mean() for m, p in zip(maps, place, strict=True)])
    outside = torch.stack([m[~p].mean() for m, p in zip(maps, place, strict=True)])
    assert (inside > outside + 0.5).float().mean() > 0.9
    if "_a" not in key:
        assert trained.history.loss.iloc[-10:].mean() < trained.history.loss.iloc[:3].mean()


def test_the_loss_is_its_terms_and_shows_what_the_frozen_network_predicts():
    model, images = Toy().eval(), torch.rand(5, 3, SIDE, SIDE)
    for key, row in ATTENTIONS.items():
        attention = new_attention(row, model, SIDE, seed=3)
        loss = attention_loss(row, model, attention.eval(), images, "diagonal")
        labels = model(model.normalised(images)).argmax(1)
        x = model.normalised(images)
        layers = model.layers(images if key.endswith("_published") else x)[-row.layers :]
        maps = torch.sigmoid(attention(layers))
        own = torch.stack([m[y] for m, y in zip(maps, labels, strict=True)])[:, None]
        if row.hides == "features":
            logits = model.head(layers[-1] * own)
        else:
            large = nn.functional.interpolate(own, (SIDE, SIDE), mode="bilinear")
            logits = model(model.normalised(images * large))
        terms = nn.functional.cross_entropy(logits, labels), area(own), variation(own)
        weights = (1, 0, 0) if "_a" in key else (1.5, 2, 0.01)
        expected = sum(w * t for w, t in zip(weights, terms, strict=True))
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_of_the_published_masking_takes_the_maps_of_every_label():
    model, images = Toy().eval(), torch.rand(4, 3, SIDE, SIDE)
    attention = new_attention(ATTENTIONS["lcam_img"], model, SIDE, seed=3)
    loss = attention_loss(ATTENTIONS["lcam_img"], model, attention, images, "random")
    x = model.normalised(images)
    labels = model(x).argmax(1).tolist()
    maps = torch.sigmoid(attention([model.features(x)])).detach()
    everybodys = [maps[i, y] for i in range(4) for y in labels]
    area_by_hand = sum(((m + 0.0005) ** 0.3).mean().item() for m in everybodys) / 16
    rough = 0.0
    for m in everybodys:
        rough += (m.diff(dim=0) ** 2).sum() + (m.diff(dim=1) ** 2).sum()
        rough += 0.3 * sum((line**2).sum() for line in (m[0], m[-1], m[:, 0], m[:, -1]))
    assert loss.area.item() == pytest.approx(area_by_hand, rel=1e-5)
    assert loss.variation.item() == pytest.approx(rough.item() / 8, rel=1e-5)
    # Cross-entropy is of each image under its own map whatever the masking.
    own = attention_loss(ATTENTIONS["lcam_img"], model, attention, images, "diagonal")
    assert loss.cross_entropy.item() == own.cross_entropy.item()
    total = 1.5 * loss.cross_entropy + 2 * loss.area + 0.01 * loss.variation
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-6)


# --- a module that sees standardised features ---------------------------------------------------


class Uneven(Toy):
    """Its features have offsets and scales of their own, which the head knows about."""

    offset, stretch = torch.tensor([40.0, -7.0, 3.0]), torch.tensor([0.1, 9.0, 2.0])

    def features(self, x):
        return super().features(x) * self.stretch[:, None, None] + self.offset[:, None, None]

    def head(self, features):
        shifted = features - self.offset[:, None, None]
        return super().head(shifted / self.stretch[:, None, None])


def test_standardised_features_are_folded_into_the_trained_convolution():
    model = Uneven().eval()
    x = model.normalised(torch.rand(20, 3, SIDE, SIDE))
    features = model.features(x)
    inner = LCam([3], 4)
    sees = Standardised(inner, features.split(6))
    seen = (features - features.mean((0, 2, 3), keepdim=True)) / features.std(
        (0, 2, 3), keepdim=True, correction=0
    )
    assert (sees([features]) - inner([seen])).abs().max() < 1e-3
    assert (sees.folded()([features]) - sees([features])).abs().max() < 1e-3


def test_a_standardised_training_finds_the_evidence_whatever_the_features_scale():
    images, _ = patches(64)
    recipe = replace(_TOY, lr=2.0, standardised=True, start=3.0, one_cycle=True)
    model = Uneven()
    some = torch.from_numpy(images[:4]).permute(0, 3, 1, 2) / 255
    trained = train_attention(
        model, "lcam_img", ArrayImages(images, "p"), recipe, SIDE, look_at=some
    )
    assert type(trained.attention) is LCam
    first = trained.history.area.iloc[0]
    assert first > 0.9  # masks begin at the sigmoid of 3
    held_out, where = patches(32, seed=1)
    x = model.normalised(torch.from_numpy(held_out).permute(0, 3, 1, 2) / 255)
    model.attentions = {"lcam_img": trained.attention}
    maps = learned_map("lcam_img", model.eval(), x, head_pass(model, x))
    place = nn.functional.adaptive_avg_pool2d(torch.from_numpy(where).float(), maps.shape[-1])
    inside = torch.stack([m[p > 0.5].mean() for m, p in zip(maps, place, strict=True)])
    outside = torch.stack([m[p < 0.5].mean() for m, p in zip(maps, place, strict=True)])
    assert (inside > outside + 0.5).float().mean() > 0.9
    # What is looked at while training and what comes out of it are the same function.
    (last,) = [maps for step, maps in trained.looks.items() if step == len(trained.history)]
    again = learned_map("lcam_img", model, model.normalised(some), head_pass(model, some * 2 - 1))
    assert (again - last).abs().max() < 1e-3


def test_what_is_standardised_is_measured_all_over_a_list_that_is_sorted_by_class(tmp_path):
    """Here the classes are dark and bright: of the first ones the mean would be far too low."""
    for name, grey in {"a_dark": 20, "b_bright": 220}.items():
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.new("RGB", (SIDE, SIDE), (grey + number,) * 3).save(
                tmp_path / name / f"{number}.png"
            )
    images = FolderImages(listed_images(tmp_path), SIDE)
    recipe = replace(_TOY, batch=1, standardised=True)
    run = Run(Toy().eval(), ATTENTIONS["lcam_fm"], images, recipe, SIDE, "diagonal", 0)
    first, last = 20 / 255, 227 / 255  # four of sixteen, the first and the last among them
    assert run.attention.mean[0].item() == pytest.approx((first + last) / 2, abs=0.01)


@pytest.mark.parametrize("count", [2, 3])
def test_so_few_images_can_be_standardised_too(tmp_path, count):
    pixels, _ = patches(count)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    recipe = replace(_TOY, epochs=1, standardised=True)
    for images in (FolderImages(listed_images(tmp_path), SIDE), ArrayImages(pixels, "p")):
        trained = train_attention(Toy(), "lcam_fm", images, recipe, SIDE)
        assert torch.isfinite(trained.attention.maps.weight).all()


@pytest.mark.parametrize(("key", "sees_it"), [("convnext_tiny", False), ("caformer_s18", False),
                                              ("resnet50", True), ("fastvit_sa24", True)])  # fmt: skip
def test_a_head_that_normalises_does_not_see_how_much_a_mask_lets_through(key, sees_it):
    """Which is why L-CAM-Fm's area term meets no resistance there (docs/lcam.md)."""
    model = mini(key)
    with torch.inference_mode():
        features = model.features(torch.randn(2, 3, 64, 64))
        features = features * (10 / features.std())  # far above the norm's epsilon
        whole, hundredth = model.head(features), model.head(features / 100)
    difference = (whole - hundredth).abs().max() / whole.abs().max()
    assert (difference > 0.1) == sees_it


# --- recipes --------------------------------------------------------------------------------


def test_published_schedules():
    resnet, vgg = RECIPES["resnet50"], RECIPES["vgg16"]
    rates = [resnet.lr_at(epoch * 10, 10) for epoch in range(26)]
    assert rates[0] == 1e-4
    assert rates[1] == pytest.approx(0.95e-4)
    assert rates[12] == rates[25] == pytest.approx(1e-4 * 0.95**12)
    assert [vgg.lr_at(e, 1) for e in (0, 1, 7)] == pytest.approx([1e-2, 0.75e-2, 1e-2 * 0.75**7])
    assert (vgg.epochs, vgg.bias_lr) == (8, 1.0)
    for published in (resnet, vgg):
        assert (published.batch, published.momentum, published.weight_decay) == (64, 0.9, 5e-4)


def test_steps_are_nesterovs_at_the_published_rates():
    pixels, _ = patches(16)
    images = ArrayImages(pixels, "p")
    recipe = replace(RECIPES["resnet50"], batch=16, epochs=3)
    model = Toy().eval()
    run = Run(model, ATTENTIONS["lcam_fm"], images, recipe, SIDE, "diagonal", 5)
    maps = run.attention.maps
    before = [maps.weight.detach().clone(), maps.bias.detach().clone()]
    order = np.random.default_rng([5, 0]).permutation(16)
    (batch,) = images.batches([order], 5, 0)
    loss = attention_loss(run.row, model, run.attention, batch, "diagonal")
    gradients = torch.autograd.grad(loss.total, [maps.weight, maps.bias])
    steps = run.go()
    next(steps)
    for old, new, gradient, rate in zip(
        before, (maps.weight, maps.bias), gradients, (1e-4, 2e-4), strict=True
    ):
        # Nesterov's first step is that of a gradient 1 + 0.9 times as large.
        expected = old - rate * 1.9 * (gradient + 5e-4 * old)
        assert (new - old).abs().max() > 0
        assert torch.allclose(new - old, expected - old, rtol=1e-2, atol=1e-8)
    for epoch in (0, 1, 2):
        weights, biases = run.optimiser.param_groups
        assert weights["lr"] == pytest.approx(1e-4 * 0.95**epoch)
        assert biases["lr"] == pytest.approx(2e-4 * 0.95**epoch)
        assert weights["nesterov"]
        assert biases["nesterov"]
        next(steps, None)
    assert run.step == 3


def test_looks_are_closer_together_early_and_hold_the_last():
    assert look_steps(100, 4) == {0, 1, 10, 100}
    assert look_steps(100, 2) == {0, 100}
    assert look_steps(100, 1) == {100}


# --- ended and resumed ----------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("key", ["lcam_fm", "tame"])
@pytest.mark.parametrize("recipe", [replace(_TOY, lr=0.1, epochs=4),
                                    replace(_TOY, lr=0.1, epochs=4, one_cycle=True,
                                            standardised=True, start=1.0)])  # fmt: skip
def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path, key, recipe):
    images, _ = patches(50)
    some = torch.from_numpy(images[:2]).permute(0, 3, 1, 2) / 255

    class Dying(ArrayImages):
        left = 7 + 4 * (recipe.standardised and key == "lcam_fm")  # four are measured on

        def batches(self, *words):
            for batch in super().batches(*words):
                self.left -= 1
                if self.left < 0:
                    raise Killed
                yield batch

    path = tmp_path / "one.pt"
    options = {"save_every": 2, "look_at": some}
    whole = train_attention(Toy(), key, ArrayImages(images, "p"), recipe, SIDE, **options)
    with pytest.raises(Killed):
        train_attention(Toy(), key, Dying(images, "p"), recipe, SIDE, checkpoint=path, **options)
    with pytest.raises(AttentionError, match="unfinished training"):
        train_attention(
            Toy(), key, ArrayImages(images, "p"), recipe, SIDE, checkpoint=path, **options
        )
    told = []
    resumed = train_attention(
        Toy(), key, ArrayImages(images, "p"), recipe, SIDE,
        checkpoint=path, resume=True, report=told.append, **options,
    )  # fmt: skip
    assert told
    assert "step 6 of 12" in told[0]
    for name, tensor in whole.attention.state_dict().items():
        assert torch.equal(tensor, resumed.attention.state_dict()[name]), name
    assert whole.history.equals(resumed.history)
    assert tuple(whole.history) == HISTORY
    assert whole.history.step.tolist() == list(range(1, 13))
    assert whole.history.epoch.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert whole.looks.keys() == resumed.looks.keys()
    for step, maps in whole.looks.items():
        assert torch.equal(maps, resumed.looks[step])


def test_checkpoints_of_other_trainings_and_damaged_ones_are_refused(tmp_path):
    images, _ = patches(20)
    path = tmp_path / "one.pt"
    short = replace(_TOY, epochs=1)
    options = {"checkpoint": path, "resume": True}
    train_attention(Toy(), "lcam_fm", ArrayImages(images, "p"), short, SIDE, **options)
    with pytest.raises(AttentionError, match=r"another training \(recipe, seed\)"):
        train_attention(
            Toy(), "lcam_fm", ArrayImages(images, "p"), replace(short, lr=1.0), SIDE,
            seed=1, **options,
        )  # fmt: skip
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AttentionError, match="cannot be read: delete it"):
        train_attention(Toy(), "lcam_fm", ArrayImages(images, "p"), short, SIDE, **options)


def test_a_loss_that_is_no_number_ends_training():
    images, _ = patches(20)
    with pytest.raises(AttentionError, match="is not finite at step"):
        train_attention(
            Toy(), "lcam_fm_a", ArrayImages(images, "p"),
            Recipe("wild", lr=1e38, epochs=5, batch=10), SIDE,
        )  # fmt: skip


def test_weights_that_are_no_numbers_after_the_last_step_are_not_given_out(tmp_path):
    images, _ = patches(10)
    path = tmp_path / "one.pt"
    recipe = Recipe("wild", lr=1e38, epochs=1, batch=10, weight_decay=1e3)
    for checkpoint in (None, path):
        with pytest.raises(AttentionError, match="weights of L-CAM-Fm are not finite"):
            train_attention(
                Toy(), "lcam_fm", ArrayImages(images, "p"), recipe, SIDE,
                checkpoint=checkpoint,
            )  # fmt: skip
    assert not path.exists()


# --- networks of the study -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "kind", "precision"),
    [(key, kind, "float32") for key in ("resnet50", "caformer_s18")
     for kind in ("lcam_fm", "lcam_img", "tame")]
    + [("convnext_tiny", "lcam_fm", "float32"), ("fastvit_sa24", "tame", "float32"),
       ("caformer_s18", "lcam_img", "bf16"), ("fastvit_sa24", "tame", "bf16")],
)  # fmt: skip
def test_every_family_can_be_trained_beside_and_used_as_a_study_does(key, kind, precision):
    side = 64
    plain = mini(key, True)
    model = trainable(plain, kind, precision)
    assert model.precision == precision
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (4, side, side, 3), "u1"), "")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = train_attention(model, kind, images, Recipe("r", 0.1, 1, batch=2), side)
    assert len(trained.history) == 2
    assert np.isfinite(trained.history.loss).all()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    some = torch.rand(2, 3, side, side)
    maps = []
    for network in (plain.folded(), plain.for_inference(), plain.for_inference(precision)):
        x = network.normalised(some)
        network.attentions = {kind: trained.attention}
        maps.append(learned_map(kind, network, x, head_pass(network, x, torch.tensor([0, 1]))))
    assert maps[0].shape == (2, *plain.layers(x)[0 if kind == "tame" else -1].shape[-2:])
    assert (maps[0] - maps[1]).abs().max() < 1e-3
    assert (maps[0] - maps[2]).abs().mean() < (1e-3 if precision == "float32" else 0.1)


def test_layers_are_the_last_three_stages_and_end_with_the_studys():
    model = mini("resnet50").eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        layers = model.layers(x)
        assert torch.equal(layers[-1], model.features(x))
    assert [layer.shape[-1] for layer in layers] == [28, 14, 7]


def test_a_network_without_trained_attention_says_what_to_do():
    model = mini("resnet50").eval()
    x = torch.randn(1, 3, 224, 224)
    demos = "lib.demo.attention --models resnet50 --methods lcam_fm`"
    with pytest.raises(AttentionError, match=f"trained for resnet50: `python -m {demos}"):
        learned_map("lcam_fm", model, x, head_pass(model, x))
    model.provenance = replace(model.provenance, architecture="full")
    command = "`dcls-lcam --models resnet50 --methods lcam_fm --images FOLDER`"
    with pytest.raises(AttentionError, match=command):
        learned_map("lcam_fm", model, x, head_pass(model, x))
    with pytest.raises(AttentionError, match="no attention weights at .*: " + command):
        load_attention(Path("none"), "lcam_fm", "resnet50_dcls", "abc")


def test_a_constant_map_is_constant_and_no_nan():
    model, x = Toy().eval(), torch.zeros(1, 3, SIDE, SIDE)
    attention = LCam([3], 3)
    nn.init.zeros_(attention.maps.weight)
    model.attentions = {"lcam_fm": attention}
    assert torch.equal(learned_map("lcam_fm", model, x, head_pass(model, x)), torch.zeros(1, 8, 8))


# --- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "module"), [("lcam_fm", LCam([6], 4)), ("tame", Tame([2, 3, 4], 4))]
)
def test_weights_are_written_and_read_for_the_network_they_are_of(tmp_path, key, module):
    path = tmp_path / "a.safetensors"
    save_attention(path, key, module, {"variant": "resnet50", "weights": "abc"})
    read = load_attention(path, key, "resnet50", "abc")
    assert not read.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name])
    with pytest.raises(AttentionError, match="trained for weights 'abc', not 'abd'"):
        load_attention(path, key, "resnet50", "abd")
    with pytest.raises(AttentionError, match="trained for attention"):
        load_attention(path, "lcam_img", "resnet50", "abc")
    with pytest.raises(AttentionError, match="no attention weights at"):
        load_attention(tmp_path / "b", key, "resnet50", "abc")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(AttentionError, match="is damaged"):
        load_attention(path, key, "resnet50", "abc")
    with pytest.raises(AttentionError, match="cannot be read: "):
        load_attention(tmp_path, key, "resnet50", "abc")


def test_others_may_read_modules_and_checkpoints_if_the_umask_lets_them(tmp_path):
    images, _ = patches(20)
    before = os.umask(0o027)
    try:
        save_attention(tmp_path / "a", "lcam_fm", LCam([6], 4), {})
        train_attention(
            Toy(), "lcam_fm", ArrayImages(images, "p"), replace(_TOY, epochs=1), SIDE,
            checkpoint=tmp_path / "b",
        )  # fmt: skip
        with write_atomically(tmp_path / "c") as partial:
            save_file({"x": torch.zeros(1)}, partial)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys("abc", 0o640)


# --- folders of images ---------------------------------------------------------------------


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's two layouts, with odd images in it."""
    rng = np.random.default_rng(0)
    for wnid, modes in {"n01440764": ("RGB", "L"), "n01443537": ("CMYK", "RGB")}.items():
        folder = tmp_path / "ILSVRC2012_img_train" / wnid
        folder.mkdir(parents=True)
        for number, mode in enumerate(modes):
            pixels = rng.integers(0, 256, (40 + 30 * number, 90, 3), "u1")
            Image.fromarray(pixels).convert(mode).save(folder / f"{wnid}_{number}.JPEG", "JPEG")
    val = tmp_path / "ILSVRC2012_img_val"
    val.mkdir()
    for number in (1, 2, 3):
        pixels = rng.integers(0, 256, (50, 60, 3), "u1")
        Image.fromarray(pixels).save(val / f"ILSVRC2012_val_{number:08d}.JPEG")
    return tmp_path


def test_both_layouts_of_imagenet_are_listed(imagenet):
    train, val = imagenet / "ILSVRC2012_img_train", imagenet / "ILSVRC2012_img_val"
    assert len(listed_images(train)) == 4
    assert len(listed_images(train, limit=3)) == 3
    notes = imagenet / "list.txt"
    notes.write_text("ILSVRC2012_val_00000003 65\nILSVRC2012_val_00000001.JPEG 970\n\n")
    assert [p.name[-6] for p in listed_images(val, notes)] == ["3", "1"]
    notes.write_text("ILSVRC2012_val_00000009 65\n")
    with pytest.raises(ImageFolderError, match="line 1: ILSVRC2012_val_00000009"):
        listed_images(val, notes)
    notes.write_text("../list.txt 0\n")
    with pytest.raises(ImageFolderError, match="is not below"):
        listed_images(val, notes)
    with pytest.raises(ImageFolderError, match="is not a folder"):
        listed_images(imagenet / "none")
    (imagenet / "empty").mkdir()
    with pytest.raises(ImageFolderError, match="no images"):
        listed_images(imagenet / "empty")


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \n"])
def test_the_published_lists_are_read_whatever_ends_their_lines(imagenet, ending):
    """`ResNet50_2000.txt` as it is, `VGG16_2000.txt` with two characters, TAME's with a blank."""
    notes, lines = imagenet / "list.txt", []
    for name in ("ILSVRC2012_val_00000003.JPEG 65", "ILSVRC2012_val_00000001.JPEG 970"):
        lines.append(name + ending)
    notes.write_bytes("".join(lines).encode())
    found = listed_images(imagenet / "ILSVRC2012_img_val", notes)
    assert [path.name[-6] for path in found] == ["3", "1"]
    notes.write_bytes(f"n01443537/n01443537_1.JPEG 1{ending}n01440764/n01440764_0.JPEG 0".encode())
    found = listed_images(imagenet / "ILSVRC2012_img_train", notes)
    assert [path.parent.name for path in found] == ["n01443537", "n01440764"]


def test_links_are_followed_and_what_leads_nowhere_is_no_image(imagenet, tmp_path):
    train, val = imagenet / "ILSVRC2012_img_train", imagenet / "ILSVRC2012_img_val"
    farm = tmp_path / "farm"
    farm.mkdir()
    (farm / "fish").symlink_to(train / "n01440764")
    (farm / "deeper").mkdir()
    (farm / "deeper" / "back").symlink_to(farm)
    (farm / "one.JPEG").symlink_to(val / "ILSVRC2012_val_00000001.JPEG")
    (farm / "gone.JPEG").symlink_to(val / "ILSVRC2012_val_00000009.JPEG")
    (farm / "round.JPEG").symlink_to(farm / "round.JPEG")
    found = listed_images(farm)
    assert [p.relative_to(farm).as_posix() for p in found] == [
        "fish/n01440764_0.JPEG", "fish/n01440764_1.JPEG", "one.JPEG"
    ]  # fmt: skip
    notes = tmp_path / "list.txt"
    notes.write_text("\ufeffdeeper/../one.JPEG\nfish/n01440764_1.JPEG\n", encoding="utf-8")
    assert listed_images(farm, notes) == [found[2], found[1]]
    notes.write_text("one 3\nfish/n01440764_1.JPEG\ndeeper/../one.JPEG\n")
    with pytest.raises(ImageFolderError, match="line 3: deeper/../one.JPEG is listed twice"):
        listed_images(farm, notes)
    notes.write_text(f"{farm / 'one.JPEG'} 3\n")
    assert listed_images(farm, notes) == [found[2]]
    notes.write_text("gone 3\n")
    with pytest.raises(ImageFolderError, match="line 1: gone"):
        listed_images(farm, notes)
    for climbing in (f"{val}/ILSVRC2012_val_00000001.JPEG", "fish/../../list.txt"):
        notes.write_text(f"{climbing} 3\n")
        with pytest.raises(ImageFolderError, match="is not below"):
            listed_images(farm, notes)
    notes.write_text("one 3\n" + "x" * 300 + " 3\n")
    with pytest.raises(ImageFolderError, match="1 of the images .*line 2: xxx"):
        listed_images(farm, notes)


def test_a_list_is_of_names_below_the_working_folder_too(imagenet, monkeypatch):
    monkeypatch.chdir(imagenet / "ILSVRC2012_img_val")
    notes = imagenet / "list.txt"
    notes.write_text("ILSVRC2012_val_00000003 65\n")
    assert listed_images(Path(), notes) == [Path("ILSVRC2012_val_00000003.JPEG")]
    notes.write_text("../list.txt\n")
    with pytest.raises(ImageFolderError, match="is not below"):
        listed_images(Path(), notes)


def test_images_from_all_over_and_what_tells_them_from_others(imagenet, monkeypatch):
    images = FolderImages(listed_images(imagenet), 32, folder=imagenet)
    assert len(images) == 7
    assert images.spread(3).tolist() == [0, 3, 6]
    assert images.spread(99).tolist() == list(range(7))
    assert torch.equal(images.some(3), torch.stack([images.centre(i) for i in (0, 3, 6)]))
    arrays = ArrayImages(np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3), "a")
    assert arrays.spread(3).tolist() == [0, 1, 2]
    assert torch.equal(arrays.some(3) * 255, arrays.images[:3].float())
    facts = images.facts()
    others = FolderImages(images.paths[1:], 32, folder=imagenet)
    assert others.facts()["names"] != facts["names"]
    images.paths[0].write_bytes(b"mended")  # so that training can go on
    assert FolderImages(images.paths, 32, folder=imagenet).facts() == facts


def test_evaluation_decodes_large_images_whole(imagenet):
    rng = np.random.default_rng(1)
    path = imagenet / "large.jpg"
    Image.fromarray(rng.integers(0, 256, (256, 256, 3), "u1")).save(path, quality=95)
    side = round(32 * 256 / 224)
    small = np.asarray(Image.open(path).resize((side, side), Image.Resampling.BILINEAR))
    start = (side - 32) // 2
    expected = small[start : start + 32, start : start + 32]
    found = FolderImages([path], 32).centre(0).permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - expected).max() < 1e-3


def test_crops_follow_from_seed_epoch_and_place_whoever_reads(imagenet):
    paths = listed_images(imagenet / "ILSVRC2012_img_train")
    order = [np.array([2, 0]), np.array([3, 1])]
    here = list(FolderImages(paths, 32).batches(order, seed=1, epoch=2))
    assert here[0].shape == (2, 3, 32, 32)
    assert 0 <= here[0].min() < here[0].max() <= 1
    there = list(FolderImages(paths, 32, workers=1).batches(order, seed=1, epoch=2))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b)
    other = list(FolderImages(paths, 32).batches(order, seed=1, epoch=3))
    assert not torch.equal(here[0], other[0])
    # The second half alone, as a resumed training asks for it.
    assert torch.equal(next(FolderImages(paths, 32).batches(order[1:], 1, 2)), here[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_whoever_reads_it(imagenet, workers):
    paths = listed_images(imagenet / "ILSVRC2012_img_val")
    paths[1].write_bytes(b"no image")
    with pytest.raises(ImageFolderError, match="val_00000002.JPEG is not a readable image"):
        list(FolderImages(paths, 32, workers).batches([np.arange(3)], 0, 0))


def test_images_that_are_held_out_are_drawn_once_and_read_at_their_centres(imagenet):
    images = FolderImages(listed_images(imagenet), 32, folder=imagenet)
    others, held_out = images.apart(3)
    assert (len(others), len(held_out)) == (4, 3)
    assert sorted(others.paths + held_out.paths) == images.paths
    assert held_out.paths == images.apart(3)[1].paths
    (centres,) = held_out.batches([np.arange(3)], 0, None)
    assert torch.equal(centres, torch.stack([held_out.centre(i) for i in range(3)]))
    pixels, _ = patches(8)
    others, held_out = ArrayImages(pixels, "p").apart(2)
    (centres,) = held_out.batches([np.arange(2)], 0, None)
    assert torch.equal(centres, held_out.some(2))
    assert {p.tobytes() for p in pixels} == {
        p.permute(1, 2, 0).numpy().tobytes() for p in torch.cat([others.images, held_out.images])
    }
    for count in (0, 7, 8):
        with pytest.raises(ValueError, match=f"{count} of 8 images cannot be held out"):
            ArrayImages(pixels, "p").apart(count)


@pytest.mark.parametrize("key", ["lcam_fm", "lcam_img"])
def test_validation_measures_the_loss_and_the_average_drop_of_held_out_images(key):
    pixels, _ = patches(21)
    pixels[-1] = 0  # its heatmap is constant, so it has no average drop
    held_out = ArrayImages(pixels[-5:], "held out")
    recipe = replace(_TOY, epochs=2, batch=4)
    model = Toy()
    trained = train_attention(
        model, key, ArrayImages(pixels[:16], "p"), recipe, SIDE, held_out=held_out
    )
    assert tuple(trained.epochs) == EPOCHS
    assert trained.epochs.step.tolist() == [4, 8]
    assert trained.epochs.epoch.tolist() == [0, 1]
    assert (trained.epochs.images_per_second > 0).all()
    last = trained.epochs.iloc[-1]
    images, model = held_out.some(5), model.eval()
    loss = attention_loss(ATTENTIONS[key], model, trained.attention, images, "diagonal")
    assert last.loss == pytest.approx(loss.total.item(), rel=1e-5)
    assert last.same_class == pytest.approx(loss.same_class.item())
    x = model.normalised(images)
    model.attentions = {key: trained.attention}
    maps = learned_map(key, model, x, head_pass(model, x))
    drops = []
    for image, one in zip(images[:4], maps[:4], strict=True):
        large = nn.functional.interpolate(one[None, None], (SIDE, SIDE), mode="bilinear")
        whole, hidden = (
            model(model.normalised(some)).softmax(1)[0]
            for some in (image[None], image[None] * large)
        )
        best = whole.argmax()
        drops.append(100 * max(0, (whole[best] - hidden[best]).item()) / whole[best].item())
    assert maps[4].max() == 0
    assert last.average_drop == pytest.approx(np.mean(drops), rel=1e-4)


def test_between_reads_of_the_loss_nothing_waits_for_the_device(monkeypatch):
    """As on a GPU, where each read of a number would wait for all the work before it."""
    counted = []

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, words=(), options=None):
            if any(name in str(function) for name in ("_local_scalar_dense", "nonzero")):
                counted.append(str(function))
            return function(*words, **(options or {}))

    def counting(name):
        real = getattr(torch.Tensor, name)

        def read(self, *words):
            counted.append(name)
            return real(self, *words)

        monkeypatch.setattr(torch.Tensor, name, read)

    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__float__"):
        counting(name)
    pixels, _ = patches(16)
    recipe = replace(_TOY, epochs=2, batch=4, lr=0.1)
    runs = []
    for every in (1, 3):
        run = Run(
            Toy().eval(), ATTENTIONS["lcam_img"], ArrayImages(pixels, "p"), recipe, SIDE,
            "diagonal", 0,
        )  # fmt: skip
        run.read_every = every
        reads = []
        steps = run.go()
        for _ in range(run.steps):
            counted.clear()
            with Waits():
                next(steps)
            reads.append(bool(counted))
        runs.append((run, reads))
    (often, _), (seldom, reads) = runs
    assert reads == [False, False, True] * 2 + [False] * 2
    assert often.history().equals(seldom.history())
    assert torch.equal(often.attention.maps.weight, seldom.attention.maps.weight)


def test_images_whose_numbers_have_no_8_bit_meaning_are_refused(imagenet):
    path = imagenet / "deep.png"
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(path)
    with pytest.raises(ImageFolderError, match="have no 8-bit meaning"):
        FolderImages([path], 32).centre(0)
    Image.new("RGB", (1, 90)).save(path)
    with pytest.raises(ImageFolderError, match="is too elongated: 1 x 90 pixels"):
        FolderImages([path], 32).centre(0)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(path)
    assert (FolderImages([path], 32).centre(0) == 1).all()  # transparency is white


def test_modules_with_numbers_that_are_not_finite_are_refused(tmp_path):
    module = LCam([4], 3)
    module.maps.weight.data[0, 0] = torch.nan
    save_attention(tmp_path / "a.safetensors", "lcam_fm", module, {"variant": "a", "weights": "b"})
    with pytest.raises(AttentionError, match="holds numbers that are not finite"):
        load_attention(tmp_path / "a.safetensors", "lcam_fm", "a", "b")
