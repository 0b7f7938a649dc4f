"""Faithfulness: the effect of hiding, showing and removing pixels that a heatmap points at.

May import: what analyses may import.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "areas": ["STEPS", "curves"],
    "definitions": ["FAITHFULNESS", "LET_THROUGH", "SHARES", "FaithfulnessMeasure",
        "define_measures", "ends_of"],
    "drop": ["average_drop", "in_order", "increase_in_confidence", "kept_share"],
    "imputing": ["imputed"],
    "package": ["PERCENTILES", "package_metrics", "summarise_package_metrics"],
    "removal": ["NOISE_UNITS", "ROAD_SHARES", "road", "road_noise"],
    "study": ["COLUMNS", "SEED", "measured", "score_faithfulness", "score_folder"],
})  # fmt: skip
