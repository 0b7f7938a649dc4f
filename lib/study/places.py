"""Where a study's results are written: folders named after the choices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..base.fingerprint import fingerprint
from ..base.paths import FIGURES, OUTPUT
from ..people.stored.fit import CROP
from .choices import Choices


@dataclass(frozen=True)
class Places:
    """The folders of one study's results."""

    choices: Choices

    @property
    def name(self) -> str:
        """The name of the folders of results: the profile's key, "demo_subset" for less than all,
        "demo_whole" where long analyses take their whole sample.

        A quick look at two models therefore never replaces the whole study's figures, nor do
        results on other images, or on the same images read differently ("paper_gaze_1a2b" for a
        folder `gaze`). A chosen name replaces all of that.
        """
        name = self.choices.profile.key
        if self.choices.name:
            return f"{name}_{self.choices.name}"
        if images := self.choices.images:
            # With a hash, to distinguish folders of the same name in different places.
            place = re.sub(r"[^\w-]+", "_", Path(images).name)[:40]
            read = self.choices.read
            how = {"fit": read.fit, "gaze": [*read.gaze]} if read.gaze or read.fit != CROP else {}
            name += f"_{place}_{fingerprint({'images': images} | how)[:4]}"
        if extend := self.choices.extend:
            name += f"_{re.sub(r'[^a-zA-Z0-9_-]+', '_', Path(extend).stem)[:40]}"
        if self.choices.whole:
            name += "_whole"
        return name if self.choices.is_whole else f"{name}_subset"

    @property
    def figures(self) -> Path:
        return FIGURES / self.name

    @property
    def output(self) -> Path:
        """The folder of tables and executed notebooks."""
        return OUTPUT / self.name

    @property
    def tables(self) -> Path:
        return self.output / "tables"

    @property
    def scores(self) -> Path:
        """The folder of cached scores."""
        return self.cached("scores")

    def cached(self, analysis: str) -> Path:
        """Return the folder of an analysis's cached tables, named by what determines them."""
        return OUTPUT / self.choices.profile.key / analysis
