"""The results table as text: notebooks and the report show it, without needing torch."""

from __future__ import annotations

import pandas as pd

from lib.study.profiles import DEMO_RECIPE

_READABLE = {
    "method": "Method",
    "backbone": "Backbone",
    "protocol": "Protocol",
    "recipe": "Trained by",
    "recipe_dcls": "Trained by, with DCLS",
    "params_M": "Params (M)",
    "params_M_dcls": "Params with DCLS",
    "top1": "Top-1 (%)",
    "top1_dcls": "Top-1 with DCLS",
    "score": "Score",
    "score_dcls": "Score with DCLS",
    "entered": "Published score, as entered",
    "entered_dcls": "Published, with DCLS, as entered",
    "gain": "Difference [95 %]",
    "p_holm": "p (Holm)",
    "n_paired": "n",
    "excluded": "Invalid maps (without, with)",
}
_ENTERED = ["entered", "entered_dcls"]


def _p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _count(n: object) -> str:
    return "–" if pd.isna(n) else f"{n:.0f}"


def readable_table(results: pd.DataFrame) -> pd.DataFrame:
    """The results table as a reader wants it: text, rounded, with intervals."""

    def rounded(column: str, digits: int, scale: float = 1.0) -> pd.Series:
        return (results[column] * scale).map(f"{{:.{digits}f}}".format)

    few = results.params_M.max() < 10
    text = results.assign(
        params_M=rounded("params_M", 3 if few else 1),
        params_M_dcls=rounded("params_M_dcls", 3 if few else 1),
        top1=rounded("top1", 1, 100),
        top1_dcls=rounded("top1_dcls", 1, 100),
        score=rounded("score", 3),
        score_dcls=rounded("score_dcls", 3),
        entered=rounded("entered", 3),
        entered_dcls=rounded("entered_dcls", 3),
        gain=[
            f"{r.difference:+.3f} [{r.difference_low:+.3f}, {r.difference_high:+.3f}]".replace(
                "[+nan, +nan]", "[–]"
            )
            for r in results.itertuples()
        ],
        p_holm=results.p_holm.map(_p_value),
        n_paired=[_count(n) for n in results.n_paired],
        excluded=[
            f"{_count(without)}, {_count(with_dcls)}"
            for without, with_dcls in zip(results.invalid, results.invalid_dcls, strict=True)
        ],
    )
    unused = [] if results[["entered", "entered_dcls"]].notna().any(axis=None) else _ENTERED
    if results.recipe.eq(DEMO_RECIPE).all():
        unused = [*unused, "recipe", "recipe_dcls"]
    text = text.replace(to_replace=r"^\+?nan( \[–\])?$", value="–", regex=True)
    return text[[c for c in _READABLE if c not in unused]].rename(columns=_READABLE)
