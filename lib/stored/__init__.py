"""Door to stored images and human maps, which are in `lib.people.stored`."""

from ..people.stored import *  # noqa: F403
