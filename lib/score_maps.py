"""Door to the command `python -m lib.score_maps`: score heatmaps made elsewhere."""

from lib.commands.score_maps import main

if __name__ == "__main__":
    raise SystemExit(main())
