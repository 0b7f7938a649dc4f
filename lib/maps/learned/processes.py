"""Several processes that train one module together, each with its own device.

torch.distributed connects them: torch ships it, torchrun starts it on clusters, and only one sum of
small gradients per step is needed, which a wrapper of the module would not overlap with anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .attention import AttentionError


class ProcessLost(AttentionError):
    """Another process of a training has ended, so this one cannot continue."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together. Without arguments it trains alone, and then
    every method returns what it received.

    rank  : its number, from 0; process 0 alone writes files and shows progress
    size  : how many there are
    store : what `rendezvous` returned, for messages beside the training
    """

    rank: int = 0
    size: int = 1
    store: dist.Store | None = None

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def share(self, indices: np.ndarray) -> np.ndarray:
        """Return this process's part of a batch. Together the parts are the batch, in order."""
        return np.array_split(indices, self.size)[self.rank]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device and type by their sums over all processes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with told():
            dist.all_reduce(flat)
        for tensor, part in zip(
            tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.copy_(part.view_as(tensor))

    def joined(self, values: Tensor, total: int) -> Tensor:
        """Return the values of the whole batch of `total` images from each one's (image,) part."""
        if self.size == 1:
            return values
        places = torch.from_numpy(self.share(np.arange(total))).to(values.device)
        found = values.new_zeros(total).index_copy(0, places, values)
        self.add([found])
        return found

    def agreed(self, decide: Callable[[], Any]) -> Any:
        """Return what process 0 decides; the others do not call `decide`."""
        if self.size == 1:
            return decide()
        box = [decide() if self.writes else None]
        with told():
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def copied(self, module: nn.Module) -> None:
        """Give every process the weights and buffers of process 0."""
        for tensor in module.state_dict().values() if self.size > 1 else ():
            with told():
                dist.broadcast(tensor, 0)

    def fails_first(self) -> bool:
        """Whether no other process has reported an error yet, so that this one should."""
        try:
            return self.store is None or self.store.add("failed", 1) == 1
        except RuntimeError:  # the process that held the store has ended
            return True


ALONE = Processes()


@contextmanager
def told() -> Iterator[None]:
    """Turn the error of a lost connection into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        lost = ("by peer", "gloo", "Broken pipe", "NCCL")
        if isinstance(error, dist.DistError) or any(word in str(error) for word in lost):
            reason = str(error).strip().splitlines()[0]
            raise ProcessLost(
                "another process of this training has ended: read its message, then resume with "
                f"--resume ({reason})"
            ) from error
        raise


def local_processes() -> int:
    """Return how many processes of the same command share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that the environment names, as torchrun sets it, until the end.

    device : as the study chose it; on CUDA each process takes the GPU of its LOCAL_RANK
    Raises ValueError if there are fewer GPUs, or if torch.distributed cannot use the device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    check_devices(device, local_processes())
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = next(dist.rendezvous("env://"))
    # gloo carries decisions and validation, which lie in the memory of the CPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=dist.PrefixStore("training", store), rank=rank, world_size=size
    )
    try:
        yield Processes(rank, size, store)
    finally:
        dist.destroy_process_group()


def check_devices(device: torch.device, wanted: int) -> None:
    """Raise ValueError if a training cannot use so many devices like this one."""
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"several processes cannot train on {device.type}: omit --devices")
    if device.type == "cuda" and device.index is not None:
        raise ValueError(
            f"--device {device} names one GPU, but {wanted} processes train: use --device cuda"
        )
    if device.type == "cuda" and wanted > torch.cuda.device_count():
        raise ValueError(
            f"{wanted} processes need {wanted} GPUs, and torch sees {torch.cuda.device_count()}: "
            "use fewer --devices"
        )


# --- batch norm over the whole batch ---------------------------------------------------------


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SharedNorm(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of all processes' images together.

    torch's SyncBatchNorm does the same, but only on GPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        own = x.new_tensor([x.numel() / x.shape[1]])
        sums = _Sum.apply(torch.cat([x.sum((0, 2, 3)), own]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        apart = x - mean[:, None, None]
        variance = _Sum.apply(apart.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return apart * scale[:, None, None] + self.bias[:, None, None]


def share_norms(module: nn.Module) -> None:
    """Replace every batch norm within a module by a `SharedNorm` with the same state."""
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d:
            norm = SharedNorm(child.num_features, child.eps, child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, norm.to(child.weight.device))
        share_norms(child)
