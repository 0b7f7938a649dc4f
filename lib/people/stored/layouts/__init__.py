"""Data sets of gaze as their authors distribute them: one row per data set, one file per reader.

May import: people, base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ....base.tables import Table
from ..viewing import COUNTS, LEAVE_OUT, LETTERBOX, Looked, Viewing
from . import (
    cat2000,
    coco,
    mit1003,
    osie,
    pysaliency_files,
    salicon,
    toronto,
)
from .reading import Note

__all__ = ["LAYOUTS", "Layout", "Note"]


@dataclass(frozen=True)
class Layout:
    """A data set of gaze.

    key     : its name for `--layout`
    label   : its name in results
    source  : its publication
    holds   : returns whether a folder contains it, judged by its files
    read    : returns the images that have fixations, and the problems, each with file and
              position, a `Note` if it stops nothing; raises StoredError for a problem that
              concerns all images
    viewing : the values that its authors, or most of its users, choose
    origin  : a hash of the user's file or plug-in that adds the row, "" for the rows here
    """

    key: str
    label: str
    source: str
    holds: Callable[[Path], bool]
    read: Callable[[Path], tuple[list[Looked], list[str]]]
    viewing: Viewing
    origin: str = ""


# The authors of each data set, or its users, make binary maps: all fixations have equal weight.
_COUNTED = Viewing(weigh=COUNTS, outside=LEAVE_OUT)
# 1680 x 1050 pixels over 54 x 35 degrees of visual angle are 31 x 30 pixels per degree.
_ON_SCREEN = replace(
    _COUNTED, sigma_degrees=1, pixels_per_degree=31, skip_first=1, screen=coco.SCREEN,
    placed=LETTERBOX,
)  # fmt: skip

LAYOUTS: Table[Layout] = Table(
    "layout",
    [
        Layout(
            "osie", "OSIE",
            "Xu, Jiang, Wang, Kankanhalli & Zhao, Predicting human gaze beyond pixels, "
            "Journal of Vision, 2014",
            osie.holds, osie.read,
            # the authors' script blurs by 24 pixels, which is one degree
            replace(_COUNTED, sigma_degrees=1, pixels_per_degree=24),
        ),
        Layout(
            "mit1003", "MIT1003",
            "Judd, Ehinger, Durand & Torralba, Learning to predict where humans look, ICCV, 2009",
            mit1003.holds, mit1003.read,
            # the authors skip the first fixation, where the cross was; a degree is 35 pixels
            replace(_COUNTED, sigma_degrees=1, pixels_per_degree=35, skip_first=1),
        ),
        Layout(
            "cat2000", "CAT2000",
            "Borji & Itti, CAT2000: a large scale fixation dataset for boosting saliency "
            "research, CVPR workshop, 2015",
            cat2000.holds, cat2000.read,
            # 1920 pixels over 45.5 degrees
            replace(_COUNTED, sigma_degrees=1, pixels_per_degree=42),
        ),
        Layout(
            "salicon", "SALICON",
            "Jiang, Huang, Duan & Zhao, SALICON: saliency in context, CVPR, 2015",
            salicon.holds, salicon.read,
            # the blur of the authors' interface
            replace(_COUNTED, sigma_pixels=19),
        ),
        Layout(
            "coco-search18", "COCO-Search18",
            "Chen, Yang, Ahn, Samaras, Hoai & Zelinsky, COCO-Search18 fixation dataset for "
            "predicting goal-directed attention control, Scientific Reports, 2021",
            coco.holds_search, coco.read_search, _ON_SCREEN,
        ),
        Layout(
            "coco-freeview", "COCO-FreeView",
            "Chen, Yang, Chakraborty, Mondal, Ahn, Samaras, Hoai & Zelinsky, Characterizing "
            "target-absent human attention, CVPR workshops, 2022",
            coco.holds_free, coco.read_free, _ON_SCREEN,
        ),
        Layout(
            "toronto", "Toronto",
            "Bruce & Tsotsos, Attention based on information maximization, Journal of Vision, 2007",
            toronto.holds, toronto.read, _COUNTED,
        ),
        Layout(
            "pysaliency", "pysaliency",
            "Kümmerer, pysaliency, https://github.com/matthias-k/pysaliency; the data set itself "
            "has a publication of its own",
            pysaliency_files.holds, pysaliency_files.read, _COUNTED,
        ),
    ],
)  # fmt: skip
