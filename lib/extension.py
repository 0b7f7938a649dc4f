"""Door for files of own rows: `from lib.extension import add_method, add_model`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("lib.study", submod_attrs={
    "own_rows": ["add_method", "add_model"],
    "extension": ["ExtensionError", "load_extension"],
})  # fmt: skip
