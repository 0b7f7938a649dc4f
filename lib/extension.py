"""Door for files of own rows: `from lib.extension import add_model`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__package__, submod_attrs={
    "study.own_data_sets": ["add_layout"],
    "scores.own_measures": ["add_measure"],
    "people.stored.viewing": ["Looked", "Viewing"],
    "study.own_rows": ["add_comparison", "add_method", "add_model"],
    "base.geometry": ["Preprocessing"],
    "networks.backbones": ["DclsRecipe"],
    "study.extension": ["ExtensionError", "load_extension"],
})  # fmt: skip
