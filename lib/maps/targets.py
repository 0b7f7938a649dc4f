"""What a map explains: a class of each image, or any number computed from the network's answer.

A target is, as in pytorch-grad-cam, a callable that takes the network's answer to one image and
returns one number as a tensor. That package's own classes work unchanged. The functions below make
the usual targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Target = Callable[[Any], Tensor]


@dataclass(frozen=True)
class _Named:
    """A function with a name for messages."""

    words: str
    function: Callable[[Any], Tensor]

    def __call__(self, answer: Any) -> Tensor:
        return self.function(answer)


def class_score(number: int) -> Target:
    """Return a target: the logit of a class."""
    return _Named(f"class_score({number})", lambda answer: answer[number])


def class_probability(number: int) -> Target:
    """Return a target: the softmax probability of a class."""
    words = f"class_probability({number})"
    return _Named(words, lambda answer: answer.softmax(dim=-1)[number])


def class_rest(number: int) -> Target:
    """Return a target: the sum of a class's logit and the logarithm of its probability.

    Source: Cai, "CAMs as Shapley value-based explainers", arXiv 2501.06261 (ReST)
    """
    words = f"class_rest({number})"
    return _Named(words, lambda answer: answer[number] + answer.log_softmax(dim=-1)[number])


def whole_answer() -> Target:
    """Return a target: the answer itself, for a network that returns one number per image."""
    return _Named("whole_answer()", lambda answer: answer)


def sum_of_answer() -> Target:
    """Return a target: the sum of all numbers in the network's answer."""
    return _Named("sum_of_answer()", lambda answer: answer.sum())


def binary(positive: bool = True) -> Target:
    """Return a target: the single logit of a network for two classes.

    positive : False for its negative, which stands for the other class
    """
    return _Named(f"binary({positive})", lambda answer: answer if positive else -answer)


def class_in_region(number: int, region: Any) -> Target:
    """Return a target for segmentation: the sum of a class's scores over part of the image.

    region : (h, w) with the answer's size, bool or weights; the answer is (class, h, w)
    The target raises ValueError for an answer of another size, or without this class.
    """
    weights = torch.as_tensor(region)

    def score(answer: Tensor) -> Tensor:
        if answer.ndim != 3 or answer.shape[1:] != weights.shape:
            raise ValueError(
                f"the region is {tuple(weights.shape)}, but the answer to an image is "
                f"{tuple(answer.shape)}: give a region with the answer's (height, width)"
            )
        if not 0 <= number < len(answer):
            raise ValueError(f"class {number} does not exist: give one from 0 … {len(answer) - 1}")
        return (answer[number] * weights.to(answer)).sum()

    return _Named(f"class_in_region({number}, …)", score)


def likeness(embedding: Any) -> Target:
    """Return a target: the cosine similarity of the answer and an embedding."""
    other = torch.as_tensor(embedding)
    return _Named(
        "likeness(…)", lambda answer: F.cosine_similarity(answer, other.to(answer), dim=0)
    )


def unlikeness(embedding: Any) -> Target:
    """Return a target: one minus the cosine similarity of the answer and an embedding."""
    like = likeness(embedding)
    return _Named("unlikeness(…)", lambda answer: 1 - like(answer))


def of_image(answer: Any, number: int) -> Any:
    """Return one image's part of a network's answer: a row of a tensor, a row of each tensor in a
    mapping, or an entry of a list."""
    if isinstance(answer, Mapping):
        return {name: value[number] for name, value in answer.items()}
    return answer[number]


@dataclass(frozen=True)
class Asked:
    """The targets of some images.

    classes   : (image,) int64, or None if the targets are not classes
    functions : one target per image; empty for classes
    """

    classes: Tensor | None = None
    functions: tuple[Target, ...] = ()

    def __len__(self) -> int:
        return len(self.functions) if self.classes is None else len(self.classes)

    def scores(self, answer: Any) -> Tensor:
        """(image,): the number that is explained, from the network's answer to all images."""
        if self.classes is not None:
            return answer.gather(1, self.classes[:, None])[:, 0]
        found = [_one(f(of_image(answer, n)), f) for n, f in enumerate(self.functions)]
        return torch.stack(found)

    def of(self, number: int) -> Callable[[Any], Tensor]:
        """A function that returns the same for answers to versions of one image: (version,)."""
        if self.classes is not None:
            return lambda answer: answer[:, self.classes[number]]
        function = self.functions[number]
        return lambda answer: torch.stack(
            [_one(function(of_image(answer, n)), function) for n in range(_count(answer))]
        )

    def repeated(self, number: int, count: int) -> Asked:
        """The target of one of the images, repeated for `count` versions of it."""
        if self.classes is not None:
            return Asked(self.classes[number].repeat(count))
        return Asked(None, (self.functions[number],) * count)

    @property
    def callables(self) -> list[Target]:
        """One target per image, also for classes."""
        if self.classes is None:
            return list(self.functions)
        return [class_score(int(number)) for number in self.classes]


def _count(answer: Any) -> int:
    return len(next(iter(answer.values()))) if isinstance(answer, Mapping) else len(answer)


def _one(found: Any, function: Target) -> Tensor:
    name = getattr(function, "words", getattr(function, "__name__", type(function).__name__))
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the target {name} must return one number as a tensor, but returned a "
            f"{type(found).__name__}"
        )
    if found.numel() != 1:
        raise ValueError(
            f"the target {name} must return one number for an image, but returned a tensor of "
            f"shape {tuple(found.shape)}: choose one of its entries, or their sum"
        )
    return found.reshape(())


def asked_of(targets: Any, answer: Any, images: int) -> Asked:
    """Check targets against the network's answer.

    targets : (image,) class indices; a list with a class or a target per image; one target for all
              images; None for the predicted class; or an `Asked`, which is returned unchanged
    Raises ValueError unless there is one target per image, for a class that does not exist, and
    for None if the answer has no classes.
    """
    if isinstance(targets, Asked):
        made_inferring = targets.classes is not None and targets.classes.is_inference()
        return Asked(targets.classes.clone()) if made_inferring else targets
    if targets is None:
        if not (isinstance(answer, Tensor) and answer.ndim == 2):
            raise ValueError(
                "the network's answer is not an (image, class) tensor, so there is no predicted "
                "class: say in `targets` what to explain"
            )
        return Asked(answer.detach().argmax(dim=1))
    if callable(targets) and not isinstance(targets, Tensor):
        return Asked(None, (targets,) * images)
    if isinstance(targets, Sequence) and any(callable(target) for target in targets):
        if len(targets) != images:
            raise ValueError(f"need one target per image: {images} images, {len(targets)} targets")
        return Asked(None, tuple(t if callable(t) else _class(t, answer) for t in targets))
    if not (isinstance(answer, Tensor) and answer.ndim == 2):
        raise ValueError(
            "the network's answer is not an (image, class) tensor: give functions of it as targets"
        )
    return Asked(_classes(targets, answer))


def _class(target: Any, answer: Any) -> Target:
    classes = answer.shape[1] if isinstance(answer, Tensor) and answer.ndim == 2 else 0
    if isinstance(target, bool) or not isinstance(target, Integral) or not 0 <= target < classes:
        raise ValueError(
            f"a target must be a function of the network's answer, or a class 0 … {classes - 1}, "
            f"but is {target!r}"
        )
    return class_score(int(target))


def _classes(targets: Any, logits: Tensor) -> Tensor:
    images, classes = logits.shape
    targets = torch.as_tensor(targets)
    if targets.shape != (images,):
        raise ValueError(
            f"need one target class per image: {images} images, targets {tuple(targets.shape)}"
        )
    kind = targets.dtype
    if (
        kind.is_floating_point
        or kind == torch.bool
        or not ((targets >= 0) & (targets < classes)).all()
    ):
        raise ValueError(f"targets must be class indices 0 … {classes - 1}, got {targets.tolist()}")
    # Checked where they are: a shard's labels are not on the device, so nothing waits for it.
    targets = targets.to(logits.device, torch.int64, non_blocking=True)
    return targets.clone() if targets.is_inference() else targets
