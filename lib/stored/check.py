"""Door: `from lib.stored.check import check`, and `dcls-check FOLDER`."""

from ..commands.check_images import main
from ..people.stored.check import Found, check, told

__all__ = ["Found", "check", "told"]

if __name__ == "__main__":
    raise SystemExit(main())
