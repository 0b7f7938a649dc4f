"""The explorer of notebook 03: one image as the study's models see it, with controls.

May import: figures, analyses, scores and the rooms below them.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "explained": ["Explainer", "View"],
    "explorer": ["Explorer", "explore"],
})  # fmt: skip
