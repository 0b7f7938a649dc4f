"""Make the guided tour's data, `data/demo/tour`: `python -m lib.demo.tour` takes some minutes.

They are a small network from the tour's `tour_rows.py`, plain and with DCLS, trained like the
miniatures; images with simulated gaze points; and heatmaps that no network made.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ..base.paths import DEMO
from ..networks.backbones import BACKBONES
from ..networks.loading import save_weights
from ..people.stored.shards import encode_jpeg
from ..study.extension import load_extension
from .delivered import HELD_OUT, SEED, TRAINING, delivered
from .scenes import CLASSES, SIDE, Scene, make_scene
from .training import accuracy, shown_steps, train

TOUR = DEMO / "tour"
ROWS = TOUR / "tour_rows.py"
_SPLIT = 3  # the tour's own split of the scenes, which shares no image with the others
_GAZED_AT, _OBSERVERS, _SIGMA = 8, 5, 20
_QUALITY = 70  # of the JPEG images, so that the folder stays small
_TRAINED_ON, _HELD_OUT = 1200, 240


def train_models() -> None:
    """Train the tour's own network, plain and with DCLS."""
    load_extension(ROWS)
    backbone = BACKBONES["smallnet"]
    images, labels, shown = delivered(TRAINING, _TRAINED_ON)
    held_out, held_out_labels, _ = delivered(HELD_OUT, _HELD_OUT)
    for dcls, path in ((False, backbone.weights), (True, backbone.weights_dcls)):
        with shown_steps(f"{backbone.key}{' + DCLS' * dcls}") as report:
            network = train(
                backbone, dcls, images, labels, shown,
                num_classes=len(CLASSES), seed=SEED, report=report,
            )  # fmt: skip
        network.half().float()
        top1 = accuracy(network, backbone, held_out, held_out_labels)
        print(f"{path}: held-out top-1 {top1:.3f}")
        save_weights(network, Path(path), {"held_out_top1": f"{top1:.4f}"})


def _gaze(scene: Scene, index: int) -> list[tuple[float, float, int, str]]:
    """Simulated fixations: x, y in pixels, duration in milliseconds, observer."""
    rng = np.random.default_rng([SEED, _SPLIT, index])
    chances = (scene.diagnosticity + 0.01 * (scene.diagnosticity > 0)).ravel().astype(np.float64)
    found = []
    for observer in range(_OBSERVERS):
        first = np.array([SIDE / 2, SIDE / 2]) + rng.normal(0, 6, 2)  # everyone begins there
        places = [first] + [
            np.array(divmod(rng.choice(chances.size, p=chances / chances.sum()), SIDE))
            + rng.normal(0, 8, 2)
            for _ in range(rng.integers(4, 8))
        ]
        for y, x in np.clip(places, 0.5, SIDE - 0.5):
            found.append((round(x, 1), round(y, 1), int(rng.gamma(4, 60)), f"p{observer + 1}"))
    return found


def write_gaze() -> None:
    """Write images, their classes, gaze points, and the blur that turns points into maps."""
    folder = TOUR / "gaze"
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows, points, maps = [], [], {}
    for index in range(_GAZED_AT):
        scene, name = make_scene(SEED, _SPLIT, index), f"pictures/{index:02}.jpg"
        (folder / name).write_bytes(encode_jpeg(scene.image, _QUALITY))
        rows.append((name, scene.label))
        points += [(name, *point) for point in _gaze(scene, index)]
        maps[name] = _saturation(scene.image)
    _write(folder / "labels.csv", ("image", "label"), rows)
    _write(folder / "gaze.csv", ("file", "x", "y", "duration", "observer"), points)
    (folder / "gaze.json").write_text(json.dumps({"sigma_pixels": _SIGMA}) + "\n")
    np.savez_compressed(TOUR / "saturation.npz", **maps)


def _saturation(image: np.ndarray) -> np.ndarray:
    """How colourful each of 16 x 16 cells is: an example of a heatmap without a network."""
    high, low = image.max(axis=2).astype(float), image.min(axis=2).astype(float)
    cells = ((high - low) / np.maximum(high, 1)).reshape(16, SIDE // 16, 16, SIDE // 16)
    return cells.mean(axis=(1, 3)).astype(np.float32)


def _write(path: Path, names: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def main() -> None:
    write_gaze()
    train_models()


if __name__ == "__main__":
    main()
