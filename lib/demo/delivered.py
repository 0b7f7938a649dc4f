"""The embedded example's images as the ClickMe reader delivers them."""

from __future__ import annotations

import numpy as np
import simplejpeg
from tqdm import tqdm

from ..people.clickme import deliver_images
from ..people.stored.shards import encode_jpeg
from .scenes import make_scene

SEED = 20241
TRAINING, HELD_OUT = 0, 1  # the two splits
EMPTY_EVERY = 5  # every fifth training scene holds no creature
IMAGE_QUALITY = 85


def delivered(
    split: int, count: int, empty: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first scenes of a split: images, labels, and masks of the creatures.

    empty : whether some of the training scenes hold no creature
    """
    images, labels, shown = [], [], []
    for index in tqdm(range(count), desc="training images" if split == TRAINING else "held-out"):
        none = empty and split == TRAINING and index % EMPTY_EVERY == 0
        scene = make_scene(SEED, split, index, none)
        stored = simplejpeg.decode_jpeg(encode_jpeg(scene.image, IMAGE_QUALITY), fastdct=True)
        images.append(deliver_images(stored[None])[0])
        labels.append(scene.label)
        shown.append((scene.diagnosticity > 0)[2::4, 2::4])
    return np.stack(images), np.array(labels), np.stack(shown).astype(np.float32)
