"""Door to the command `dcls-lcam`: train learned attention maps."""

from .commands.lcam import main

if __name__ == "__main__":
    raise SystemExit(main())
