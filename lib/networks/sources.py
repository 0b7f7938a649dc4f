"""Every published file that the study uses: its address, its content, its place.

Each row is one file. Addresses and containers are as the publishers give them; none of the
files was available when this was written (see data/README.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..base.tables import Table
from .backbones import BACKBONES, variant_name

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin")
MIRROR = "DCLS_MIRROR"  # environment variable: a server with copies of the files, see `address`
_HUB = "https://huggingface.co"
_ZENODO = "https://zenodo.org/records"
_CLICKME = "https://storage.googleapis.com/serrelab/prj_harmonization/dataset/click-me"


@dataclass(frozen=True)
class Reading:
    """How a weights file is read. Names are shell patterns (`*.total_ops`).

    container : the entry of a pickled file that contains the weights; "" looks for the usual ones
    surplus   : names that the file may have and the network lacks
    lacking   : names of the network that the file may lack
    accepted  : names that the user accepts: surplus, lacking, or with positions outside the window
    """

    container: str = ""
    surplus: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()


AS_IS = Reading()  # strict, whatever the container's name

# None of these affects results: counters of a profiler that ran during training, indices of an
# older DCLS, which every forward pass makes again, and the number of batches that a norm has seen.
_SURPLUS = (
    "total_ops", "total_params", "*.total_ops", "*.total_params",
    "*.DCK.IDX", "*.DCK.lim", "*.relative_position_index",
)  # fmt: skip
_LACKING = ("*.num_batches_tracked",)
AS_WRITTEN = Reading("", _SURPLUS, _LACKING)  # the output of any training script


@dataclass(frozen=True)
class Source:
    """A published file.

    key    : the variant's name, or the shard's
    place  : path below the data folder
    url    : the address where it is published
    about_bytes : estimated size, 0 if unknown
    container   : the entry of a pickled file that contains the weights, "" for none
    recipe : how the weights were trained, as far as that is known
    licence : the file's licence
    surplus, lacking : as for `Reading`
    """

    key: str
    place: str
    url: str
    about_bytes: int = 0
    container: str = ""
    recipe: str = ""
    licence: str = ""
    surplus: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    @property
    def reading(self) -> Reading:
        return Reading(self.container, self.surplus, self.lacking)

    @property
    def variant(self) -> tuple[str, bool]:
        """The (backbone, dcls) of a weights file."""
        return self.key.removesuffix("_dcls"), self.key.endswith("_dcls")

    @property
    def address(self) -> str:
        """The URL, or the mirror's: `<DCLS_MIRROR>/<host>/<path>`."""
        mirror = os.environ.get(MIRROR, "").rstrip("/")
        parts = urlsplit(self.url)
        return f"{mirror}/{parts.netloc}{parts.path}" if mirror else self.url


# Learnable parameters in millions, for an estimate of a file's size.
_MILLIONS = {
    "resnet50": 25.6, "convnext_tiny": 28.6, "convnext_small": 50.2, "convnext_base": 88.6,
    "caformer_s18": 26.3, "convformer_s18": 26.8, "fastvit_sa24": 21.6, "fastvit_sa36": 31.5,
    "vgg16": 138.4,
}  # fmt: skip
_RECIPES = {
    "resnet50.a1_in1k": "ResNet strikes back, A1 (600 epochs)",
    "resnet50.a3_in1k": "ResNet strikes back, A3 (100 epochs)",
}


def timm_source(
    variant: str,
    tag: str,
    millions: float = 0,
    repository: str = "",
    file: str = "model.safetensors",
) -> Source:
    """Return the source of timm's weights with this tag, for a variant.

    millions   : learnable parameters, if known
    repository : on the hub, "" for "timm/<tag>"
    """
    address = f"{_HUB}/{repository or f'timm/{tag}'}/resolve/main/{file}"
    suffix = next(s for s in (*WEIGHTS_SUFFIXES, "") if file.endswith(s))
    licence = "Apple's" if "apple" in tag else "see the hub's page"
    return Source(
        variant, f"checkpoints/{tag}{suffix}", address,
        round(millions * 4e6), recipe=_RECIPES.get(tag, "the publisher's"), licence=licence,
    )  # fmt: skip


def _zenodo(key: str, dcls: bool, record: int, file: str, container: str, recipe: str) -> Source:
    return Source(
        variant_name(key, dcls), f"checkpoints/{file}", f"{_ZENODO}/{record}/files/{file}",
        round(_MILLIONS[key] * 4e6), container, recipe, "see the Zenodo record",
        _SURPLUS, _LACKING,
    )  # fmt: skip


def _weights() -> list[Source]:
    with_dcls = {
        "resnet50": (8373830, "resnet_dcls_kernel_5_model_best.pth.tar", "A3 (100 epochs)"),
        "caformer_s18": (8370737, "caformer_s18_v1_17lim_34el_seed0.pth.tar", "the study's"),
        "convformer_s18": (8370737, "convformer_s18_v1_17lim_40el_seed0.pth.tar", "the study's"),
        "fastvit_sa24": (8370737, "fastvit_sa24_v1_17lim_34el_seed0.pth.tar", "the study's"),
        "fastvit_sa36": (8370737, "fastvit_sa36_v1_17lim_34el_seed0.pth.tar", "the study's"),
    }
    rows = []
    for backbone in BACKBONES.values():
        key = backbone.key
        if backbone.embedded:
            continue
        if backbone.pair_of:
            rows.append(timm_source(key, backbone.timm_tag, _MILLIONS[backbone.pair_of]))
            continue  # it shares the other row's DCLS weights
        if backbone.family == "fastvit":  # the study trained its own baselines
            file = f"{key}_seed0.pth.tar"
            rows.append(_zenodo(key, False, 8370737, file, "state_dict_ema", "the study's"))
        else:
            millions = _MILLIONS[key.removesuffix("_pooled")]
            rows.append(timm_source(key, backbone.timm_tag, millions))
        if backbone.dcls is None:
            continue
        if backbone.family == "convnext":
            size = key.removeprefix("convnext_")
            file = f"convnext_dcls_{size}_1k_224_ema.pth"
            rows.append(_zenodo(key, True, 7112021, file, "model", "ConvNeXt's"))
        else:
            record, file, recipe = with_dcls[key]
            rows.append(_zenodo(key, True, record, file, "state_dict_ema", recipe))
    return rows


WEIGHTS: Table[Source] = Table("weights file", _weights())

_SHARDS = 18
# The published code stops before the last shard.
UNREAD_SHARD = f"val-{_SHARDS - 1}"
SHARDS: Table[Source] = Table(
    "shard",
    [
        Source(
            f"val-{i}", f"clickme/val/val-{i}.tfrecords", f"{_CLICKME}/val/val-{i}.tfrecords",
            licence="ImageNet's images: never redistribute",
        )
        for i in range(_SHARDS)
    ],
)  # fmt: skip
