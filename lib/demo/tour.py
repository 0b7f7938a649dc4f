"""The guided tour's own model: `python -m lib.demo.tour` trains it, two minutes.

As the miniatures are trained, from `data/demo/tour/my_rows.py`, plain and with DCLS.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from lib.backbones import BACKBONES
from lib.demo.delivered import HELD_OUT, SEED, TRAINING, delivered
from lib.demo.scenes import CLASSES
from lib.demo.training import accuracy, train
from lib.extension import load_extension
from lib.models import save_weights
from lib.paths import DEMO

ROWS = DEMO / "tour" / "my_rows.py"
_PICTURES, _HELD_OUT = 1200, 240


def main() -> None:
    load_extension(ROWS)
    backbone = BACKBONES["smallnet"]
    pictures, labels, shown = delivered(TRAINING, _PICTURES)
    held_out, held_out_labels, _ = delivered(HELD_OUT, _HELD_OUT)
    for dcls, path in ((False, backbone.weights), (True, backbone.weights_dcls)):
        with tqdm(desc=f"{backbone.key}{' + DCLS' * dcls}", unit="step") as bar:

            def report(step: int, steps: int, loss: float, bar: tqdm = bar) -> None:
                bar.total = steps
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()

            network = train(
                backbone, dcls, pictures, labels, shown,
                num_classes=len(CLASSES), seed=SEED, report=report,
            )  # fmt: skip
        network.half().float()
        top1 = accuracy(network, backbone, held_out, held_out_labels)
        print(f"{path}: held-out top-1 {top1:.3f}")
        save_weights(network, Path(path), {"held_out_top1": f"{top1:.4f}"})


if __name__ == "__main__":
    main()
