"""Heatmaps at the resolution of the image, from gradients and from partly hidden images.

May import: what maps may import.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "gradients": ["GuidedPath", "gaussian_blur"],
    "hidden": ["rise_masks"],
    "rectified": ["guided_gradient"],
})  # fmt: skip
