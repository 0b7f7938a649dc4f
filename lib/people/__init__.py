"""Images and where people looked at them: stores, human maps, and the protocols that read them.

May import: base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "clickme": ["ClickMe", "ClickMeBatch", "Fixated"],
    "labels": ["LabelledFolder", "LabelledImage", "labelled_images"],
    "listing": ["Listing"],
    "image_folders": ["FolderImages", "listed_images"],
    "images": ["read_image"],
    "protocols": ["DEFAULT_PROTOCOLS", "PROTOCOLS", "Protocol"],
})  # fmt: skip
