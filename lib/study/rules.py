"""The rules by which results are judged, fixed before any result: thresholds, levels, counts.

Every verdict names the version of the rules that gave it. A change to any value changes the
version; raise `number` with it, and say in docs/statistics.md what changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..base.fingerprint import fingerprint


@dataclass(frozen=True)
class Rules:
    """Every threshold on which a decision rests.

    number     : raised by whoever changes a rule
    alpha      : false alarms that are allowed, in a family of comparisons together
    fewest_images : with fewer nothing is decided, see docs/statistics.md
    cautious_below : with fewer p counts with images that may have gone unseen
    fewest_for_cose : with fewer COSE, which is no mean over images, has no interval
    fewest_for_ceiling : with fewer images of two observers or more no ceiling is estimated
    least_ceiling : people who may agree by less have no ceiling: a score would be divided by
                 next to nothing
    smallest_effect : difference of scores below which it does not matter; `--smallest-effect`
    power      : with which `images_needed` finds an effect
    family     : backbones over which p values are corrected
    dcls_raises, threshold_raises : how many backbones of eight, models of sixteen must rise for
                 claims 1 and 3
    least_span : of scores between the strongest control and the ceiling; with less room no score
                 is rescaled to it
    height     : share of the other baselines' height above the strongest control below which maps
                 count as random-looking, for claim 2
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
        """Such as "1-3fa9c2": the number, and a digest of all values."""
        return f"{self.number}-{fingerprint(asdict(self))[:6]}"


RULES = Rules()
NOT_ASKED = "not asked"  # of a claim whose models were not chosen
