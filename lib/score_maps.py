"""Door to the command `dcls-score-maps`: score heatmaps made elsewhere."""

from .commands.score_maps import main

if __name__ == "__main__":
    raise SystemExit(main())
