"""Tools that know nothing about the study: tables of rows, paths, safe writing of files, hashes.

May import: nothing of lib.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "versions": ["commit", "environment"],
    "files": ["write_atomically"],
    "fingerprint": ["sha256_of"],
    "geometry": ["DELIVERED_SIZE", "Preprocessing", "WHOLE"],
    "paths": ["DATA", "DEMO", "FIGURES", "NOTEBOOKS", "OUTPUT", "ROOT", "shown"],
    "tables": ["Table", "UnknownName", "unknown_name"],
    "words": ["clock", "in_lines", "in_words", "some_of"],
})  # fmt: skip
