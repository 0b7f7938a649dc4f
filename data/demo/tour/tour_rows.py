"""A model and a CAM method of one's own, as `--extend` reads them (docs/own-models.md)."""

from torch import nn

from lib.backbones import DclsRecipe, Preprocessing
from lib.extension import add_method, add_model


def block(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class SmallNet(nn.Module):
    """Three blocks and a linear layer. Only `forward` is needed; `forward_features` and
    `forward_head` say where maps are made without naming a layer."""

    def __init__(self, classes: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU())
        self.blocks = nn.Sequential(block(16, 24), block(24, 32), block(32, 48))
        self.classes = nn.Linear(48, classes)

    def forward_features(self, x):
        return self.blocks(self.stem(x))

    def forward_head(self, features):
        return self.classes(features.mean(dim=(2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def within_blocks(conv) -> bool:
    return conv.kernel_size == (3, 3) and conv.stride == (1, 1)


add_model(
    "smallnet",
    label="SmallNet",
    build=SmallNet,
    weights="smallnet.safetensors",
    dcls=DclsRecipe(kernel_count=3, size=7, version="v1", replaces=within_blocks),
    weights_dcls="smallnet_dcls.safetensors",
    preprocessing=Preprocessing(resize=224, crop=224),
)


def evidence(features, gradient):
    """What each channel says for the class: features times gradient, where that is positive."""
    return (features * gradient).relu().sum(dim=1)


add_method("evidence", evidence, label="Evidence")
