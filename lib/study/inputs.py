"""Which files a study reads, whether they exist, and what to do if they do not."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..base.fingerprint import sha256_of, size_of
from ..base.paths import (
    DATA,
    HOME_VARIABLE,
    IS_CHECKOUT,
    ONLY_IN_A_CHECKOUT,
    OUTPUT,
    PHOTOGRAPHS,
    shown,
)
from ..networks.backbones import BACKBONES, Backbone, variant_name
from ..networks.known_files import KnownFiles
from ..networks.sources import (
    AS_IS,
    AS_WRITTEN,
    SHARDS,
    UNREAD_SHARD,
    WEIGHTS,
    WEIGHTS_SUFFIXES,
    Reading,
    Source,
)
from ..people.listing import Listing
from ..people.protocols import PROTOCOLS
from ..people.stored import image_files
from .choices import Choices
from .extension import extension_files
from .plug_ins import plug_in_files
from .profiles import CLASS_NAMES, DEMO_RECIPE

L = TypeVar("L", bound=Listing)
UNTRAINED_SEED = 0
NO_FILE = Path(f"random weights (seed {UNTRAINED_SEED})")  # stands for a file


class MissingInputs(FileNotFoundError):
    """The error for files that a profile lacks; it lists each, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: only the message, because no code is at fault."""
        return [f"{type(self).__name__}: {self}"]


def chosen_folder(name: str, folder: str) -> str:
    """Return a chosen folder as an absolute path, "" for none.

    Raises ValueError for a file, and for a folder of images that contains this project's results.
    """
    if not str(folder):
        return ""
    try:
        path = Path(folder).expanduser().resolve()
    except RuntimeError as error:  # an unknown user after ~
        raise ValueError(f"{name}: {error}") from None
    if not str(path).isprintable():
        raise ValueError(f"{name}: the name {str(path)!a} is not printable text; rename the folder")
    try:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{name} must be a folder, but {path} is a file")
    except OSError as error:  # the name is too long, for example
        raise ValueError(f"{name}: {error.strerror}: {str(path)[:100]} …") from None
    if name == "images" and OUTPUT.is_relative_to(path):
        elsewhere = f": start in another one, or name one for results by {HOME_VARIABLE}"
        raise ValueError(
            f"{path} holds this project's results; keep images in their own folder"
            + elsewhere * (not IS_CHECKOUT)
        )
    return str(path)


@dataclass(frozen=True)
class Inputs:
    """The files of one study: images, weights, and whatever else its notebooks read."""

    choices: Choices

    @property
    def data(self) -> Path:
        """The folder of shards and weights."""
        if self.choices.profile.data is not None:
            return self.choices.profile.data
        return Path(self.choices.data_dir) if self.choices.data_dir else DATA

    @property
    def downloads(self) -> Path:
        """The folder of downloads; the user's, if the profile comes with its own files."""
        if not self.choices.profile.is_embedded:
            return self.data
        return Path(self.choices.data_dir) if self.choices.data_dir else DATA

    # --- images -----------------------------------------------------------------------------

    def image_paths(self) -> list[Path]:
        """Return the profile's validation shards in reading order, or the user's images."""
        if self.choices.images:
            return image_files(Path(self.choices.images))
        if self.choices.profile.images is not None:
            return [self.choices.profile.images]
        names = list(self.choices.profile.shard_names)
        if not any("images" in PROTOCOLS[key].mends for key in self.choices.protocols):
            names = [name for name in names if Path(name).stem != UNREAD_SHARD]
        return [self.data / "clickme" / "val" / name for name in names]

    def listed(self, kind: type[L] = Listing, limit: int | None = None) -> L:
        """Return the study's images, as a listing or a class that reads one.

        limit : overrides the study's own
        """
        return kind(
            self.image_paths(),
            self.choices.protocols,
            self.choices.limit if limit is None else limit,
            self.choices.profile.classes,
            self.choices.keep_going,
            "" if self.choices.images else UNREAD_SHARD,
            self.choices.read,
            not self.choices.predicted,
        )

    # --- weights ------------------------------------------------------------------------------

    @staticmethod
    def weights_name(key: str, dcls: bool) -> str:
        """Return the variant whose weights these are: the fairer pair shares its DCLS model."""
        return variant_name((dcls and BACKBONES[key].pair_of) or key, dcls)

    def weights_path(self, key: str, dcls: bool) -> Path:
        """Return a variant's weights file: `<variant>.safetensors` if it exists, otherwise the
        published file. An untrained variant has none: NO_FILE stands for it."""
        row = BACKBONES[key]
        if row.untrained:
            return NO_FILE
        if named := row.weights_dcls if dcls else row.weights:
            return Path(named)
        own, source = self._own_weights(key, dcls), self._published_weights(key, dcls)
        mini = self.choices.profile.mini and not row.origin
        if mini or source is None or own.is_file():
            return own
        return self.downloads / source.place

    def weights_sha256(self, key: str, dcls: bool) -> str:
        """Return the SHA-256 of a variant's weights file; for random weights, of what determines
        them besides the network. Raises OSError for a file that does not exist."""
        if BACKBONES[key].untrained:
            return hashlib.sha256(str(NO_FILE).encode()).hexdigest()
        return sha256_of(self.weights_path(key, dcls))

    def _own_weights(self, key: str, dcls: bool) -> Path:
        return self.data / "checkpoints" / f"{self.weights_name(key, dcls)}.safetensors"

    def _published_weights(self, key: str, dcls: bool) -> Source | None:
        """Return the published source, or None for a user's own backbone."""
        return WEIGHTS.get(self.weights_name(key, dcls))

    def published(self, key: str, dcls: bool) -> Source | None:
        """Return the published file that a variant's weights are read from, or None."""
        source = self._published_weights(key, dcls)
        path = self.weights_path(key, dcls)
        return source if source and path == self.downloads / source.place else None

    def unverified(self) -> dict[Path, str]:
        """Return {published file that this study reads: why no checksum verified it}."""
        places = [self.downloads / source.place for source in self.sources()]
        try:
            known = KnownFiles(self.downloads).unverified(
                [path for path in places if path.is_file()]
            )
        except ValueError as error:  # the preflight check refuses it
            return {path: str(error) for path in places if path.is_file()}
        return {self.downloads / name: why for name, why in known.items()}

    def reading(self, key: str, dcls: bool) -> Reading:
        """Return how a variant's weights file is read."""
        row, source = BACKBONES[key], self.published(key, dcls)
        found = source.reading if source else AS_IS
        if row.named and row.weights:  # a training script's notes beside the weights
            found = AS_WRITTEN
        return replace(found, accepted=self.choices.accept)

    def recipe(self, key: str, dcls: bool) -> str:
        """Return how a variant's weights were trained."""
        if BACKBONES[key].untrained:
            return "untrained"
        source = self.published(key, dcls)
        if source and BACKBONES[key].named:
            return source.recipe
        if BACKBONES[key].origin:
            return "own" if dcls in BACKBONES[key].forms else ""
        if self.choices.profile.mini:
            return DEMO_RECIPE
        if BACKBONES[key].embedded:
            return "its authors"
        return source.recipe if source else "unknown"

    def attention_path(self, key: str, dcls: bool, method: str) -> Path:
        """Return the path of a learned method's trained module (`dcls-lcam` writes it)."""
        return self.data / "attention" / self.weights_name(key, dcls) / f"{method}.safetensors"

    def weights(self, backbone: Backbone) -> list[Path]:
        """Return the weights of a backbone's variants, and of the chosen learned methods."""
        learned = [m.key for m in self.choices.methods if m.learned]
        return [
            path
            for dcls in backbone.forms
            for path in (
                *([] if backbone.untrained else [self.weights_path(backbone.key, dcls)]),
                *(self.attention_path(backbone.key, dcls, method) for method in learned),
            )
        ]

    def has_weights(self, backbone: Backbone) -> bool:
        return all(path.is_file() for path in self.weights(backbone))

    def training_checkpoints(self, key: str, dcls: bool) -> list[Path]:
        """Return files of a variant's weights from earlier in its training, by name; often none.

        Only files with an ending of `WEIGHTS_SUFFIXES` are weights.
        """
        folder = self.data / "checkpoints" / "training" / self.weights_name(key, dcls)
        return [p for p in _files_in(folder) if p.name.endswith(WEIGHTS_SUFFIXES)]

    # --- all of them --------------------------------------------------------------------------

    def files(self) -> dict[str, list[Path]]:
        """Return files by the names under which notebooks declare that they read them."""
        variants = [(b.key, dcls) for b, dcls in self.choices.variants]
        own = self.choices.profile.photographs == "photographs" and PHOTOGRAPHS.is_dir()
        weights = [path for b in self.choices.backbones for path in self.weights(b)]
        choices, extend = self.choices, self.choices.extend
        return {
            "images": self.image_paths() + [CLASS_NAMES] * self.choices.profile.mini,
            "weights": list(dict.fromkeys(weights)),
            "extension": (extension_files(Path(extend)) if extend else [])
            + plug_in_files(choices.rows),
            "photographs": sorted(p for p in PHOTOGRAPHS.iterdir() if p.is_file()) if own else [],
            "attention weights": [
                path
                for variant in variants
                for path in _files_in(self.attention_path(*variant, "any").parent)
                if path.suffix in (".safetensors", ".csv")
            ],
            "training checkpoints": [
                path for variant in variants for path in self.training_checkpoints(*variant)
            ],
        }

    def all_files(self) -> list[Path]:
        return [path for paths in self.files().values() for path in paths]

    def missing(self) -> list[Path]:
        """Return the missing files that the chosen models and the profile's images need."""
        return [path for path in self.all_files() if not path.exists()]

    def inventory(self) -> list[dict]:
        """Return every input file with its size in MB, or that it is missing."""
        return [
            {
                "file": shown(path),
                "MB": round(size_of(path) / 1e6, 2) if path.exists() else "missing",
            }
            for path in self.all_files()
        ]

    def hashes(self, *names: str) -> dict[str, str]:
        """Return the SHA-256 of every existing input file, or only of those under these names."""
        chosen = [p for name, paths in self.files().items() if name in names for p in paths]
        paths = chosen if names else self.all_files()
        return {shown(path): sha256_of(path) for path in paths if path.exists()}

    def sources(self) -> list[Source]:
        """Return the published files that this study reads; for a profile that comes with its own
        files, those of further models."""
        embedded = self.choices.profile.is_embedded
        weights = [
            source
            for b, dcls in self.choices.variants
            if (source := self._published_weights(b.key, dcls))
            and (b.origin or not embedded)
            and not b.weights
            and not self._own_weights(b.key, dcls).is_file()
        ]
        shards = (
            [] if embedded or self.choices.images else [SHARDS[p.stem] for p in self.image_paths()]
        )
        return list(dict.fromkeys([*weights, *shards]))

    def require(self) -> None:
        """Raise MissingInputs, which lists every missing file, unless all exist.

        With `keep_going`, raise it unless there are images and both weights of a backbone.
        """
        missing = self.missing()
        if not missing:
            return
        images = any(path.exists() for path in self.image_paths())
        if (
            self.choices.keep_going
            and images
            and any(map(self.has_weights, self.choices.backbones))
        ):
            return
        if not IS_CHECKOUT and self.choices.profile.mini:
            raise MissingInputs(
                f"the files of the {self.choices.profile.key} profile are {ONLY_IN_A_CHECKOUT}. "
                "The gaze profile works here without a download; the paper profile takes any "
                "model with your own images (`images`)"
            )
        sources = {self.downloads / source.place: source for source in self.sources()}
        listed = "\n".join(_line(path, sources.get(path)) for path in missing)
        raise MissingInputs(
            f"the {self.choices.profile.key} profile lacks {len(missing)} files:\n{listed}\n"
            f"{self._mend(missing, sources)}"
        )

    def _mend(self, missing: list[Path], sources: Mapping[Path, Source]) -> str:
        """Return what to do about missing files."""
        choices = self.choices
        learned = [m.key for m in choices.methods if m.learned]
        if learned and all(path.stem in learned for path in missing):
            command = (
                "python -m lib.demo.attention"
                if choices.profile.mini
                else f"dcls-lcam --profile {choices.profile.key} --images FOLDER"
            )
            return (
                f"Learned methods need a module for each model. Train them: `{command}"
                + (f" --extend {shlex.quote(choices.extend)}" if choices.extend else "")
                + f" --models {_typed(choices.backbones)} "
                f"--methods {' '.join(learned)}`, see docs/lcam.md."
            )
        named = {name for b in choices.profile.own for name in (b.weights, b.weights_dcls)}
        if own := [path.name for path in missing if str(path) in named]:
            return (
                f"{choices.extend or 'A plug-in'} names {', '.join(own)} there: put the files "
                "there, or name others."
            )
        if choices.images and not Path(choices.images).exists():
            return "The folder of --images does not exist: give another."
        if choices.profile.is_embedded and any(path in sources for path in missing):
            return f"Fetch them: `{self.fetch_command()}`, or put them there by hand."
        if choices.profile.is_embedded:
            return "Restore them with `git checkout -- data/demo`, or make them: `make demo-data`."
        return (
            f"Fetch them: `{self.fetch_command()}`, or put them there by hand. "
            "`--data-dir FOLDER` reads them from elsewhere.\nThe embedded example needs none: "
            "`python run_all.py --profile demo`."
        )

    def fetch_command(self) -> str:
        """Return the command that fetches what this study lacks."""
        choices = self.choices
        if not IS_CHECKOUT:
            given = {"--data-dir": choices.data_dir, "--extend": choices.extend}
            parts = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value]
            asks = not choices.images and choices.profile.published_ceiling
            parts += ["--clickme"] * asks
            return " ".join(["dcls-fetch", _typed(choices.backbones), *parts])
        own = any(b.origin for b in choices.backbones)
        given = {
            "--profile": choices.profile.key * choices.profile.is_embedded,
            "--data-dir": choices.data_dir,
            "--extend": choices.extend,
            "--images": choices.images,
        }
        parts = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value]
        models = [f"--models {_typed(choices.backbones)}"] if own else []
        return " ".join(["python run_all.py", *parts, *models, "--download-only"])


def _typed(backbones: Sequence[Backbone]) -> str:
    """Return the models as a command line names them."""
    return " ".join(shlex.quote(b.named or b.key) for b in backbones)


def _files_in(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.is_file() and not p.name.startswith("."))


def _line(path: Path, source: Source | None) -> str:
    """Return a line for a missing file, with its size and address if they are known."""
    known = source is not None and source.about_bytes
    size = f" (about {source.about_bytes / 1e6:.0f} MB)" if known else ""
    return f"  {shown(path)}{size}" + (f"\n    {source.address}" if source else "")
