"""Analyses beyond the score: faithfulness, methods, sanity, the threshold; `cose/`, `lcam/`.

May import: scores and the rooms below it.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "conversion": ["fold_difference", "learned_kernels", "parameter_table", "receptive_fields"],
    "faithfulness": ["define_measures", "package_metrics", "score_faithfulness", "score_folder",
        "summarise_package_metrics"],
    "method_study": ["alignment", "concepts_of", "contrasted", "estimate", "map_grid",
        "method_costs", "quick", "rank_methods", "same_order", "score_contrasted",
        "shown_backbones", "summarise_faithfulness"],
    "sanity": ["compare_targets", "score_forgetting", "summarise_forgetting"],
    "taken_apart": ["score_family", "sweep", "two_by_two"],
})  # fmt: skip
