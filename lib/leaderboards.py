"""Door to the command `dcls-leaderboard`: merge runs into one leaderboard."""

from .commands.leaderboard import main

if __name__ == "__main__":
    raise SystemExit(main())
