"""Door to the command `dcls-average-drop`: faithfulness on a folder of images."""

from .commands.average_drop import main

if __name__ == "__main__":
    raise SystemExit(main())
