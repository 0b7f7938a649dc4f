"""All that determines scores, for the names of the files in which they are cached."""

from __future__ import annotations

from importlib.metadata import version

from ..base.fingerprint import code_of, sha256_of
from ..base.paths import shown
from ..maps.methods import CamMethod
from ..networks.backbones import Backbone
from ..networks.checkpoints import MissingWeights
from ..people.clickme import ClickMe
from ..study.study import Study

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


def facts_of_scores(study: Study, backbone: Backbone, has_dcls: bool, some: ClickMe) -> dict:
    """All that determines a variant's scores on the images of a part. Raises MissingWeights."""
    return facts_of_maps(study, backbone, has_dcls) | {
        "target": study.choices.target,
        "protocols": [(p.key, sorted(p.mends)) for p in some.protocols],
        "scored": {p.key: some.scored(p.key) for p in some.protocols},
        **facts_of_images(some),
    }


def facts_of_images(some: ClickMe) -> dict:
    """All that determines these images: their parts, and which images of each."""
    return {
        "images": [
            (here.part.digest(), [(chosen.index, chosen.place) for chosen in here.chosen])
            for here in some.per_part()
        ]
    }
