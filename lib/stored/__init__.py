"""Door to stored images and human maps, which are in `lib.people.stored`."""

from lib.people.stored import *  # noqa: F403
