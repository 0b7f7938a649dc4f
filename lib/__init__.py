"""Do models look where people look? One room per stage; see docs/architecture.md.

The names below are the shortest way in; the files beside this one are doors to the rooms.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "maps.cam": ["cam_maps"],
    "networks.dcls": ["convert_to_dcls", "fold_dcls"],
    "networks.loading": ["load_model"],
    "scores.spearman": ["spearman_per_image"],
    "scores.study_scores": ["score_study"],
    "study.own_rows": ["add_method", "add_model"],
    "study.study": ["Study"],
})  # fmt: skip
