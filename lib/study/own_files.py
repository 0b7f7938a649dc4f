"""Which Python files are a user's own: in a folder or below, and claimed by no distribution."""

from __future__ import annotations

import csv
import os
import sysconfig
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution
from pathlib import Path

from ..base.paths import CODE

INSTALLERS_OWN = {"site-packages", "dist-packages"}  # folders without any files of the user's
NOT_SEARCHED = INSTALLERS_OWN | {"node_modules", "__pycache__"}


class Tree:
    """The folder of a file of own rows with everything below it, and which files are the user's.

    A home folder, for example, may also contain environments and folders of `pip install --target`.

    folder : resolved
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sysconfig.get_paths()
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        self._foreign = {CODE, *(Path(paths[name]).resolve() for name in names)}
        self._claims: dict[Path, set[str]] = {}

    def own_files(self, spec: ModuleSpec) -> list[Path]:
        """Return a module's file, or all Python files of a package, if they are the user's own."""
        if spec.submodule_search_locations:
            folders = [Path(place) for place in spec.submodule_search_locations]
            return [file for folder in folders for file in self._python_files(folder)]
        file = Path(spec.origin) if spec.has_location and spec.origin else None
        # A module inside an archive has no file of its own.
        if file is None or not file.is_file() or not self._is_own(file.resolve()):
            return []
        return [file.resolve()]

    def _python_files(self, package: Path) -> list[Path]:
        entered: set[Path] = set()
        if not self._enters(package, entered):
            return []
        files = []
        for here, folders, names in os.walk(package, followlinks=True):
            folders[:] = [name for name in folders if self._enters(Path(here, name), entered)]
            files += [Path(here, name) for name in names if name.endswith(".py")]
        # Editors leave broken links beside files that are being edited.
        places = [file.resolve() for file in files if file.is_file()]
        return [place for place in places if self._is_own(place)]

    def _enters(self, folder: Path, entered: set[Path]) -> bool:
        """Return whether to search a folder of a package, once: links may lead there again."""
        place = folder.resolve()
        if place in entered or not self._is_own(place / "__init__.py"):
            return False
        names = {folder.name, place.name}
        if names & NOT_SEARCHED or any(name.startswith(".") for name in names):
            return False
        if (place / "pyvenv.cfg").exists():
            return False
        entered.add(place)
        return True

    def _is_own(self, place: Path) -> bool:
        """Return whether a file is the user's own; for a folder, ask about its `__init__.py`."""
        if not place.is_relative_to(self.folder):
            return False
        if any(place.is_relative_to(folder) for folder in self._foreign):
            return False
        # Conda and Debian put some packages there without metadata.
        if INSTALLERS_OWN & set(place.relative_to(self.folder).parts):
            return False
        return not self._is_claimed(place)

    def _is_claimed(self, place: Path) -> bool:
        """Return whether a distribution between the tree's folder and the place lists it."""
        above = [folder for folder in place.parents if folder.is_relative_to(self.folder)]
        for folder in above:
            if folder not in self._claims:
                self._claims[folder] = _claimed_in(folder)
        names = [path.as_posix() for path in (place, *above)]
        return any(self._claims[folder].intersection(names) for folder in above)


def _claimed_in(folder: Path) -> set[str]:
    """Return the files and folders that distributions with metadata in a folder claim.

    An .egg-info without a version in its name is not an installed one: building a project, or an
    editable installation, leaves one among the sources.
    """
    claimed: set[str] = set()
    for metadata in (*folder.glob("*.dist-info"), *folder.glob("*-*.egg-info")):
        claimed |= _claimed_by(metadata)
    return claimed


def _claimed_by(metadata: Path) -> set[str]:
    """Return what one distribution claims; everything around it if nothing is known.

    Entries are texts, because a list may have tens of thousands of lines, and making a Path of
    each takes a second. `Distribution.files` is not used: it confuses lists of sources with lists
    of installed files.
    """
    folder, distribution = metadata.parent, Distribution.at(metadata)
    around = folder.as_posix()
    if record := distribution.read_text("RECORD"):
        return {f"{around}/{row[0]}" for row in csv.reader(record.splitlines()) if row}
    if listed := distribution.read_text("installed-files.txt"):
        return {Path(os.path.normpath(metadata / x)).as_posix() for x in listed.splitlines()}
    names = distribution.read_text("top_level.txt")
    if names is None:
        return {around}
    modules = [path for name in names.split() for path in folder.glob(f"{name}.*")]
    return {f"{around}/{name}" for name in names.split()} | {path.as_posix() for path in modules}
