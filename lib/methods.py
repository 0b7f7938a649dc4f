"""Door to the table of CAM methods: `from lib.methods import METHODS`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("lib.maps", submod_attrs={
    "methods": ["ALL_METHODS", "CamMethod", "METHODS", "PUBLISHED_METHODS", "grad_cam_variant"],
})  # fmt: skip
