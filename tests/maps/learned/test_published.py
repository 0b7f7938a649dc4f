"""L-CAM's losses, their gradients and its maps against what the published code computes, written
out here from its description: of every variant, on networks of the published shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from stand_ins import mini
from timm.models.vgg import VGG

from lib.maps.forward import head_pass
from lib.maps.learned.attention import (
    ATTENTIONS,
    attention_loss,
    in_0_1,
    learned_map,
)
from lib.maps.learned.training import new_attention
from lib.networks.backbones import BACKBONES
from lib.networks.models import Provenance, StudyModel

SIDE, CLASSES = 64, 5
_CONVOLUTIONS = [4, 4, "M", 4, 4, "M", 6, 6, 6, "M", 6, 6, 6, "M", 8, 8, 8, "M"]  # VGG-16's order


def network_of(key: str) -> StudyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if key == "resnet50":
            return mini(key, classes=CLASSES)
        vgg = VGG(_CONVOLUTIONS, CLASSES, mlp_ratio=0.002)
    return StudyModel(vgg, BACKBONES[key], Provenance(key, "random", "full")).eval()


class Literal:
    """A network of the published code: what its attention reads, and all of it."""

    def __init__(self, key: str, network):
        self.key, self.network = key, network

    @staticmethod
    def normalised(images):
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return torch.stack(
            [(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1
        )  # fmt: skip

    def lower(self, x):
        net = self.network
        if self.key == "resnet50":
            x = net.maxpool(net.act1(net.bn1(net.conv1(x))))
            return net.layer4(net.layer3(net.layer2(net.layer1(x))))
        for layer in list(net.features)[: 31 if self.key == "vgg16_pooled" else 30]:
            x = layer(x)
        return x

    def upper(self, features):
        net = self.network
        if self.key == "resnet50":
            return net.fc(features.mean(dim=(2, 3)))
        if self.key == "vgg16":
            features = F.max_pool2d(features, 2, 2)
        features = F.adaptive_avg_pool2d(features, (7, 7))
        return net.head.fc(net.pre_logits(features).flatten(1))  # its dropout is off


def literal_loss(literal: Literal, method: str, weight, bias, images):
    """One image after another, one mask after another."""
    x = literal.normalised(images)
    labels = literal.upper(literal.lower(x)).argmax(dim=1).tolist()
    raw = method == "lcam_img_a_published"
    features = literal.lower(images if raw else x).detach()
    scores = torch.einsum("kc,nchw->nkhw", weight, features) + bias[:, None, None]
    maps = 1 / (1 + torch.exp(-scores))
    count, cross_entropy = len(images), 0.0
    for image, label in enumerate(labels):
        mask = maps[image, label][None, None]
        if "_fm" in method:
            logits = literal.upper(mask * features[image : image + 1])
        else:
            large = F.interpolate(mask, size=(SIDE, SIDE), mode="bilinear")
            masked = literal.normalised(large * images[image : image + 1])
            logits = literal.upper(literal.lower(masked))
        cross_entropy = cross_entropy - torch.log_softmax(logits[0], dim=0)[label] / count
    if "_a" in method:
        return cross_entropy
    # Every image's maps of every label of the batch.
    masks = [maps[image, label] for image in range(count) for label in labels]
    area = sum(((m + 0.0005) ** 0.3).mean() for m in masks) / len(masks)
    rough = sum(((m[1:] - m[:-1]) ** 2).sum() + ((m[:, 1:] - m[:, :-1]) ** 2).sum() for m in masks)
    border = sum(sum((line**2).sum() for line in (m[0], m[-1], m[:, 0], m[:, -1])) for m in masks)
    variation = (rough + 0.3 * border) / (2 * count)
    return 1.5 * cross_entropy + 2 * area + 0.01 * variation


# Each file of the published repository that holds a network, and the row that it is here.
PUBLISHED = {
    "ResNet50_L_CAM_Fm": ("resnet50", "lcam_fm"),
    "ResNet50_L_CAM_Img": ("resnet50", "lcam_img"),
    "ResNet50_L_CAM_FmA": ("resnet50", "lcam_fm_a"),
    "ResNet50_L_CAM_ImgA": ("resnet50", "lcam_img_a_published"),
    "VGG16_L_CAM_Fm": ("vgg16", "lcam_fm"),
    "VGG16_L_CAM_Img": ("vgg16", "lcam_img"),
    "VGG16_L-CAM_FmA": ("vgg16", "lcam_fm_a"),
    "VGG16_L_CAM_ImgA": ("vgg16", "lcam_img_a"),
    "VGG16_7x7_L_CAM_Img": ("vgg16_pooled", "lcam_img"),
}
CELLS = {"resnet50": 7, "vgg16": 14, "vgg16_pooled": 7}  # of a map of 224 pixels


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_and_gradients_are_those_of_the_published_code(name):
    key, method = PUBLISHED[name]
    model = network_of(key)
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    attention = new_attention(ATTENTIONS[method], model, SIDE, seed=2).double()
    model.double()
    attention.maps.weight.data *= 8  # masks that differ from place to place
    ours = attention_loss(ATTENTIONS[method], model, attention, images, "random").total
    ours.backward()
    weight = attention.maps.weight.detach().flatten(1).requires_grad_()
    bias = attention.maps.bias.detach().clone().requires_grad_()
    theirs = literal_loss(Literal(key, model.network), method, weight, bias, images)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    for found, expected in zip(
        (attention.maps.weight.grad.flatten(1), attention.maps.bias.grad),
        torch.autograd.grad(theirs, [weight, bias]), strict=True,
    ):  # fmt: skip
        assert expected.abs().max() > 1e-6
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("key", CELLS)
def test_the_layer_read_is_the_published_one(key):
    model, images = network_of(key), torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        features = model.features(images)
        assert features.shape[2:] == (CELLS[key], CELLS[key])
        assert features.min() == 0  # rectified
        assert torch.equal(features, Literal(key, model.network).lower(images))


def test_only_the_published_img_a_of_resnet_reads_images_that_are_not_normalised():
    model = network_of("resnet50")
    images = torch.rand(2, 3, SIDE, SIDE)
    attention = new_attention(ATTENTIONS["lcam_img_a"], model, SIDE, seed=2)
    model.attentions = {"lcam_img_a": attention, "lcam_img_a_published": attention}
    x = model.normalised(images)
    assert torch.allclose(in_0_1(model, x), images, atol=1e-6)
    passed = head_pass(model, x, torch.tensor([1, 3]))
    literal = Literal("resnet50", model.network)
    for method, read in (("lcam_img_a", x), ("lcam_img_a_published", images)):
        found = learned_map(method, model, x, passed)
        with torch.no_grad():
            scores = attention.maps(literal.lower(read))
        for image, label in enumerate((1, 3)):
            c = scores[image, label]
            expected = (c - c.min()) / (c.max() - c.min())
            assert torch.allclose(found[image], expected, atol=1e-4), method
    assert [key for key, row in ATTENTIONS.items() if row.raw] == ["lcam_img_a_published"]
