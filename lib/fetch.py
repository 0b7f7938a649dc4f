"""Door to the command `dcls-fetch`: download published weights."""

from .commands.fetch import main

if __name__ == "__main__":
    raise SystemExit(main())
