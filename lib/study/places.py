"""Where a study's results go: folders named by what was chosen."""

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
        """Names the folders of results: the profile's key, "demo_subset" for less than all,
        "demo_whole" where long analyses take their whole sample.

        So a quick look at two models never replaces the whole study's figures, nor do
        results on other images, or on the same read otherwise ("paper_gaze_1a2b" for a folder
        `gaze`). A name that is chosen takes the place of all that.
        """
        name = self.choices.profile.key
        if self.choices.name:
            return f"{name}_{self.choices.name}"
        if images := self.choices.images:
            # With a hash, for folders of one name in different places.
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
        """Tables and executed notebooks."""
        return OUTPUT / self.name

    @property
    def tables(self) -> Path:
        return self.output / "tables"

    @property
    def scores(self) -> Path:
        """Kept scores, named by what determines them: whole and subset runs share them."""
        return OUTPUT / self.choices.profile.key / "scores"
