"""Images and what people looked at: stores, human maps, the protocols that read them.

May import: base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "clickme": ["ClickMe", "ClickMeBatch", "Fixated"],
    "labels": ["LabelledFolder", "LabelledPicture", "labelled_pictures"],
    "listing": ["Listing"],
    "picture_folders": ["FolderPictures", "listed_pictures"],
    "pictures": ["read_picture"],
    "protocols": ["DEFAULT_PROTOCOLS", "PROTOCOLS", "Protocol"],
})  # fmt: skip
