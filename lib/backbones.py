"""Door to the table of backbones: `from lib.backbones import BACKBONES, load_model`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__package__, submod_attrs={
    "networks.backbones": ["BACKBONES", "THE_EIGHT", "Backbone", "DclsRecipe", "variant_name"],
    "base.geometry": ["Preprocessing", "WHOLE"],
    "networks.loading": ["load_model"],
})  # fmt: skip
