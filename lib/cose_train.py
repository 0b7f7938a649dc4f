"""Door to the command `dcls-cose-train`: a network and its earlier selves, for COSE."""

from .commands.cose_train import main

if __name__ == "__main__":
    raise SystemExit(main())
