"""A reader's own models and CAM methods: a small Python file that adds rows to the tables.

`run_all.py --extend FILE` and `Study.from_profile(extend=FILE)` run the file once in each
process; what it adds by `add_model` and `add_method` is then chosen, scored, drawn and reported
like the study's own. The file is the reader's own program: it is run, not checked.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.backbones import BACKBONES, Backbone, DclsRecipe, Preprocessing
from lib.fingerprint import sha256_of
from lib.methods import METHODS, CamMethod
from lib.paths import ROOT
from lib.sources import WEIGHTS, timm_source
from lib.tables import unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

# Beside the study's own, of which colour-blind readers can tell them; then they are repeated.
_COLOURS = ("#332288", "#AA4499", "#117733", "#882255", "#44AA99", "#999933")
_loaded: dict[Path, str] = {}
_loading: list[tuple[Path, str]] = []


class ExtensionError(ValueError):
    """A file of own rows that is not there, fails, adds nothing or has changed meanwhile."""


def placed(path: Path) -> Path:
    """A file of own rows, whatever the working folder is later. Raises ExtensionError."""
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError) as error:  # somebody's ~, a link to itself
        raise ExtensionError(f"the file of --extend cannot be read: {error}") from None


def load_extension(path: Path) -> str:
    """Run a file that adds rows, once a process; returns the hash of `extension_files`.

    Modules beside it can be imported by it. Raises ExtensionError saying which line failed and
    why.
    """
    path = placed(path)
    try:
        text = "".join(sha256_of(file) for file in extension_files(path))
    except OSError as error:
        raise ExtensionError(f"the file of --extend cannot be read: {error}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    if path in _loaded:
        if _loaded[path] != digest:
            raise ExtensionError(
                f"{path}, or a module that it imports, has changed since this process read it: "
                "restart it (in JupyterLab, the kernel)"
            )
        return digest
    with _taken_back_on_failure():
        _run(path, digest)
    _loaded[path] = digest
    return digest


def extension_files(path: Path) -> list[Path]:
    """A file of own rows and the modules of the reader's own that it imports, they in turn too.

    Not those of Python, of installed packages and of this project.
    """
    path = path.resolve()
    _make_importable(path.parent)
    found, open_ = {path}, [path]
    while open_:
        new = set(_imported(open_.pop(), path.parent)) - found
        found |= new
        open_ += new
    return [path, *sorted(found - {path})]


def _imported(file: Path, folder: Path) -> list[Path]:
    """The files of the reader's own modules that a file's import statements name.

    folder : from which modules are imported by their plain name
    """
    if not file.is_file():
        return []
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []  # running it says what is wrong
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    files: list[Path] = []
    for name in sorted(names - {"lib"}):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None:
            if file.parent == folder:
                _refuse_hidden(folder, name, spec)
            files += _own_files(spec)
    return files


def _refuse_hidden(folder: Path, name: str, spec: ModuleSpec) -> None:
    """A module beside the file in whose place another one of its name is imported."""
    places = folder / f"{name}.py", folder / name / "__init__.py"
    beside = [place for place in places if place.is_file()]
    if not beside or not spec.origin or Path(spec.origin).resolve().is_relative_to(folder):
        return
    raise ExtensionError(
        f"{beside[0]} is hidden by another module of that name, {spec.origin}: rename it (or, if "
        "another file of --extend brought that one, restart the process)"
    )


def _own_files(spec: ModuleSpec) -> list[Path]:
    """A module's file, or a package's; none of what is not the reader's own."""
    if not spec.submodule_search_locations:
        file = Path(spec.origin).resolve() if spec.has_location else None
        return [file] if file and _own(file) else []
    folders = [Path(place).resolve() for place in spec.submodule_search_locations]
    return [file.resolve() for f in folders if _own(f) for file in f.rglob("*.py")]


def _own(place: Path) -> bool:
    """Not of Python, of what is installed, or of this project."""
    paths = sysconfig.get_paths()
    installed = {Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")}
    return not any(place.is_relative_to(folder) for folder in (*installed, ROOT / "lib"))


def _make_importable(folder: Path) -> None:
    """Modules beside a file of own rows; last, so that none takes an installed one's place."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _run(path: Path, digest: str) -> None:
    name = f"dcls_extension_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ExtensionError(f"{path} is no Python file: its name must end in .py")
    before = len(BACKBONES) + len(METHODS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # hashing its functions looks their source up there
    _loading.append((path, digest))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                 if f.filename == str(path)]  # fmt: skip
        at = lines[-1] if lines else getattr(error, "lineno", "?")
        raise ExtensionError(f"{path}, line {at}: {type(error).__name__}: {error}") from error
    finally:
        _loading.pop()
    if len(BACKBONES) + len(METHODS) == before:
        raise ExtensionError(f"{path} adds nothing: it should call add_model or add_method")


@contextmanager
def _taken_back_on_failure():
    before = [(table, list(table)) for table in (BACKBONES, METHODS, WEIGHTS)]
    try:
        yield
    except BaseException:
        for table, keys in before:
            table.keep(keys)
        raise


def _place(file: str | Path) -> str:
    """A path as the file of own rows names it: from its own folder on."""
    if not str(file):
        return ""
    return str((_origin()[0].parent / Path(file).expanduser()).resolve())


def _origin() -> tuple[Path, str]:
    if not _loading:
        raise ExtensionError(
            "add_model and add_method are called by the file that --extend names, or "
            "Study.from_profile(extend=…)"
        )
    return _loading[-1]


def add_model(
    key: str,
    *,
    weights: str | Path = "",
    weights_dcls: str | Path = "",
    timm: str = "",
    build: Callable[[int], nn.Module] | None = None,
    layer: str = "",
    dcls: DclsRecipe | None = None,
    label: str = "",
    preprocessing: Preprocessing | None = None,
    colour: str = "",
) -> Backbone:
    """Add a model to the table.

    key          : how options name it
    timm         : a name of timm's registry, with the tag of its weights if they are to be fetched
                   by --download
    build        : instead: a function that makes the network for a number of classes; it takes
                   (image, 3, side, side), normalised, and returns (image, class) logits
    weights      : the file with its weights, from this file's folder on: safetensors or a
                   checkpoint that torch.load reads with weights_only; not needed for a tag of timm
    weights_dcls : the same of the network converted by `dcls`; together or not at all
    layer        : whose output the maps are made of, a name of `named_modules()`; "" is found:
                   where timm's forward_features ends, else the last layer with a map
    preprocessing : how pictures become inputs; by default what timm says of the tag, else
                   256 resized, 224 cropped, ImageNet's mean and deviation
    Raises ValueError naming what does not fit.
    """
    _, digest = _origin()
    _check_key(key)
    if bool(timm) == (build is not None):
        raise ValueError(f"{key}: give either timm's name or a function that builds the network")
    if (dcls is None) != (not weights_dcls):
        raise ValueError(f"{key}: dcls, the recipe, and weights_dcls, the file, belong together")
    if timm:
        from timm.models import is_model, list_models

        if not is_model(timm):
            near = difflib.get_close_matches(timm, list_models(), n=8, cutoff=0.3)
            raise unknown_name("timm model", timm, near or list_models()[:5])
    if not weights and (build is not None or "." not in timm):
        raise ValueError(f"{key}: weights, a file, are needed without a tag of timm")
    own = [b for b in BACKBONES.values() if b.origin]
    row = Backbone(
        key, label or key, "own", timm, dcls,
        preprocessing or _preprocessing(timm),
        colour or _COLOURS[len(own) % len(_COLOURS)],
        layer=layer, build=build, weights=_place(weights), weights_dcls=_place(weights_dcls),
        origin=digest,
    )  # fmt: skip
    _refuse_twin(BACKBONES, "model", row.label)
    BACKBONES.add(_checked(row))
    if not weights:
        WEIGHTS.add(timm_source(key, timm))
    return BACKBONES[key]


def _preprocessing(timm_name: str) -> Preprocessing:
    if not timm_name:
        return Preprocessing(resize=256, crop=224)
    import timm
    from timm.data import resolve_data_config

    found = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(timm_name).to_dict())
    crop = found["input_size"][-1]
    return Preprocessing(
        round(crop / found["crop_pct"]), crop, tuple(found["mean"]), tuple(found["std"])
    )


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not re.fullmatch(r"\w+", key) or key.endswith("_dcls"):
        raise ValueError(
            f"the key {key!r} must be a text of letters, digits and _, and must not end in _dcls"
        )


def _refuse_twin(table: Mapping[str, Backbone | CamMethod], kind: str, label: str) -> None:
    """Figures and tables tell rows by their labels."""
    for row in table.values():
        if row.label == label:
            raise ValueError(f"two rows of the {kind} table, {row.key} one, have the label {label}")


def _checked(row: Backbone) -> Backbone:
    """The row with its layer found, where none is named and timm's own cut does not serve, and
    with where its features' channels are; after a forward of both halves."""
    import torch

    from lib.models import Provenance, StudyModel, build_network
    from lib.split import last_layer

    geometry, key = row.preprocessing, row.key
    if not 0 < geometry.crop <= geometry.resize:
        raise ValueError(
            f"{key}: a crop of {geometry.crop} pixels does not fit into {geometry.resize}"
        )
    side = geometry.crop
    network = build_network(row, False).eval()
    timms = hasattr(network, "forward_features") and hasattr(network, "forward_head")
    if not row.layer and not timms:
        row = replace(row, layer=last_layer(network, side))
    model = StudyModel(network, row, Provenance(key, "random", "full"))
    device = next(iter(network.parameters()), torch.empty(0)).device
    try:
        with torch.inference_mode():
            features = model.features(torch.zeros(2, 3, side, side, device=device))
            logits = model.head(features)
    except Exception as error:  # whatever the reader's own forward raises
        raise ValueError(
            f"{key}: a forward of two pictures, (2, 3, {side}, {side}), fails: "
            f"{type(error).__name__}: {error}"
        ) from error
    where = f"its layer {row.layer}" if row.layer else "its forward_features"
    shape = tuple(features.shape)
    if features.ndim != 4 or min(sorted(shape[1:])[-2:]) < 2:
        raise ValueError(
            f"{key}: {where} gives {shape}, no maps (image, channel, h, w) of more than one cell: "
            "name another layer (a transformer that works on tokens has none)"
        )
    if shape[1] == shape[2] != shape[3]:
        row = replace(row, channels_last=True)
    elif shape[2] != shape[3]:
        raise ValueError(f"{key}: {where} gives {shape}, no square maps (image, channel, h, w)")
    if not (features.isfinite().all() and logits.isfinite().all()):
        raise ValueError(
            f"{key}: the network's features or logits of a grey picture are not finite"
        )
    if logits.ndim != 2 or len(logits) != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"{key}: the network gives {tuple(logits.shape)} for two pictures, and must give "
            "logits (image, class) of two classes or more"
        )
    return row


def add_method(
    key: str,
    maps: Callable[..., Tensor] | None = None,
    *,
    cam: Any = None,
    on_pictures: bool = False,
    label: str = "",
) -> CamMethod:
    """Add a CAM method to the table.

    maps : (features, gradient) -> (image, h, w), both (image, channel, h, w), of the study's layer
           and of the target's logit; or (model, x, passed) -> the same, for what needs more:
           `model.features`, `model.head`, the prepared pictures, and a `lib.cam.HeadPass`
    cam  : instead: a class in the manner of pytorch-grad-cam's, made as cam(model, layers) and
           called with inputs and targets
    on_pictures : the class must be given pictures, with a forward and backward of the whole
           network, not the features of the study's layer
    Raises ValueError for neither or both, or a function of other parameters.
    """
    _, digest = _origin()
    _check_key(key)
    if (maps is None) == (cam is None):
        raise ValueError(f"{key}: give either a function that makes maps or a class (cam=)")
    label = label or key
    _refuse_twin(METHODS, "method", label)
    if cam is not None:
        from lib.package_cams import of_class

        whole = partial(of_class, cam, on_pictures)
        return METHODS.add(
            CamMethod(key, label, whole_map=whole, forwards=int(on_pictures), plain=on_pictures,
                      origin=digest)
        )  # fmt: skip
    asked = inspect.signature(maps).parameters.values()
    count = sum(p.default is p.empty and p.kind is not p.VAR_KEYWORD for p in asked)
    if count == 2:
        return METHODS.add(CamMethod(key, label, small_map=maps, origin=digest))
    if count == 3:
        return METHODS.add(CamMethod(key, label, whole_map=maps, forwards=1, origin=digest))
    raise ValueError(
        f"{key}: maps takes (features, gradient) or (model, x, passed), not {count} parameters "
        "without a default"
    )
