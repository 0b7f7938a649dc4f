"""The embedded example: procedural images, simulated people, miniature models.

`python -m lib.demo` makes all of `data/demo/` from seeds. Nothing else in the
package imports this one; results made from it speak of the software only.

May import: every other room.
"""
