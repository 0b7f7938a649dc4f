"""Door to images and human maps: `from lib.clickme import ClickMe`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(f"{__package__}.people", submod_attrs={
    "protocols": ["PROTOCOLS"],
    "clickme": ["ClickMe", "ClickMeBatch", "deliver_images"],
})  # fmt: skip
