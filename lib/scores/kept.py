"""Cached scores: one file per variant and part, named by a hash of all that determines them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ..base.files import write_atomically
from ..base.fingerprint import code_of, fingerprint, sha256_of
from ..base.paths import shown
from ..maps.methods import CamMethod
from ..networks.backbones import Backbone
from ..networks.checkpoints import MissingWeights
from ..people.clickme import ClickMe
from ..study.study import Study
from .scoring import COLUMNS

LEFT_OUT = "left_out"  # in a table's attributes: {image: why it was not scored}
# In the file's own metadata: the SHA-256 of the same file with zeros in this place.
_SEAL = b"dcls sha256 "
_NO_DIGEST = b"0" * 64

# A change to any of these may change a score, so cached scores depend on their text.
DETERMINING_CODE = (
    "base.geometry", "base.loops",
    "networks.building", "networks.checkpoints", "networks.class_counts", "networks.compiled",
    "networks.weights_files",
    "networks.dcls", "networks.loading", "networks.models",
    "networks.preprocessing", "networks.rewrites", "networks.split",
    "networks.grids", "networks.taps",
    "people.clickme", "people.human_maps", "people.listing", "people.images",
    "people.protocols", "people.stored.fit", "people.stored.folders",
    "people.stored.gaze", "people.stored.part", "people.stored.shards",
    "people.stored.viewing",
    "maps.combined", "maps.forward", "maps.head_again", "maps.learned.attention",
    "maps.methods", "maps.one_pass", "maps.package_cams", "maps.pixel.gradients",
    "maps.pixel.hidden", "maps.pixel.published", "maps.pixel.rectified",
    "maps.targets",
    "study.device", "study.networks",
    "scores.agreements", "scores.prepared", "scores.scoring", "scores.spearman",
)  # fmt: skip
_DETERMINING_PACKAGES = (
    "torch", "torchvision", "timm", "dcls", "numpy", "numba", "grad-cam", "captum", "scikit-image",
    "scikit-learn", "simplejpeg", "pillow",
)  # fmt: skip


def facts_of_maps(study: Study, backbone: Backbone, has_dcls: bool) -> dict:
    """All that determines a variant's maps of an image. Raises MissingWeights."""
    weights = study.inputs.weights_path(backbone.key, has_dcls)
    learned = {
        m.key: study.inputs.attention_path(backbone.key, has_dcls, m.key)
        for m in study.choices.methods
        if m.learned
    }
    for path in (*([] if backbone.untrained else [weights]), *learned.values()):
        if not path.is_file():
            raise MissingWeights(f"no weights at {shown(path)}: fetch the file, or name another")
    return {
        **facts_of_model(study, backbone, has_dcls),
        "methods": {m.key: formula_of(m) for m in study.choices.methods},
        "origin": backbone.origin,
        "attentions": {key: sha256_of(path) for key, path in learned.items()},
        "device": study.networks.device().type,
        "precision": study.choices.precision,
        "compile": study.choices.compile,
        "code": code_of(*DETERMINING_CODE),
        "packages": determining_versions(),
    }


def determining_versions() -> dict[str, str]:
    """The versions of the packages that compute scores."""
    return {name: version(name) for name in _DETERMINING_PACKAGES}


def facts_of_model(study: Study, backbone: Backbone, has_dcls: bool) -> dict:
    """All that identifies a variant in any run, whatever file of rows it came from."""
    return {
        "weights": study.inputs.weights_sha256(backbone.key, has_dcls),
        "reading": study.inputs.reading(backbone.key, has_dcls),
        # `origin` is the hash of the user's file, which contains the user's own recipe.
        "dcls": has_dcls and (bool(backbone.origin) or backbone.dcls),
        "preprocessing": backbone.preprocessing,
        "head_norm_eps": backbone.head_norm_eps,
        "layer": (backbone.layer, backbone.around),
    }


def formula_of(method: CamMethod) -> object:
    """A method's formula, for a fingerprint."""
    return method.origin or (method.small_map, method.whole_map, method.products)


def kept_path(study: Study, backbone: Backbone, has_dcls: bool, some: ClickMe) -> Path:
    """The file that caches a variant's scores on the images of a part. Raises MissingWeights."""
    key = fingerprint(
        facts_of_maps(study, backbone, has_dcls)
        | {
            "target": study.choices.target,
            "protocols": [(p.key, sorted(p.mends)) for p in some.protocols],
            "scored": {p.key: some.scored(p.key) for p in some.protocols},
            "part": some.part.digest(),
            "images": [chosen.index for chosen in some.chosen],
        }
    )
    name = study.inputs.weights_name(backbone.key, has_dcls)
    return study.places.scores / f"{name}-{some.part.name}-{key}.parquet"


def write_kept(path: Path, scores: pd.DataFrame, left_out: dict[str, str]) -> None:
    """Write a Parquet file that contains its own checksum; it appears only when complete."""
    scores.attrs[LEFT_OUT] = left_out
    table = pa.Table.from_pandas(scores, preserve_index=False)
    sealed = {**(table.schema.metadata or {}), b"seal": _SEAL + _NO_DIGEST}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(sealed), file)
    whole = file.getvalue()
    digest = hashlib.sha256(whole).hexdigest().encode()
    with write_atomically(path) as partial:
        before, seal, rest = whole.rpartition(_SEAL)
        partial.write_bytes(before + seal + digest + rest[64:])


def _checked(stored: bytes) -> io.BytesIO:
    """The bytes of a cached file if its checksum matches. Raises ValueError."""
    # The last occurrence: a text in the table may look like a seal; the metadata come last.
    before, seal, rest = stored.rpartition(_SEAL)
    digest, after = rest[:64], rest[64:]
    whole = before + seal + _NO_DIGEST + after
    if not seal or hashlib.sha256(whole).hexdigest().encode() != digest:
        raise ValueError("its checksum does not match")
    return io.BytesIO(stored)


def read_kept(
    path: Path, keep_going: bool = True, columns: Sequence[str] = COLUMNS
) -> pd.DataFrame | None:
    """Return the scores cached in a file; None if it does not exist or is damaged.

    keep_going : accept scores that lack images
    columns    : the columns that they must have
    """
    if not path.is_file():
        return None
    try:
        scores = pq.read_table(_checked(path.read_bytes())).to_pandas()
        if len(scores.columns) and list(scores.columns) != list(columns):
            raise ValueError(f"it has the columns {', '.join(map(str, scores.columns))}")
    except Exception as error:  # a damaged file can raise anything
        told = str(error).splitlines() or [type(error).__name__]
        tqdm.write(f"{shown(path)} is damaged: scoring again ({told[0]})")
        return None
    return scores if keep_going or not scores.attrs.get(LEFT_OUT) else None
