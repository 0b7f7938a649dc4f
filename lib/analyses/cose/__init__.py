"""COSE: whether heatmaps stay the same with the answer, and change with it.

May import: what analyses may import.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "changes": ["KINDS", "change_labels"],
    "pairs": ["followed"],
    "results": ["by_change", "compare_cose", "conditions", "summarise_cose"],
    "study": ["COSE_METHODS", "score_cose"],
})  # fmt: skip
