"""Make the complete embedded example from seeds: `python -m lib.demo`.

It writes below `data/demo/`: the held-out shard in ClickMe's format, the paintings of each
simulated player, the class names, and the weights of the sixteen miniatures, from the end of
training and from earlier. On two CPU cores the images take about a minute and the models about
forty minutes. Images and paintings are the same on every machine; weights may differ by the order
of floating-point sums.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ..base.paths import DEMO
from ..networks.backbones import BACKBONES, THE_EIGHT, variant_name
from ..networks.loading import demo_weights_path, save_weights
from ..people.stored.shards import Record, encode_jpeg, write_observers, write_shard
from .delivered import HELD_OUT, IMAGE_QUALITY, SEED, TRAINING, delivered
from .players import human_map, painted
from .scenes import CLASSES, Scene, make_scene
from .training import accuracy, shown_steps, train

TRAINING_IMAGES, HELD_OUT_IMAGES = 2800, 240
MAP_QUALITY = 90
REQUIRED_ACCURACY = 0.9
EARLIER = (0.1, 0.3)  # shares of the training after which networks are saved, for COSE


def as_record(scene: Scene, index: int) -> Record:
    people = human_map(scene, SEED, index)
    return Record(
        encode_jpeg(scene.image, IMAGE_QUALITY), encode_jpeg(people, MAP_QUALITY), scene.label
    )


def earlier_weights_path(variant: str, share: float) -> Path:
    name = f"{100 * share:02.0f}-percent.safetensors"
    return DEMO / "checkpoints" / "training" / variant / name


def make_held_out_shard(path: Path) -> None:
    numbers = tqdm(range(HELD_OUT_IMAGES), desc="held-out images and simulated people")
    write_shard(path, (as_record(make_scene(SEED, HELD_OUT, i), i) for i in numbers))
    (DEMO / "classes.txt").write_text("".join(f"{c.name}\n" for c in CLASSES))


def make_observers(shard: Path) -> None:
    """Write the paintings of each player behind the shard's human maps."""
    numbers = tqdm(range(HELD_OUT_IMAGES), desc="simulated people")
    masks = (painted(make_scene(SEED, HELD_OUT, i), SEED, i) for i in numbers)
    write_observers(shard, masks, side=64)  # small, for the size of the repository


def make_models(keys: list[str]) -> None:
    """Train the miniatures, round to float16, check accuracy on held-out images, and save."""
    images, labels, shown = delivered(TRAINING, TRAINING_IMAGES)
    held_out, held_out_labels, _ = delivered(HELD_OUT, HELD_OUT_IMAGES)
    short: list[str] = []
    for backbone in [b for b in BACKBONES.select(keys) if b in THE_EIGHT]:
        for dcls in (False, True):
            started = time.monotonic()
            name = variant_name(backbone.key, dcls)
            seed = SEED + list(BACKBONES).index(backbone.key)
            with shown_steps(name) as report:

                def keep(step: int, steps: int, network: torch.nn.Module, name: str = name) -> None:
                    for share in (s for s in EARLIER if step == round(s * steps)):
                        path = earlier_weights_path(name, share)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        save_weights(network, path, {"step": f"{step} of {steps}"})

                network = train(
                    backbone, dcls, images, labels, shown,
                    num_classes=len(CLASSES), seed=seed, report=report, keep=keep,
                )  # fmt: skip
            network.half().float()
            top1 = accuracy(network, backbone, held_out, held_out_labels)
            print(f"{name}: held-out top-1 {top1:.3f} in {time.monotonic() - started:.0f} s")
            if top1 < REQUIRED_ACCURACY:
                short.append(f"{name} ({top1:.3f})")
                continue
            facts = {"num_classes": len(CLASSES), "seed": seed, "held_out_top1": f"{top1:.4f}"}
            path = demo_weights_path(backbone.key, dcls)
            save_weights(network, path, {k: str(v) for k, v in facts.items()})
    if short:
        raise SystemExit(
            f"models with a top-1 below {REQUIRED_ACCURACY} were not saved: {', '.join(short)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.demo", description=__doc__)
    parser.add_argument(
        "--only", choices=("images", "observers", "models"),
        help="make only one part; images includes the observers",
    )  # fmt: skip
    parser.add_argument("--models", nargs="*", default=[], help="train only these backbones")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True, warn_only=True)
    shard = DEMO / "clickme" / "val" / "val-0.tfrecords"
    if options.only in (None, "images"):
        make_held_out_shard(shard)
    if options.only != "models":
        make_observers(shard)
    if options.only in (None, "models"):
        make_models(options.models)


if __name__ == "__main__":
    main()
