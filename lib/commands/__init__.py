"""Command lines. Each reads its options and calls public functions of the other rooms.

May import: every other room.
"""
