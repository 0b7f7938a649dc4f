"""In a checkout, `dcls_alignment` is another name of the package `lib`, as installed ones bear it.

Every module is there once, whichever name it is imported by: tables are never doubled. A wheel has
no such file, for there the package itself is named so.
"""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path

_NAME = __name__
_PLACE = Path(__file__).resolve().parent / "lib" / "__init__.py"


class _OtherName(MetaPathFinder, Loader):
    """Finds `dcls_alignment.x` as the module `lib.x`."""

    def find_spec(self, fullname, path=None, target=None):
        if not fullname.startswith(f"{_NAME}."):
            return None
        own = importlib.util.find_spec("lib" + fullname.removeprefix(_NAME))
        if own is None:
            return None
        is_package = own.submodule_search_locations is not None
        spec = ModuleSpec(fullname, self, origin=own.origin, is_package=is_package)
        spec.loader_state = own
        if is_package:
            spec.submodule_search_locations[:] = own.submodule_search_locations
        return spec

    def create_module(self, spec):
        return importlib.import_module(spec.loader_state.name)

    def exec_module(self, module):
        # Importing has put the other name's into the module, where reloading looks for its own.
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname):  # for `python -m`
        own = importlib.util.find_spec("lib" + fullname.removeprefix(_NAME))
        return own.loader.get_code(own.name)


def _is_ours():
    try:
        found = importlib.util.find_spec("lib")
    except ValueError:  # somebody's, put together by hand
        return False
    return found is not None and found.origin is not None and Path(found.origin).resolve() == _PLACE


if _is_ours():
    # First of all finders: the package's folder has the modules' files under this name too.
    sys.meta_path.insert(0, _OtherName())
    sys.modules[_NAME] = importlib.import_module("lib")
else:  # another package of the reader's is named lib: this one is itself, under its own name
    _spec = importlib.util.spec_from_file_location(
        _NAME, _PLACE, submodule_search_locations=[str(_PLACE.parent)]
    )
    sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_NAME])
