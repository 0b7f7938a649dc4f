"""Training of learned attention maps: any row of `ATTENTIONS` beside any frozen network.

Everything random (weights, the order of images, crops, flips) depends on the seed and on the
progress of training, never on the state of a generator. On a CPU, a run that was stopped and
resumed therefore does exactly what an uninterrupted run does.

Several processes split each batch and add their gradients (`lib.maps.learned.processes`), so their
number changes the numbers only by rounding.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ...base.files import write_atomically
from ...base.paths import shown
from ...base.progress_bar import progress_bar
from ...base.stored_json import parse_json
from ...base.tables import Table, unknown_name
from ...networks.taps import frozen
from ..forward import evaluating
from ..methods import METHODS, min_max
from .attention import (
    ATTENTIONS,
    MASKINGS,
    Attention,
    AttentionError,
    LCam,
    attention_loss,
    layers_of,
    of_classes,
    read_by,
)
from .processes import ALONE, Processes, share_norms, told

# Raised when the same choices would result in another module.
TRAINING = 1
_MEASURED_ON = 4  # batches that measure the mean and variance of features
_READ_EVERY = 16  # steps between reads of losses from a GPU, which must finish its work for one
TERMS = ("loss", "cross_entropy", "area", "variation", "same_class")
HISTORY = ("step", "epoch", "lr", *TERMS)
_TERMS = ("total", *TERMS[1:])  # as `Loss` calls them
EPOCHS = ("step", "epoch", "processes", "images_per_second", *TERMS, "average_drop")


class Images(Protocol):
    """Images to train on."""

    def __len__(self) -> int: ...

    def batches(
        self, indices: Sequence[np.ndarray], seed: int, epoch: int | None, device: torch.device
    ) -> Iterator[Tensor]:
        """Yield (image, 3, side, side) in 0-1 on a device for each list of indices; seed, epoch and
        index determine crops and flips. The epoch None asks for centres, not flipped."""

    def spread(self, count: int) -> np.ndarray:
        """Return indices of `count` representative images, or of all if there are fewer."""

    def some(self, count: int) -> Tensor:
        """Return (image, 3, side, side) in 0-1 at `spread(count)`, without random changes."""

    def facts(self) -> dict:
        """Return what identifies these images, as JSON values."""


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum; the learning rate falls epoch by epoch or follows one cycle.

    lr         : learning rate at the start, or the peak of one cycle
    bias_lr    : learning rate of biases, as a multiple of `lr`
    decay      : factor on the rate at the start of each epoch in `decays`, counted from 0
    one_cycle  : use OneCycleLR over all steps instead
    standardised : give L-CAM every channel of the features at mean 0 and variance 1, measured on
                 representative images, so that one learning rate suits every network; the measured
                 values are folded into the trained convolution
    start      : initial bias of the maps, so that masks begin at its sigmoid; None keeps PyTorch's
    """

    key: str
    lr: float
    epochs: int
    bias_lr: float = 1.0
    decay: float = 1.0
    decays: range = range(0)
    one_cycle: bool = False
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    standardised: bool = False
    start: float | None = None

    def lr_at(self, step: int, steps_an_epoch: int) -> float:
        """The learning rate of a step, counted from 0, if it falls epoch by epoch."""
        epoch = step // steps_an_epoch
        return self.lr * self.decay ** sum(e <= epoch for e in self.decays)


RECIPES: Table[Recipe] = Table(
    "recipe",
    [
        Recipe("resnet50", lr=1e-4, bias_lr=2.0, decay=0.95, decays=range(1, 13), epochs=26),
        Recipe("vgg16", lr=1e-2, decay=0.75, decays=range(1, 8), epochs=8),
        # Batch size and schedule are TAME's; peak and number of epochs are ours.
        Recipe("tame", lr=1e-2, one_cycle=True, batch=32, epochs=8),
        # Ours, for networks without a published recipe: one for all, because features are
        # standardised. In one epoch of ImageNet a class sees as many images as in three demo runs.
        Recipe("standardised", lr=0.5, one_cycle=True, epochs=4, weight_decay=0.0,
               standardised=True, start=3.0),
        # For the embedded example with few images and miniatures; chosen by trial.
        Recipe("demo", lr=2.0, one_cycle=True, batch=32, epochs=30, weight_decay=0.0,
               standardised=True, start=3.0),
    ],
)  # fmt: skip


@dataclass
class Trained:
    """A trained module and the history of its training.

    history : one row per step, columns HISTORY
    epochs  : one row per epoch, columns EPOCHS: the number of processes and the images per second
              since the epoch began or was resumed; then means over the held-out images, NaN without
              any
    looks   : {step: (image, h, w) maps of the watched images, scaled to 0-1}
    """

    attention: nn.Module
    history: pd.DataFrame
    epochs: pd.DataFrame
    looks: dict[int, Tensor] = field(default_factory=dict)


class Standardised(nn.Module):
    """An L-CAM that receives (features - mean) * scale, channel by channel."""

    def __init__(self, attention: LCam, features: Iterable[Tensor]):
        super().__init__()
        self.attention = attention
        seen = torch.cat([f.transpose(0, 1).flatten(1) for f in features], dim=1).double()
        std, mean = torch.std_mean(seen, dim=1, correction=0)
        typical = std.square().mean().sqrt()
        self.register_buffer("mean", mean.float())
        # A channel that hardly ever changes would become pure noise.
        self.register_buffer("scale", (1 / std.clamp(min=1e-3 * typical)).float())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        mean, scale = (v[:, None, None] for v in (self.mean, self.scale))
        return self.attention([(features[-1] - mean) * scale])

    @torch.no_grad()
    def folded(self) -> LCam:
        """The same function as a plain L-CAM."""
        maps = self.attention.maps
        plain = LCam([maps.in_channels], maps.out_channels).to(maps.weight.device)
        plain.maps.weight.copy_(maps.weight * self.scale[:, None, None])
        plain.maps.bias.copy_(maps.bias - plain.maps.weight.flatten(1) @ self.mean)
        return plain


def new_attention(row: Attention, model: nn.Module, side: int, seed: int) -> nn.Module:
    """Return an untrained module that fits a network.

    side : side of the network's input images
    """
    with torch.inference_mode(), evaluating(model):
        x = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
        features = layers_of(row, model, x)
        classes = model(x).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return row.module([f.shape[1] for f in features], classes).to(x.device)


def train_attention(
    model: nn.Module,
    key: str,
    images: Images,
    recipe: Recipe,
    side: int,
    *,
    masking: str = MASKINGS[0],
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    save_every: int = 500,
    look_at: Tensor | None = None,
    looks: int = 6,
    on_look: Callable[[pd.DataFrame, Mapping[int, Tensor]], None] = lambda history, looks: None,
    held_out: Images | None = None,
    processes: Processes = ALONE,
    facts: dict | None = None,
    report: Callable[[str], None] = tqdm.write,
) -> Trained:
    """Train one row of `ATTENTIONS` beside a frozen network.

    model      : as for `attention_loss`; it is in eval mode during training, and its parameters
                 neither change nor keep a gradient
    side       : side of the network's input images
    masking    : one of MASKINGS, for area and variation
    checkpoint : a file to save to after every `save_every` steps and after every epoch. Without
                 `resume` it must not exist; with `resume` training continues from it
    look_at    : (image, 3, side, side) in 0-1: images whose maps are recorded at `looks` steps,
                 early ones closer together
    on_look    : called after each of these steps, with history and looks so far, as in `Trained`
    held_out   : images that measure the module after each epoch, with `--masking diagonal`'s loss
                 and the average drop of its maps
    processes  : those that train together; each calls this function alike. They split every batch,
                 and process 0 alone saves, looks and reports
    facts      : what else determines the result. A checkpoint with other facts is refused, except
                 for "training", a fingerprint of all
    Raises AttentionError if a checkpoint is in the way, damaged or from another training, or if
    loss or weights become NaN or infinite; ValueError for unsuitable choices or images.
    """
    if masking not in MASKINGS:
        raise unknown_name("masking", masking, MASKINGS)
    if len(images) < 2:
        raise ValueError(f"training needs at least two images, got {len(images)}")
    run = Run(
        model, ATTENTIONS[key], images, recipe, side, masking, seed, held_out, processes
    )  # fmt: skip
    run.facts |= facts or {}

    def found() -> tuple[dict, dict] | None:
        if checkpoint is None or not checkpoint.exists():
            return None
        if not resume:
            raise AttentionError(
                f"{shown(checkpoint)} belongs to an unfinished training: continue it with resume "
                "(--resume), or delete it"
            )
        return _read(checkpoint)

    before = processes.agreed(found)  # so that no process finds another state than the others
    if before is not None:
        run.load(checkpoint, *before)
        if processes.writes:
            report(f"resumed at step {run.step} of {run.steps}: {shown(checkpoint)}")
    at = look_steps(run.steps, looks) if look_at is not None and processes.writes else set()
    with evaluating(model), frozen(model), progress_bar(
        total=run.steps, initial=run.step, desc=METHODS[key].label, unit="step", leave=False,
        disable=not processes.writes,
    ) as bar:  # fmt: skip

        def look() -> None:
            run.look(look_at)
            on_look(run.history(), run.looks)

        if 0 in at and run.step == 0:
            look()
        for loss in run.go():
            speed = f"{run.images_per_second():.0f} images/s"
            bar.set_postfix_str(f"loss={loss:.3f}, {speed}", refresh=False)
            bar.update()
            if run.step in at:
                look()
            whole_epoch = run.step % run.steps_an_epoch == 0
            if whole_epoch:
                run.end_epoch()
            saves = checkpoint is not None and processes.writes
            if saves and (run.step % save_every == 0 or whole_epoch):
                run.save(checkpoint)
    run.check()
    attention = run.attention
    if isinstance(attention, Standardised):
        attention = attention.folded()
    return Trained(
        attention.eval().requires_grad_(False), run.history(),
        pd.DataFrame(run.epochs, columns=EPOCHS), run.looks,
    )  # fmt: skip


def look_steps(steps: int, looks: int) -> set[int]:
    """The steps after which maps are recorded: 0, the last, and some between, early ones closer
    together."""
    if looks < 2:
        return {steps}
    return {0, *(int(s) for s in np.geomspace(steps, 1, looks - 1).round())}


class Run:
    """One training: its state, one step, saving and loading."""

    def __init__(
        self, model: nn.Module, row: Attention, images: Images, recipe: Recipe, side: int,
        masking: str, seed: int, held_out: Images | None = None, processes: Processes = ALONE,
    ):  # fmt: skip
        self.model, self.row, self.images, self.recipe = model, row, images, recipe
        self.masking, self.seed = masking, seed
        self.held_out, self.processes = held_out, processes
        self.batch = min(recipe.batch, len(images))
        if self.batch < processes.size:
            raise ValueError(
                f"a batch of {self.batch} images cannot be split among {processes.size} processes: "
                "use fewer --devices, or a larger --batch-size"
            )
        self.steps_an_epoch = len(images) // self.batch  # the last, smaller batch is dropped
        self.steps = recipe.epochs * self.steps_an_epoch
        self.step = 0
        self._history = np.empty((self.steps, len(HISTORY)))
        self._unread: list[tuple[int, int, float, Tensor]] = []
        self._loss = np.nan
        self.epochs: list[list[float]] = []
        self._began = 0, time.monotonic()  # the step and time since which speed is measured
        self.looks: dict[int, Tensor] = {}
        self.attention = self._new_attention(side)
        if processes.size > 1:
            share_norms(self.attention)
            processes.copied(self.attention)
        self.device = next(self.attention.parameters()).device
        self.read_every = 1 if self.device.type == "cpu" else _READ_EVERY
        named = dict(self.attention.named_parameters())
        biases = [p for name, p in named.items() if name.endswith("bias")]
        others = [p for name, p in named.items() if not name.endswith("bias")]
        self.optimiser = torch.optim.SGD(
            [{"params": others, "lr": recipe.lr},
             {"params": biases, "lr": recipe.lr * recipe.bias_lr}],
            momentum=recipe.momentum, nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self.schedule = None
        if recipe.one_cycle:
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimiser, [recipe.lr, recipe.lr * recipe.bias_lr], total_steps=self.steps,
                cycle_momentum=False,
            )  # fmt: skip
        self.facts = {
            "attention": row.key, "recipe": {**asdict(recipe), "decays": list(recipe.decays)},
            "masking": masking, "seed": seed, "side": side,
            "images": images.facts(), "variant": getattr(model, "variant", ""),
            "code": TRAINING,
        } | ({"held_out": held_out.facts()} if held_out else {})  # fmt: skip

    def _new_attention(self, side: int) -> nn.Module:
        attention = new_attention(self.row, self.model, side, self.seed)
        if self.recipe.start is not None:
            nn.init.constant_(attention.maps.bias, self.recipe.start)
        if not (self.recipe.standardised and isinstance(attention, LCam)):
            return attention  # TAME has its own norms
        device = next(attention.parameters()).device
        # Not the first ones, because lists are often sorted by class.
        measured = self.images.spread(_MEASURED_ON * self.batch)
        parts = np.array_split(measured, min(_MEASURED_ON, len(measured)))
        batches = self.images.batches(parts, self.seed, 0, device)
        with torch.inference_mode(), evaluating(self.model):
            features = [read_by(self.row, self.model, some)[-1] for some in batches]
        return Standardised(attention, features)

    def history(self) -> pd.DataFrame:
        """The history so far, as in `Trained`."""
        self.read()
        table = pd.DataFrame(self._history[: self.step], columns=HISTORY)
        return table.astype({"step": int, "epoch": int})

    def check(self) -> None:
        """Raise AttentionError if weights are NaN or infinite."""
        if all(tensor.isfinite().all() for tensor in self.attention.state_dict().values()):
            return
        raise AttentionError(
            f"the weights of {METHODS[self.row.key].label} are not finite after step {self.step}: "
            "try a smaller learning rate (--lr)"
        )

    def go(self) -> Iterator[float]:
        """Train step by step to the end, and yield the latest loss that is known."""
        while self.step < self.steps:
            epoch, done = divmod(self.step, self.steps_an_epoch)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
            order = order[: self.steps_an_epoch * self.batch].reshape(-1, self.batch)
            own = [self.processes.share(batch) for batch in order[done:]]
            self._began = self.step, time.monotonic()
            for images in self.images.batches(own, self.seed, epoch, self.device):
                with told():
                    loss = self.one_step(images, epoch)
                yield loss

    def one_step(self, images: Tensor, epoch: int) -> float:
        if self.schedule is None:
            rate = self.recipe.lr_at(self.step, self.steps_an_epoch)
            for group, times in zip(
                self.optimiser.param_groups, (1.0, self.recipe.bias_lr), strict=True
            ):
                group["lr"] = rate * times
        rate = self.optimiser.param_groups[0]["lr"]
        self.attention.train()
        loss = attention_loss(
            self.row, self.model, self.attention, images, self.masking,
            lambda labels: self.processes.joined(labels, self.batch),
        )  # fmt: skip
        terms = torch.stack([getattr(loss, name).detach().float() for name in _TERMS])
        self.optimiser.zero_grad()
        if self.processes.size == 1:
            loss.total.backward()
        else:
            part = len(images) / self.batch
            terms *= part
            (loss.total * part).backward()
            self.processes.add([*(p.grad for p in self.attention.parameters()), terms])
        self._unread.append((self.step, epoch, rate, terms))
        if len(self._unread) >= self.read_every:
            self.read()
        self.optimiser.step()
        if self.schedule is not None and self.step + 1 < self.steps:
            self.schedule.step()
        self.step += 1
        return self._loss

    def read(self) -> None:
        """Write the terms of the latest steps to the history. Raises AttentionError if a loss is
        NaN or infinite."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        terms = torch.stack([terms for *_, terms in unread]).tolist()
        for (step, epoch, rate, _), values in zip(unread, terms, strict=True):
            if not np.isfinite(values[0]):
                raise AttentionError(
                    f"the loss of {METHODS[self.row.key].label} is not finite at step "
                    f"{step + 1}, learning rate {rate:.3g}: try a smaller one (--lr)"
                )
            self._history[step] = step + 1, epoch, rate, *values
        self._loss = terms[-1][0]

    def images_per_second(self) -> float:
        """Images of all processes per second, since the epoch began or was resumed."""
        step, then = self._began
        return (self.step - step) * self.batch / max(time.monotonic() - then, 1e-9)

    def end_epoch(self) -> None:
        """Record speed and validation of the epoch that has just ended."""
        self.read()
        speed = self.images_per_second()
        epoch = self.step // self.steps_an_epoch - 1
        self.epochs.append([self.step, epoch, self.processes.size, speed, *self.validated()])

    @torch.inference_mode()
    def validated(self) -> list[float]:
        """Return the mean of each of TERMS and the average drop over the held-out images.

        The terms are of centres, with each image's own mask, so that the batch changes nothing. The
        average drop is that of the heatmaps, in per cent of the probability of the predicted class
        (`lib.analyses.faithfulness.drop`); constant heatmaps are skipped.
        """
        if self.held_out is None:
            return [np.nan] * (len(TERMS) + 1)
        self.attention.eval()
        count = len(self.held_out)
        parts = np.split(np.arange(count), range(self.batch, count, self.batch))
        own = [share for part in parts if len(share := self.processes.share(part))]
        totals = torch.zeros(len(TERMS) + 2, dtype=torch.float64)
        for images in self.held_out.batches(own, self.seed, None, self.device):
            loss = attention_loss(
                self.row, self.model, self.attention, images, MASKINGS[0]
            )  # fmt: skip
            terms = [getattr(loss, name).float() * len(images) for name in _TERMS]
            drops = self._drops(images)
            kept = drops.isfinite()
            terms += [drops[kept].sum(), kept.sum().float()]
            totals += torch.stack(terms).cpu()
        self.processes.add([totals])
        *terms, drop, kept = totals.tolist()
        return [*(term / count for term in terms), drop / kept if kept else np.nan]

    def _drops(self, images: Tensor) -> Tensor:
        """(image,) per cent of the probability that is lost where the heatmap hides the image."""
        x, maps, labels = self._maps(images)
        large = F.interpolate(
            maps[:, None], images.shape[-2:], mode="bilinear", align_corners=False
        )  # fmt: skip
        whole, masked = (
            self.model(some).float().softmax(dim=1).gather(1, labels[:, None])[:, 0]
            for some in (x, self.model.normalised(large * images))
        )
        constant = maps.amax((1, 2)) == 0  # as `min_max` leaves it
        return (100 * (whole - masked).clamp(min=0) / whole).masked_fill(constant, torch.nan)

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images, their heatmaps in 0-1, and their predicted classes."""
        x = self.model.normalised(images)
        features = layers_of(self.row, self.model, x)
        labels = self.model.answered(x, features[-1]).argmax(dim=1)
        read = read_by(self.row, self.model, images) if self.row.raw else features
        return x, min_max(of_classes(self.attention(read), labels)), labels

    @torch.inference_mode()
    def look(self, images: Tensor) -> None:
        self.attention.eval()
        _, maps, _ = self._maps(images.to(self.device))
        self.looks[self.step] = maps.cpu().clone()

    # --- a file ---------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        self.read()
        self.check()
        state = {
            "facts": json.dumps(self.facts, sort_keys=True),
            "step": self.step,
            "attention": self.attention.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else {},
            "history": torch.from_numpy(self._history[: self.step].copy()),
            "looks": self.looks,
            "epochs": self.epochs,
        }
        file = io.BytesIO()  # torch.save to a full disk would raise RuntimeError
        torch.save(state, file)
        with write_atomically(path) as partial:
            partial.write_bytes(file.getbuffer())

    def load(self, path: Path, state: dict, facts: dict) -> None:
        """Continue from a checkpoint and its facts, as `_read` returns them."""
        unlike = [
            name for name, value in self.facts.items()
            if name != "training" and facts.get(name) != _as_json(value)
        ]  # fmt: skip
        if unlike:
            raise AttentionError(
                f"the checkpoint {shown(path)} belongs to another training ({', '.join(unlike)}): "
                "use the same choices as then, or delete it"
            )
        self.step = state["step"]
        self.attention.load_state_dict(state["attention"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self._history[: self.step] = state["history"].numpy()
        self.looks, self.epochs = state["looks"], state.get("epochs", [])


def checkpoint_facts(path: Path) -> dict:
    """Return what determined the training of a checkpoint. Raises AttentionError if it is
    damaged."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict, dict]:
    """A checkpoint and its facts."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state, parse_json(state["facts"], {"type": "object"}, "what it tells of itself")
    except Exception as error:  # torch raises many kinds of errors for damaged files
        raise AttentionError(
            f"the checkpoint {shown(path)} cannot be read: delete it and train again "
            f"({type(error).__name__}: {error})"
        ) from error


def _as_json(value: object) -> object:
    return json.loads(json.dumps(value))
