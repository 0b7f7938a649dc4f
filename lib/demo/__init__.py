"""The embedded example: procedural images, simulated people, miniature models.

`python -m lib.demo` makes all of `data/demo/` from seeds. No other room imports this one. Results
from the example show that the software works, and nothing about DCLS.

May import: every other room.
"""
