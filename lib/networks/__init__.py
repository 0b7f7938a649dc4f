"""Backbones and their weights: the table, loading, conversion to DCLS, fast forms.

May import: base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "backbones": ["BACKBONES", "Backbone", "DclsRecipe", "THE_EIGHT", "variant_name"],
    "batch_size": ["BatchSize"],
    "building": ["build_network", "count_parameters", "parameter_counts"],
    "checkpoints": ["MissingWeights", "WeightsError"],
    "dcls": ["convert_to_dcls", "dcls_layers", "fold_dcls", "replaced_layers"],
    "layers": ["found_layer"],
    "loading": ["load_model"],
    "models": ["Provenance", "StudyModel"],
    "precision": ["PRECISIONS"],
    "sources": ["SHARDS", "WEIGHTS"],
    "split": ["split_at"],
    "taps": ["Around", "Halves", "Opened"],
})  # fmt: skip
