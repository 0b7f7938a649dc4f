"""Attention maps made by modules that are trained beside a frozen model: L-CAM and TAME.

May import: maps, networks, people, base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "attention": ["ATTENTIONS", "AttentionError", "load_attention", "save_attention"],
    "training": ["RECIPES", "Recipe", "Trained", "train_attention"],
})  # fmt: skip
