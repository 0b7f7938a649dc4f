"""Do models look where people look? One room per stage; see docs/architecture.md.

The names below are the shortest way in; the files beside this one are doors to the rooms.
"""

import sys
from itertools import pairwise
from pathlib import Path

# `python -m lib.…` searches the folder in which it is typed first, which may be a folder of
# somebody's images with a tqdm.py among them.
if (
    sys.argv[:1] == ["-m"]
    and any(
        a == "-m" and b.startswith(("lib.", "dcls_alignment.")) for a, b in pairwise(sys.orig_argv)
    )
    and not sys.flags.safe_path
    and Path(sys.path[0]) != Path(__file__).parents[1]
):
    del sys.path[0]

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "maps.cam": ["cam_maps"],
    "maps.live": ["live_maps"],
    "networks.dcls": ["convert_to_dcls", "fold_dcls"],
    "networks.loading": ["load_model"],
    "scores.in_memory": ["agreement"],
    "scores.leaderboard": ["leaderboard"],
    "scores.spearman": ["spearman_per_image"],
    "scores.study_scores": ["score_study"],
    "study.explaining": ["explain"],
    "study.own_rows": ["add_comparison", "add_method", "add_model"],
    "study.study": ["Study"],
})  # fmt: skip
