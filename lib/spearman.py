"""Door to the rank correlation: `from lib.spearman import spearman_per_image`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(f"{__package__}.scores", submod_attrs={
    "spearman": ["Correlations", "Ranks", "between_ranks", "correlate", "partial_correlation",
        "rank_maps", "spearman_per_image"],
})  # fmt: skip
