"""A run's results as text: the results table, and one page with everything on it.

May import: figures' captions, scores, study, runner, base.
Public names: those below, imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "page": ["write_report"],
    "in_short": ["in_sentences"],
    "readable": ["as_html", "readable_leaderboard", "readable_table"],
    "result_table": ["results_table", "write_results"],
})  # fmt: skip
