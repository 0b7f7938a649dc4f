"""How fast training images are read, beside a ResNet-50 on one core: `python tests/decoding.py FOLDER`.

It prints images per second and milliseconds of processor time per image, medians of several rounds
in which the ways take turns. Only the processor time means much while other programs run.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.people.image_folders import FolderImages, listed_images

SIDE, BATCH, ROUNDS = 224, 32, 3


def processor_seconds() -> float:
    both = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def main() -> None:
    torch.set_num_threads(1)
    paths = listed_images(Path(sys.argv[1]))
    order = np.array_split(np.arange(len(paths)), max(1, len(paths) // BATCH))
    network = timm.create_model("resnet50", pretrained=False).eval()
    x = torch.rand(BATCH, 3, SIDE, SIDE)

    def read(readers: int) -> int:
        return sum(len(b) for b in FolderImages(paths, SIDE, readers).batches(order, 0, 0))

    def threads(count: int) -> int:
        images = FolderImages(paths, SIDE)
        with ThreadPoolExecutor(count) as pool:
            return len(list(pool.map(lambda i: images[i, 0, 0], range(len(paths)))))

    @torch.inference_mode()
    def forward() -> int:
        return len(network(x))

    ways = {
        "the training's process": lambda: read(0), "1 reader": lambda: read(1),
        "2 readers": lambda: read(2), "1 thread": lambda: threads(1),
        "2 threads": lambda: threads(2), "ResNet-50's forward pass": forward,
    }  # fmt: skip
    found = {name: [] for name in ways}
    for way in (forward, lambda: read(0)):  # files and memory are warm afterwards
        way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began, used = time.perf_counter(), processor_seconds()
            images = way()
            took, used = time.perf_counter() - began, processor_seconds() - used
            found[name].append((images / took, 1000 * used / images))
    print(f"{len(paths)} images, medians of {ROUNDS} rounds")
    for name, rounds in found.items():
        speed, used = np.median(rounds, axis=0)
        print(f"{name:<26}{speed:6.0f} images/s{used:8.2f} ms of processor time per image")


if __name__ == "__main__":
    main()
