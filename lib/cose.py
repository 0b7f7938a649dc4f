"""Door to the command `dcls-cose`: COSE on a folder of images."""

from .commands.cose import main

if __name__ == "__main__":
    raise SystemExit(main())
