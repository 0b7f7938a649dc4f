"""Door for notebooks of one's own: `from lib.outputs import save_figure, save_table`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__package__, submod_attrs={
    "figures.saving": ["save_figure"],
    "study.outputs": ["provenance", "saved_provenance", "save_table", "write_result"],
    "base.versions": ["commit", "environment"],
})  # fmt: skip
