"""The published reading of ClickMe, written with TensorFlow's own operations.

    python tests/tensorflow/reading.py     writes golden.npz from the demo shard

Runs in an environment of its own (`make test-tensorflow`); the study never imports
TensorFlow. `golden.npz` holds every record's label and, at 200 fixed places, the
image's and the human map's values; `tests/people/test_clickme.py` compares the
study's reader with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SHARD = ROOT / "data" / "demo" / "clickme" / "val" / "val-0.tfrecords"
GOLDEN = Path(__file__).with_name("golden.npz")


def places() -> np.ndarray:
    """(2, 200) rows and columns, the borders and corners among them."""
    chosen = np.random.default_rng(0).integers(0, 224, (2, 200))
    chosen[:, :4] = [[0, 0, 223, 223], [0, 223, 0, 223]]
    chosen[0, 4:12], chosen[1, 12:20] = 0, 223
    return chosen


def blur_kernel():
    import tensorflow as tf

    size, sigma = 10, 10
    columns = tf.range(-(size - 1) // 2, (size - 1) // 2 + 1)
    rows = tf.range((size - 1) // 2, -(size - 1) // 2 - 1, -1)
    x, y = tf.meshgrid(columns, rows)
    weights = tf.exp(-(x**2 + y**2) / (2 * sigma**2))
    return tf.cast(weights / tf.reduce_sum(weights), tf.float32)[:, :, None, None]


def read_with_tensorflow(shard: Path = SHARD) -> dict[str, np.ndarray]:
    """Whole images (uint8), human maps (float32) and labels, in order."""
    import tensorflow as tf

    kernel = blur_kernel()
    described = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "heatmap": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    images, maps, labels = [], [], []
    for raw in tf.data.TFRecordDataset([str(shard)]):
        example = tf.io.parse_single_example(raw, described)
        image = tf.cast(tf.io.decode_jpeg(example["image"]), tf.float32)
        image = tf.image.resize(image, (224, 224), method="bilinear")
        heatmap = tf.cast(tf.io.decode_jpeg(example["heatmap"]), tf.float32)
        heatmap = tf.image.resize(heatmap, (64, 64), method="bilinear")
        heatmap = tf.nn.conv2d(heatmap[None], kernel, 1, "SAME")[0]
        heatmap = tf.image.resize(heatmap, (224, 224), method="bilinear")
        images.append(tf.cast(image, tf.uint8).numpy())
        maps.append(heatmap.numpy()[..., 0])
        labels.append(int(example["label"]))
    return {"images": np.stack(images), "maps": np.stack(maps), "labels": np.array(labels)}


def sampled(read: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows, columns = places()
    return {
        "images": read["images"][:, rows, columns],
        "maps": read["maps"][:, rows, columns],
        "labels": read["labels"],
    }


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **sampled(read_with_tensorflow()))
    print(f"wrote {GOLDEN}")
