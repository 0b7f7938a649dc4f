"""The rules by which results are judged, fixed before any result: thresholds, levels, counts.

Every verdict names the version of the rules that gave it. A change to any value changes the
version; whoever changes one raises `number`, and states the change in docs/statistics.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..base.fingerprint import fingerprint


@dataclass(frozen=True)
class Rules:
    """Every threshold on which a decision rests.

    number     : the version, to be raised with every change
    alpha      : the allowed rate of false alarms in a family of comparisons together
    fewest_images : with fewer, nothing is decided, see docs/statistics.md
    cautious_below : with fewer, p takes into account images that may have been missed
    fewest_for_cose : with fewer, COSE has no interval, because it is not a mean over images
    fewest_for_ceiling : with fewer images of two or more observers, no ceiling is estimated
    least_ceiling : people who may agree by less have no ceiling: a score would be divided by
                 almost nothing
    smallest_effect : a difference of scores below this does not matter; `--smallest-effect`
    power      : the power for which `images_needed` is computed
    family     : backbones over which p values are corrected
    dcls_raises, threshold_raises : how many of eight backbones, and of sixteen models, must rise
                 for claims 1 and 3
    least_span : the smallest difference between the strongest control and the ceiling at which
                 scores are rescaled to it
    height     : for claim 2: heatmaps look random if their score above the strongest control is
                 less than this share of the other baselines'
    """

    number: int = 1
    alpha: float = 0.05
    fewest_images: int = 50
    cautious_below: int = 100
    fewest_for_cose: int = 12
    fewest_for_ceiling: int = 20
    least_ceiling: float = 0.1
    smallest_effect: float = 0.02
    power: float = 0.8
    family: int = 8
    dcls_raises: int = 7
    threshold_raises: int = 14
    least_span: float = 0.1
    height: float = 0.5

    @property
    def version(self) -> str:
        """The version, such as "1-3fa9c2": the number, and a digest of all values."""
        return f"{self.number}-{fingerprint(asdict(self))[:6]}"


RULES = Rules()
NOT_ASKED = "not asked"  # the verdict on a claim whose models were not chosen
