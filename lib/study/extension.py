"""A user's own models and CAM methods: a small Python file that adds rows to the tables.

`run_all.py --extend FILE` and `Study.from_profile(extend=FILE)` run the file once in each
process. Whatever it adds by `add_model` and `add_method` is then chosen, scored, drawn and
reported like the study's own rows. The file is the user's own program: it is run, not checked.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

from ..base.fingerprint import sha256_of
from ..base.paths import NAME, PACKAGE
from ..base.tables import Table, rows_noted
from .own_files import Tree

loaded: dict[Path, str] = {}
_loading: list[tuple[Path, str]] = []


class ExtensionError(ValueError):
    """The error for a file of own rows that is missing, fails, adds nothing or has changed."""


def placed(path: Path) -> Path:
    """Return a file of own rows as an absolute path. Raises ExtensionError."""
    try:
        place = path.expanduser().resolve()
        if place.exists() and not place.is_file():  # a folder, or a pipe that never ends
            raise ExtensionError(f"the file of --extend cannot be read: {place} is not a file")
    except (RuntimeError, OSError) as error:  # somebody else's ~, or a link to itself
        raise ExtensionError(f"the file of --extend cannot be read: {error}") from None
    return place


def load_extension(path: Path) -> str:
    """Run a file that adds rows, once per process, and return the hash of `extension_files`.

    The file can import modules beside it. Raises ExtensionError, which says which line failed
    and why.
    """
    path = placed(path)
    try:
        text = "".join(sha256_of(file) for file in extension_files(path))
    except OSError as error:
        raise ExtensionError(f"the file of --extend cannot be read: {error}") from None
    digest = hashlib.sha256(text.encode()).hexdigest()
    if path in loaded:
        if loaded[path] != digest:
            raise ExtensionError(
                f"{path}, or a module that it imports, has changed since this process read it: "
                "restart it (in JupyterLab, the kernel)"
            )
        return digest
    with _taken_back_on_failure() as added:
        _run(path, digest)
        if not added:
            raise ExtensionError(
                f"{path} adds nothing: it should call add_model, add_method, add_comparison, "
                "add_layout or add_measure"
            )
    loaded[path] = digest
    return digest


def extension_files(path: Path) -> list[Path]:
    """Return a file of own rows and the user's own modules that it imports, directly or not.

    A module is the user's own if it lies in the file's folder or below and no installed
    distribution claims it; Python's modules and this project's never are. Modules from
    elsewhere, such as a lab's package on PYTHONPATH, are not followed even if the user edits
    them: cached results do not notice that they change.
    """
    path = path.resolve()
    _make_importable(path.parent)
    tree = Tree(path.parent)
    found, open_ = {path}, [path]
    while open_:
        new = set(_imported(open_.pop(), tree)) - found
        found |= new
        open_ += new
    return [path, *sorted(found - {path})]


def _imported(file: Path, tree: Tree) -> list[Path]:
    """Return the files of the user's own modules that a file's import statements name."""
    if not file.is_file():
        return []
    try:
        parsed = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return []  # running the file reports what is wrong
    names = set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    files: list[Path] = []
    for name in sorted(names - {PACKAGE, NAME}):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None:
            if file.parent == tree.folder:
                _refuse_hidden(tree.folder, name, spec)
            files += tree.own_files(spec)
    return files


def _refuse_hidden(folder: Path, name: str, spec: ModuleSpec) -> None:
    """Raise ExtensionError if another module of the same name hides one beside the file."""
    places = folder / f"{name}.py", folder / name / "__init__.py"
    beside = [place for place in places if place.is_file()]
    found = Path(spec.origin or "").resolve()
    # A namespace has no origin; an environment within the folder also provides modules there.
    if not beside or not spec.origin or found in [place.resolve() for place in beside]:
        return
    raise ExtensionError(
        f"{beside[0]} is hidden by another module of that name, {spec.origin}: rename it (or, if "
        "another file of --extend imported that module, restart the process)"
    )


def _make_importable(folder: Path) -> None:
    """Let Python import modules beside a file of own rows, after all installed ones."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _run(path: Path, digest: str) -> None:
    name = f"dcls_extension_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ExtensionError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # hashing its functions looks up their source there
    _loading.append((path, digest))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
                 if f.filename == str(path)]  # fmt: skip
        at = lines[-1] if lines else getattr(error, "lineno", "?")
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "lib":
            said += (
                f". The package is installed under the name {NAME}: write `from {NAME}.extension "
                "import …`, which also works in a checkout"
            )
        raise ExtensionError(f"{path}, line {at}: {said}") from error
    finally:
        _loading.pop()


@contextmanager
def _taken_back_on_failure() -> Iterator[list[tuple[Table, str]]]:
    with rows_noted() as added:
        try:
            yield added
        except BaseException:
            for table, key in added:
                table.take_back(key)
            raise


@contextmanager
def rows_added_by(path: Path, digest: str) -> Iterator[list[tuple[Table, str]]]:
    """Give added rows to a command: paths start at this path's folder, and `digest` is the rows'
    origin. After a failure the rows are removed."""
    _loading.append((path, digest))
    try:
        with _taken_back_on_failure() as added:
            yield added
    finally:
        _loading.pop()


def being_read() -> tuple[Path, str]:
    """Return the file of own rows that is running, and its hash. Raises ExtensionError if none."""
    if not _loading:
        raise ExtensionError(
            "add_model, add_method and the like work only in the file that --extend or "
            "Study.from_profile(extend=…) names, or in a plug-in: call them there"
        )
    return _loading[-1]
