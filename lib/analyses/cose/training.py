"""Train a network on a folder of classes, and save checkpoints that COSE compares it with.

The optimiser is stochastic gradient descent with momentum 0.9 and a learning rate that falls along
half a cosine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from ...base.files import write_atomically
from ...base.geometry import Preprocessing
from ...base.progress_bar import progress_bar
from ...networks.preprocessing import normalised
from ...networks.weights_files import WeightsError, read_weights
from ...people.image_folders import FolderImages, centre_crop
from ...people.labels import LabelledFolder

FINAL, EARLIER, STATE, HISTORY = "final.safetensors", "earlier", "training.pt", "history.csv"


@dataclass(frozen=True)
class Recipe:
    """The choices of a training. keep_every : epochs between checkpoints; the last is also saved"""

    epochs: int = 20
    batch: int = 32
    lr: float = 0.01
    weight_decay: float = 1e-4
    keep_every: int = 2
    seed: int = 0


def begin_with(network: nn.Module, path: Path) -> list[str]:
    """Load a file's weights into a network, except a last layer with other classes.

    Returns the names of the weights that were not loaded. Raises WeightsError if anything else
    does not fit."""
    state, own = read_weights(path), network.state_dict()
    head = {
        name
        for name, tensor in own.items()
        if name in state and tensor.shape != state[name].shape
        and tensor.shape[1:] == state[name].shape[1:]
    }  # fmt: skip
    try:
        unlike = network.load_state_dict(
            {name: t for name, t in state.items() if name not in head}, strict=False
        )
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit: {error}") from None
    misfits = sorted({*unlike.missing_keys, *unlike.unexpected_keys} - head)
    if misfits or len(head) > 2:
        raise WeightsError(f"{path} does not fit: {', '.join((misfits or sorted(head))[:5])}")
    return sorted(head)


def accuracy(network: nn.Module, held_out: LabelledFolder, geometry: Preprocessing) -> float:
    """Return the share of images that are classified correctly, 0-1."""
    device, right = next(network.parameters()).device, 0
    with torch.inference_mode():
        for image in held_out.images:
            pixels = torch.from_numpy(centre_crop(image.path, geometry).copy()).to(device)
            x = normalised(pixels.permute(2, 0, 1)[None] / 255, geometry, torch.contiguous_format)
            right += int(network(x).argmax()) == image.label
    return right / len(held_out.images)


def train(
    network: nn.Module,
    geometry: Preprocessing,
    images: FolderImages,
    labels: np.ndarray,
    recipe: Recipe,
    out: Path,
    facts: Mapping,
    held_out: LabelledFolder | None = None,
) -> pd.DataFrame:
    """Train a network on its device; continue if `out` holds a state of the same training.

    facts : what else determines the training; a folder with the state of another one is refused
    Writes `final.safetensors`, `earlier/e002.safetensors` and so on, and `history.csv`, which is
    also returned: `epoch, lr, loss, accuracy`. Raises ValueError.
    """
    asked = json.dumps(asdict(recipe) | dict(facts), sort_keys=True)
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay
    )
    device, rows = next(network.parameters()).device, []
    if (out / STATE).is_file():
        try:
            kept = torch.load(out / STATE, map_location=device, weights_only=True)
        except Exception as error:  # torch raises its own exceptions for a damaged file
            raise ValueError(
                f"{out / STATE} is damaged: delete it to train from the beginning ({error})"
            ) from error
        if kept["asked"] != asked:
            raise ValueError(f"{out} belongs to another training: choose another folder")
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        rows = kept["rows"]
    count = len(images)
    for epoch in range(1 + len(rows), 1 + recipe.epochs):
        lr = recipe.lr / 2 * (1 + math.cos(math.pi * (epoch - 1) / recipe.epochs))
        optimizer.param_groups[0]["lr"] = lr
        torch.manual_seed(recipe.seed + epoch)  # dropout is the same after resuming
        order = np.random.default_rng([recipe.seed, epoch]).permutation(count)
        parts = [order[start : start + recipe.batch] for start in range(0, count, recipe.batch)]
        parts = [part for part in parts if len(part) > 1]  # batch norm needs two images
        network.train()
        losses = []
        batches = zip(parts, images.batches(parts, recipe.seed, epoch), strict=True)
        for part, batch in progress_bar(batches, f"epoch {epoch}", len(parts), leave=False):
            x = normalised(batch.to(device), geometry, torch.contiguous_format)
            loss = F.cross_entropy(network(x), torch.from_numpy(labels[part]).to(device))
            if not loss.isfinite():
                raise ValueError(f"the loss of epoch {epoch} is not finite: try a smaller --lr")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        network.eval()
        right = accuracy(network, held_out, geometry) if held_out else math.nan
        rows = [*rows, [epoch, lr, float(np.mean(losses)), right]]
        tqdm.write(
            f"epoch {epoch}: loss {rows[-1][2]:.3f}" + f", accuracy {right:.3f}" * bool(held_out)
        )
        if epoch == recipe.epochs or epoch % recipe.keep_every == 0:
            last = epoch == recipe.epochs
            _save(network, out / FINAL if last else out / EARLIER / f"e{epoch:03d}.safetensors")
        with write_atomically(out / STATE) as partial:
            torch.save({"asked": asked, "network": network.state_dict(), "rows": rows,
                        "optimizer": optimizer.state_dict()}, partial)  # fmt: skip
    if not (out / FINAL).is_file():  # the training had ended, but the file was deleted
        _save(network, out / FINAL)
    history = pd.DataFrame(rows, columns=["epoch", "lr", "loss", "accuracy"])
    with write_atomically(out / HISTORY) as partial:
        history.to_csv(partial, index=False)
    return history


def _save(network: nn.Module, path: Path) -> None:
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    with write_atomically(path) as partial:
        save_file(state, partial)
