"""One study: a profile's data and weights, the chosen models and methods, the paths.

Everything a user chooses is checked here, before any work, for notebooks and
`run_all.py` alike. Importing this module and making a `Study` costs no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from lib.backbones import BACKBONES, THE_EIGHT, Backbone, variant_name
from lib.fingerprint import fingerprint, sha256_of, size_of
from lib.methods import METHODS, PUBLISHED_METHODS, CamMethod
from lib.paths import DATA, DEMO, FIGURES, OUTPUT, PHOTOGRAPHS, shown
from lib.precision import PRECISIONS
from lib.protocols import DEFAULT_PROTOCOLS, PROTOCOLS
from lib.sources import SHARDS, UNREAD_SHARD, WEIGHTS, WEIGHTS_SUFFIXES, Source
from lib.tables import Table, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lib.clickme import ClickMe
    from lib.models import StudyModel

CLASS_NAMES = DEMO / "classes.txt"
DEMO_RECIPE = "the demo's"
TARGETS = ("true", "predicted")  # whose evidence a map shows: the label's, as published, or …
_COMPILERS = (os.environ.get("CXX") or "g++", "clang++", "c++", "cl")  # torch.compile's
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class MissingInputs(FileNotFoundError):
    """Files a profile needs are not there; the message lists each and what to do."""


@dataclass(frozen=True)
class Profile:
    """A row: which pictures, which weights, and what results may claim.

    data        : folder of shards and weights; None for one that the user may choose
    shard_names : every shard that a whole run needs, in reading order
    mini        : the weights are the embedded example's miniatures
    classes     : number of classes; labels lie below it
    photographs : Figures 5 and 6 show "held-out" pictures of the shards, or
                  "photographs" that packages ship or the user provides
    caveat      : printed on every figure and table made from it; "" for none
    sample      : pictures for analyses that score many methods or networks a model
    own         : models that a reader's file added
    """

    key: str
    label: str
    data: Path | None
    shard_names: tuple[str, ...]
    mini: bool
    classes: int
    photographs: str
    caveat: str
    sample: int
    own: tuple[Backbone, ...] = ()

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """All that a whole run studies."""
        return tuple(b for b in self.known if b.compared)

    @property
    def known(self) -> tuple[Backbone, ...]:
        """All that can be chosen."""
        if self.mini:
            return THE_EIGHT + self.own
        return tuple(b for b in BACKBONES.values() if not b.origin or b in self.own)


PROFILES: Table[Profile] = Table(
    "profile",
    [
        Profile(
            "demo", "embedded example", DEMO, ("val-0.tfrecords",),
            mini=True, classes=12, photographs="held-out",
            caveat="Embedded example: simulated people, miniature models; scores ÷ real people's "
            "ceiling can exceed 1. No evidence about DCLS.",
            sample=48,
        ),
        Profile(
            "paper", "ClickMe", None,
            tuple(f"{key}.tfrecords" for key in SHARDS),
            mini=False, classes=1000, photographs="photographs", caveat="", sample=1024,
        ),
        Profile(
            "rehearsal", "rehearsal", DATA / "rehearsal" / "data",
            tuple(f"{key}.tfrecords" for key in SHARDS),
            mini=False, classes=1000, photographs="photographs",
            caveat="Rehearsal: full-size networks with random weights, generated pictures and "
            "maps. No result.",
            sample=16,
        ),
    ],
)  # fmt: skip


def _absolute(folder: str, name: str) -> str:
    """A folder that is chosen, whatever the working folder is later; "" for none."""
    if not str(folder):
        return ""
    try:
        path = Path(folder).expanduser().resolve()
    except RuntimeError as error:  # ~somebody
        raise ValueError(f"{name}: {error}") from None
    if path.is_file():
        raise ValueError(f"{name} must be a folder, and {path} is a file")
    if name == "pictures" and OUTPUT.is_relative_to(path):
        raise ValueError(f"{path} holds this project's results; keep pictures in their own folder")
    return str(path)


@cache
def _loads(study: Study, key: str, *hashes: str) -> bool:
    """Whether both weights of a backbone, of these hashes, can be read and fit."""
    from lib.checkpoints import WeightsError

    try:
        for dcls in BACKBONES[key].forms:
            study.load_model(key, dcls)
            study.attentions(key, dcls)
    except WeightsError:
        return False
    return True


@dataclass(frozen=True)
class Study:
    """A checked set of choices; make one with `from_profile`.

    limit      : so many pictures of the shards, 0 for all
    device     : "auto", "cpu", "cuda", "cuda:1" or "mps"
    batch_size : pictures per forward, 0 for as many as is good for the device
    data_dir   : folder of downloaded files, "" for the project's `data/`
    protocols  : keys of PROTOCOLS
    pictures   : a folder of pictures and human maps in place of the profile's, "" for none
    keep_going : what is missing or cannot be read is left out and named
    precision  : a key of PRECISIONS
    compile    : networks are compiled by torch.compile, which takes a C++ compiler
    workers    : so many processes score at once, 0 for none but this one
    scheduler  : address of a Dask scheduler whose workers score, "" for none
    target     : one of TARGETS, the class whose evidence the maps show
    extend     : a file of own models and methods, see `lib.extension`, "" for none
    """

    profile: Profile
    backbones: tuple[Backbone, ...]
    methods: tuple[CamMethod, ...]
    limit: int
    device: str
    batch_size: int
    data_dir: str = ""
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS
    pictures: str = ""
    keep_going: bool = False
    precision: str = "float32"
    compile: bool = False
    workers: int = 0
    scheduler: str = ""
    target: str = TARGETS[0]
    extend: str = ""

    @classmethod
    def from_profile(
        cls,
        profile: str = "demo",
        models: Sequence[str] = (),
        methods: Sequence[str] = (),
        limit: int = 0,
        device: str = "auto",
        batch_size: int = 0,
        data_dir: str = "",
        protocols: Sequence[str] = (),
        pictures: str = "",
        keep_going: bool = False,
        precision: str = "float32",
        compile: bool = False,
        workers: int = 0,
        scheduler: str = "",
        target: str = TARGETS[0],
        extend: str = "",
    ) -> Study:
        """Check every choice and bind it to a profile's data.

        models, methods : keys; empty takes all models and the published methods
        Raises ValueError (UnknownName for a name) saying what is wrong, the nearest
        name, and what is allowed.
        """
        if isinstance(models, str) or isinstance(methods, str):
            raise ValueError("models and methods are lists of names, not one text")
        for name, value in (("limit", limit), ("batch_size", batch_size), ("workers", workers)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} must be a whole number of 0 or more, got {value!r}")
        if workers and scheduler:
            raise ValueError("workers and scheduler exclude each other: one starts a cluster here")
        if compile and not any(map(which, _COMPILERS)):
            raise ValueError(
                f"compile needs a C++ compiler, and none of {', '.join(_COMPILERS)} is there: "
                "install one, or leave --compile out"
            )
        if not _DEVICE.fullmatch(str(device)):
            raise ValueError(f"device {device!r} is none of auto, cpu, cuda, cuda:<number>, mps")
        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        row = PROFILES[profile]
        own: tuple[Backbone, ...] = ()
        if extend:
            from lib.extension import load_extension, placed

            extend = str(placed(Path(extend)))
            origin = load_extension(Path(extend))
            own = tuple(b for b in BACKBONES.values() if b.origin == origin)
        pictures, data_dir = _absolute(pictures, "pictures"), _absolute(data_dir, "data_dir")
        row = replace(row, own=own)
        chosen = tuple(BACKBONES.select(models)) if models else row.backbones
        absent = [b.key for b in chosen if b not in row.known]
        if absent:
            raise ValueError(f"the {row.key} profile has no model {', '.join(absent)}")
        if pictures:
            named = Path(pictures).name[:40]
            row = replace(row, label=f"{row.label} models, pictures of {named}")
        return cls(
            row,
            chosen,
            tuple(METHODS.select(methods or PUBLISHED_METHODS)),
            limit,
            device,
            batch_size,
            data_dir,
            tuple(p.key for p in PROTOCOLS.select(protocols or DEFAULT_PROTOCOLS)),
            pictures,
            bool(keep_going),
            PRECISIONS[precision].key,
            bool(compile),
            workers,
            scheduler,
            target,
            extend,
        )

    def choices(self) -> dict:
        """What `from_profile` makes the same study from, in another process."""
        return {
            "profile": self.profile.key,
            "models": [b.key for b in self.backbones],
            "methods": [m.key for m in self.methods],
            "protocols": list(self.protocols),
            **{
                name: getattr(self, name)
                for name in ("limit", "device", "batch_size", "data_dir", "pictures",
                             "keep_going", "precision", "compile", "target", "extend")
            },
        }  # fmt: skip

    # --- what it works on -------------------------------------------------------

    def asked(self, labels: torch.Tensor) -> torch.Tensor | None:
        """The classes whose evidence maps show: the labels, or None for the predicted ones."""
        return None if self.target == "predicted" else labels

    @property
    def variants(self) -> list[tuple[Backbone, bool]]:
        """(backbone, dcls) pairs, each backbone's baseline first."""
        return [(backbone, dcls) for backbone in self.backbones for dcls in backbone.forms]

    def sampled(self, **changes) -> Study:
        """The same on at most so many pictures as the profile's analyses take, and changed."""
        limit = min(self.limit or self.profile.sample, self.profile.sample)
        return replace(self, limit=limit, **changes)

    def few(self, part: int) -> int:
        """A part of the sample's number of pictures, for what is dearer still; at most `limit`."""
        return max(1, min(self.limit or self.profile.sample, self.profile.sample // part))

    def prefer(self, *keys: str) -> list[Backbone]:
        """Those of these backbones that are chosen and there; if none is, a reader's own, and
        else the first one."""
        there = list(dict.fromkeys(backbone for backbone, _ in self.there()))
        own = [b for b in there if b.origin]
        return [b for b in there if b.key in keys] or own or there[:1]

    def there(self) -> list[tuple[Backbone, bool]]:
        """The variants; with `keep_going` those of backbones whose weights both can be read."""
        there = [b for b in self.backbones if not self.keep_going or self._can_load(b)]
        return [(backbone, dcls) for backbone in there for dcls in backbone.forms]

    def _can_load(self, backbone: Backbone) -> bool:
        if not self._has_weights(backbone):
            return False
        paths = [path for dcls in backbone.forms for path in self._weights(backbone.key, dcls)]
        return _loads(self, backbone.key, *map(sha256_of, paths))

    def _has_weights(self, backbone: Backbone) -> bool:
        needed = [path for dcls in backbone.forms for path in self._weights(backbone.key, dcls)]
        return all(path.is_file() for path in needed)

    def _weights(self, key: str, dcls: bool) -> list[Path]:
        """A variant's weights, and those of the chosen methods that are learned."""
        learned = [self.attention_path(key, dcls, m.key) for m in self.methods if m.learned]
        return [self.weights_path(key, dcls), *learned]

    def prefer_method(self, key: str = "threshold_grad_cam") -> CamMethod:
        """This method if it is chosen, else the first that is."""
        return next((m for m in self.methods if m.key == key), self.methods[0])

    def picture_paths(self) -> list[Path]:
        """The profile's validation shards in reading order, or the user's pictures."""
        if self.pictures:
            from lib.stored import picture_files

            return picture_files(Path(self.pictures))
        names = list(self.profile.shard_names)
        if not any("pictures" in PROTOCOLS[key].mends for key in self.protocols):
            names = [name for name in names if Path(name).stem != UNREAD_SHARD]
        return [self.data / "clickme" / "val" / name for name in names]

    @property
    def data(self) -> Path:
        """Folder of shards and weights."""
        if self.profile.data is not None:
            return self.profile.data
        return Path(self.data_dir) if self.data_dir else DATA

    def weights_path(self, key: str, dcls: bool) -> Path:
        """A variant's weights: `<variant>.safetensors` if it is there, else as published."""
        if BACKBONES[key].weights and not dcls:
            return Path(BACKBONES[key].weights)
        if BACKBONES[key].weights_dcls and dcls:
            return Path(BACKBONES[key].weights_dcls)
        own = self._own_weights(key, dcls)
        source = self._published_weights(key, dcls)
        if self.profile.mini or source is None or own.is_file():
            return own
        return self.data / source.place

    def _own_weights(self, key: str, dcls: bool) -> Path:
        return self.data / "checkpoints" / f"{self.weights_name(key, dcls)}.safetensors"

    def _published_weights(self, key: str, dcls: bool) -> Source | None:
        """None for a reader's own backbone."""
        return WEIGHTS.get(self.weights_name(key, dcls))

    @staticmethod
    def weights_name(key: str, dcls: bool) -> str:
        """The variant whose weights these are: the fairer pair shares its DCLS model."""
        return variant_name((dcls and BACKBONES[key].pair_of) or key, dcls)

    def container(self, key: str, dcls: bool) -> str:
        """The entry of a variant's weights file that is read, "" where any will do."""
        path, source = self.weights_path(key, dcls), self._published_weights(key, dcls)
        return source.container if source and path == self.data / source.place else ""

    def recipe(self, key: str, dcls: bool) -> str:
        """How a variant's weights were trained."""
        if BACKBONES[key].origin:
            return "own" if dcls in BACKBONES[key].forms else ""
        if self.profile.mini:
            return DEMO_RECIPE
        path, source = self.weights_path(key, dcls), self._published_weights(key, dcls)
        return source.recipe if source and path == self.data / source.place else "unknown"

    def sources(self) -> list[Source]:
        """The published files that this study reads; none for the embedded example."""
        if self.profile.mini:
            return []
        weights = [
            source
            for b, dcls in self.variants
            if (source := self._published_weights(b.key, dcls))
            and not self._own_weights(b.key, dcls).is_file()
        ]
        shards = [SHARDS[p.stem] for p in self.picture_paths()] if not self.pictures else []
        return list(dict.fromkeys([*weights, *shards]))

    def missing_inputs(self) -> list[Path]:
        """Files that the chosen models and the profile's pictures need and are not there."""
        return [path for path in self._inputs() if not path.exists()]

    def inputs(self) -> dict[str, list[Path]]:
        """Files by the names under which notebooks declare that they read them."""
        own = self.profile.photographs == "photographs" and PHOTOGRAPHS.is_dir()
        return {
            "pictures": self.picture_paths() + [CLASS_NAMES] * self.profile.mini,
            "weights": list(
                dict.fromkeys(p for b, dcls in self.variants for p in self._weights(b.key, dcls))
            ),
            "extension": self._extension(),
            "photographs": sorted(p for p in PHOTOGRAPHS.iterdir() if p.is_file()) if own else [],
            "attention weights": [
                path
                for b, dcls in self.variants
                for path in self._files(self.attention_path(b.key, dcls, "any").parent)
                if path.suffix in (".safetensors", ".csv")
            ],
            "training checkpoints": [
                p for b, dcls in self.variants for p in self.training_checkpoints(b.key, dcls)
            ],
        }

    def _extension(self) -> list[Path]:
        if not self.extend:
            return []
        from lib.extension import extension_files

        return extension_files(Path(self.extend))

    def attention_path(self, key: str, dcls: bool, method: str) -> Path:
        """Where the trained module of a learned method is (`python -m lib.lcam` writes it)."""
        return self.data / "attention" / self.weights_name(key, dcls) / f"{method}.safetensors"

    def attentions(
        self, key: str, dcls: bool, methods: Sequence[CamMethod] | None = None
    ) -> dict[str, nn.Module]:
        """The trained modules of the learned ones among these methods, the study's own if none
        are given, on its device. Raises AttentionError."""
        learned = [m for m in (self.methods if methods is None else methods) if m.learned]
        if not learned:
            return {}
        from lib.attention import load_attention

        name, weights = self.weights_name(key, dcls), sha256_of(self.weights_path(key, dcls))
        return {
            m.key: load_attention(
                self.attention_path(key, dcls, m.key), m.key, name, weights
            ).to(self.torch_device())
            for m in learned
        }  # fmt: skip

    def training_checkpoints(self, key: str, dcls: bool) -> list[Path]:
        """Files of a variant's weights from earlier in its training, by name; often none.

        Files that end otherwise than `WEIGHTS_SUFFIXES` are no weights.
        """
        folder = self.data / "checkpoints" / "training" / self.weights_name(key, dcls)
        return [p for p in self._files(folder) if p.name.endswith(WEIGHTS_SUFFIXES)]

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(p for p in found if p.is_file() and not p.name.startswith("."))

    def _inputs(self) -> list[Path]:
        return [path for paths in self.inputs().values() for path in paths]

    def inventory(self) -> list[dict]:
        """Every input file with its size in MB, or that it is missing."""
        return [
            {
                "file": shown(path),
                "MB": round(size_of(path) / 1e6, 2) if path.exists() else "missing",
            }
            for path in self._inputs()
        ]

    def input_hashes(self, *names: str) -> dict[str, str]:
        """SHA-256 of every input file that is there, of those under these names if any."""
        chosen = [p for name, paths in self.inputs().items() if name in names for p in paths]
        paths = chosen if names else self._inputs()
        return {shown(path): sha256_of(path) for path in paths if path.exists()}

    def require_inputs(self) -> None:
        """Raise MissingInputs, listing every missing file, unless all are there.

        With `keep_going`, unless there are pictures and both weights of a backbone.
        """
        missing = self.missing_inputs()
        pictures = any(path.exists() for path in self.picture_paths())
        some = any(self._has_weights(backbone) for backbone in self.backbones)
        if not missing or (self.keep_going and pictures and some):
            return
        sources = {self.data / source.place: source for source in self.sources()}
        lines = []
        for path in missing:
            source = sources.get(path)
            size = (
                f" (about {source.about_bytes / 1e6:.0f} MB)"
                if source and source.about_bytes
                else ""
            )
            lines.append(f"  {shown(path)}{size}" + (f"\n    {source.address}" if source else ""))
        learned = [m.key for m in self.methods if m.learned]
        if learned and all(path.stem in learned for path in missing):
            mend = (
                "Learned methods are trained beside each network first: `python -m "
                + (
                    "lib.demo.attention"
                    if self.profile.mini
                    else f"lib.lcam --profile {self.profile.key} --images FOLDER"
                )
                + (f" --extend {self.extend}" if self.extend else "")
                + f" --models {' '.join(b.key for b in self.backbones)} "
                f"--methods {' '.join(learned)}`, see docs/lcam.md."
            )
        elif own := [path for path in missing if str(path) in self._rows_files()]:
            mend = (
                f"{self.extend} names {', '.join(p.name for p in own)} there: put the files there, "
                "or name others."
            )
        elif self.pictures and not Path(self.pictures).exists():
            mend = "The folder of --pictures is not there."
        elif self.profile.mini:
            mend = "Restore them with `git checkout -- data/demo`, or make them: `make demo-data`."
        else:
            mend = (
                "Fetch them: `python run_all.py --download-only`, or put them there by hand. "
                "`--data-dir FOLDER` reads them from elsewhere.\nThe embedded example needs none: "
                "`python run_all.py --profile demo`."
            )
        listed = "\n".join(lines)
        raise MissingInputs(
            f"the {self.profile.key} profile lacks {len(missing)} files:\n{listed}\n{mend}"
        )

    def _rows_files(self) -> set[str]:
        """Weights that the rows of `extend` name."""
        return {name for b in self.profile.own for name in (b.weights, b.weights_dcls) if name}

    def clickme(self, limit: int | None = None) -> ClickMe:
        """The profile's pictures, human maps and labels; `limit` overrides the study's."""
        from lib.clickme import ClickMe

        chosen = self.limit if limit is None else limit
        return ClickMe(
            self.picture_paths(), self.protocols, chosen, self.profile.classes,
            self.keep_going, "" if self.pictures else UNREAD_SHARD,
        )  # fmt: skip

    def load_model(self, key: str, dcls: bool, weights: Path | None = None) -> StudyModel:
        """A variant with this profile's weights, or other ones, on the study's device."""
        from lib.models import load_model, load_weights_file

        own = bool(BACKBONES[key].origin)
        mini, path = self.profile.mini and not own, weights or self.weights_path(key, dcls)
        if mini and weights is None:
            model = load_model(key, dcls, "demo")
        else:
            container = "" if weights else self.container(key, dcls)
            model = load_weights_file(key, dcls, path, container, mini, self.profile.classes)
            if own:
                self._check_classes(model)
        return model.to(self.torch_device())

    def _check_classes(self, model: StudyModel) -> None:
        """Raise ValueError unless a reader's own network answers by the profile's classes."""
        import torch

        side = model.backbone.preprocessing.crop
        with torch.inference_mode():
            classes = model(torch.zeros(1, 3, side, side)).shape[-1]
        if classes != self.profile.classes:
            raise ValueError(
                f"{model.variant} answers by {classes} classes, and the {self.profile.key} profile "
                f"has {self.profile.classes}: `build` is given their number"
            )

    def inference_model(
        self, key: str, dcls: bool, methods: Sequence[CamMethod] | None = None
    ) -> StudyModel:
        """The same, ready to make maps fast by these methods, the study's own if none are given."""
        return self.made_ready(self.load_model(key, dcls), methods)

    def made_ready(
        self, model: StudyModel, methods: Sequence[CamMethod] | None = None
    ) -> StudyModel:
        """A model as `inference_model` gives it; a network that became another keeps the
        learned methods' modules of what it was."""
        key = model.backbone.key
        model.attentions = self.attentions(key, model.variant != key, methods)
        plain = any(method.plain for method in (self.methods if methods is None else methods))
        return model.for_inference(self.precision, self.compile, keep_plain=plain)

    def untrained_model(self, key: str, dcls: bool, seed: int) -> StudyModel:
        """A variant with random weights, on the study's device."""
        import torch

        from lib.models import Provenance, StudyModel, build_network

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(
                BACKBONES[key], dcls, mini=self.profile.mini, num_classes=self.profile.classes
            )
        size = "mini" if self.profile.mini and not BACKBONES[key].origin else "full"
        provenance = Provenance(variant_name(key, dcls), "random", size, note=f"seed {seed}")
        return StudyModel(network, BACKBONES[key], provenance).eval().to(self.torch_device())

    def torch_device(self) -> torch.device:
        """The device, "auto" taking a GPU where there is one. Raises if it is absent."""
        import torch

        # Scores must not depend on a GPU's shortened float32.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"device {self.device!r} is not there: {error}") from None
        available = {
            "cpu": 1,
            "cuda": torch.cuda.device_count(),
            "mps": int(torch.backends.mps.is_available()),
        }[device.type]
        if (device.index or 0) >= available:
            raise ValueError(
                f"device {self.device!r} is not there: torch sees {available} {device.type} "
                "device(s); try --device cpu"
            )
        return device

    def class_names(self) -> list[str]:
        """One name per class, for captions."""
        if self.profile.mini:
            return CLASS_NAMES.read_text(encoding="utf-8").splitlines()
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        return [info.index_to_description(i) for i in range(self.profile.classes)]

    # --- where it writes --------------------------------------------------------

    @property
    def is_whole(self) -> bool:
        """All models, the published methods, and all pictures are chosen."""
        methods = tuple(method.key for method in self.methods)
        chosen = (self.backbones, methods, self.limit, self.protocols, self.precision, self.target)
        whole = (self.profile.backbones, PUBLISHED_METHODS, 0, DEFAULT_PROTOCOLS, "float32",
                 TARGETS[0])  # fmt: skip
        return chosen == whole

    @property
    def name(self) -> str:
        """Names the folders of results: the profile's key, "demo_subset" for less than all.

        So a quick look at two models never replaces the whole study's figures, nor do
        results on other pictures ("paper_gaze_1a2b" for a folder `gaze`).
        """
        name = self.profile.key
        if self.pictures:
            # With a hash, for folders of one name in different places.
            place = re.sub(r"[^\w-]+", "_", Path(self.pictures).name)[:40]
            name += f"_{place}_{fingerprint({'pictures': self.pictures})[:4]}"
        if self.extend:
            name += f"_{re.sub(r'[^a-zA-Z0-9_-]+', '_', Path(self.extend).stem)[:40]}"
        return name if self.is_whole else f"{name}_subset"

    @property
    def figures(self) -> Path:
        return FIGURES / self.name

    @property
    def output(self) -> Path:
        """Tables and executed notebooks."""
        return OUTPUT / self.name

    @property
    def scores(self) -> Path:
        """Kept scores, named by what determines them: whole and subset runs share them."""
        return OUTPUT / self.profile.key / "scores"

    def unlike(self, facts: Mapping) -> list[str]:
        """How the study differs of which these are the `facts`; where it was run does not count."""
        return [
            f"{name}: {facts[name]}, here {value}"
            for name, value in self._made_by().items()
            if name in facts and facts[name] != value
        ]

    def _made_by(self) -> dict:
        """The choices on which results depend."""
        return {
            "profile": self.profile.key,
            "models": [b.key for b in self.backbones],
            "methods": [m.key for m in self.methods],
            "limit": self.limit,
            "protocols": list(self.protocols),
            "pictures": self.pictures,
            "precision": self.precision,
            "compile": self.compile,
            "target": self.target,
            "extend": sha256_of(Path(self.extend)) if self.extend else "",
        }

    def facts(self) -> dict:
        """The choices as plain values, written beside figures and tables."""
        return self._made_by() | {
            "device": str(self.torch_device()),
            "batch_size": self.batch_size or "auto",
            "caveat": self.profile.caveat,
        }
