"""What a map explains: a class of each image, or any number made of the network's answer.

A target is, as in pytorch-grad-cam, a callable that takes the network's answer to one image and
returns one number as a tensor; that package's own classes serve as they are. The functions below
make the usual ones.
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
    """A function with the words that messages call it by."""

    words: str
    function: Callable[[Any], Tensor]

    def __call__(self, answer: Any) -> Tensor:
        return self.function(answer)


def class_score(number: int) -> Target:
    """The logit of a class."""
    return _Named(f"class_score({number})", lambda answer: answer[number])


def class_probability(number: int) -> Target:
    """The softmax probability of a class."""
    words = f"class_probability({number})"
    return _Named(words, lambda answer: answer.softmax(dim=-1)[number])


def class_rest(number: int) -> Target:
    """The logit of a class and the logarithm of its probability, added.

    Source: Cai, "CAMs as Shapley value-based explainers", arXiv 2501.06261 (ReST)
    """
    words = f"class_rest({number})"
    return _Named(words, lambda answer: answer[number] + answer.log_softmax(dim=-1)[number])


def whole_answer() -> Target:
    """The answer itself, of a network that gives one number an image."""
    return _Named("whole_answer()", lambda answer: answer)


def sum_of_answer() -> Target:
    """The sum of all that the network answers."""
    return _Named("sum_of_answer()", lambda answer: answer.sum())


def binary(positive: bool = True) -> Target:
    """The one logit of a network that tells two classes apart; its negative for the other one."""
    return _Named(f"binary({positive})", lambda answer: answer if positive else -answer)


def class_in_region(number: int, region: Any) -> Target:
    """The sum of a class's scores over part of the image, for segmentation.

    region : (h, w) of the answer's size, bool or weights; the answer is (class, h, w)
    The target raises ValueError for an answer of another size, or without this class.
    """
    weights = torch.as_tensor(region)

    def score(answer: Tensor) -> Tensor:
        if answer.ndim != 3 or answer.shape[1:] != weights.shape:
            raise ValueError(
                f"the region is {tuple(weights.shape)}, and the answer to an image is "
                f"{tuple(answer.shape)}: a region of (height, width) of the answer is needed"
            )
        if not 0 <= number < len(answer):
            raise ValueError(f"class {number} is outside 0 … {len(answer) - 1}")
        return (answer[number] * weights.to(answer)).sum()

    return _Named(f"class_in_region({number}, …)", score)


def likeness(embedding: Any) -> Target:
    """Cosine similarity of the answer to an embedding."""
    other = torch.as_tensor(embedding)
    return _Named(
        "likeness(…)", lambda answer: F.cosine_similarity(answer, other.to(answer), dim=0)
    )


def unlikeness(embedding: Any) -> Target:
    """One less the cosine similarity of the answer to an embedding."""
    like = likeness(embedding)
    return _Named("unlikeness(…)", lambda answer: 1 - like(answer))


def of_image(answer: Any, number: int) -> Any:
    """One image's part of a network's answer: a row of a tensor, or of each in a mapping, or an
    entry of a list."""
    if isinstance(answer, Mapping):
        return {name: value[number] for name, value in answer.items()}
    return answer[number]


@dataclass(frozen=True)
class Asked:
    """What is asked of each of some images.

    classes   : (image,) int64, or None where something else is asked
    functions : a target per image; empty for classes
    """

    classes: Tensor | None = None
    functions: tuple[Target, ...] = ()

    def __len__(self) -> int:
        return len(self.functions) if self.classes is None else len(self.classes)

    def scores(self, answer: Any) -> Tensor:
        """(image,) the number that is explained, of the network's answer to all the images."""
        if self.classes is not None:
            return answer.gather(1, self.classes[:, None])[:, 0]
        found = [_one(f(of_image(answer, n)), f) for n, f in enumerate(self.functions)]
        return torch.stack(found)

    def of(self, number: int) -> Callable[[Any], Tensor]:
        """The same of many answers to versions of one of the images: (version,)."""
        if self.classes is not None:
            return lambda answer: answer[:, self.classes[number]]
        function = self.functions[number]
        return lambda answer: torch.stack(
            [_one(function(of_image(answer, n)), function) for n in range(_count(answer))]
        )

    def repeated(self, number: int, count: int) -> Asked:
        """What is asked of one of the images, of so many versions of it."""
        if self.classes is not None:
            return Asked(self.classes[number].repeat(count))
        return Asked(None, (self.functions[number],) * count)

    @property
    def callables(self) -> list[Target]:
        """A target per image, classes too."""
        if self.classes is None:
            return list(self.functions)
        return [class_score(int(number)) for number in self.classes]


def _count(answer: Any) -> int:
    return len(next(iter(answer.values()))) if isinstance(answer, Mapping) else len(answer)


def _one(found: Any, function: Target) -> Tensor:
    name = getattr(function, "words", getattr(function, "__name__", type(function).__name__))
    if not isinstance(found, Tensor):
        raise ValueError(
            f"the target {name} must return one number as a tensor, and returned a "
            f"{type(found).__name__}"
        )
    if found.numel() != 1:
        raise ValueError(
            f"the target {name} must return one number for an image, and returned a tensor of "
            f"shape {tuple(found.shape)}: choose one of its entries, or their sum"
        )
    return found.reshape(())


def asked_of(targets: Any, answer: Any, images: int) -> Asked:
    """What is asked, checked against the network's answer.

    targets : (image,) class indices; or a list, per image a class or a target; or one target for
              all; None is the class that is predicted; what was asked before stays
    Raises ValueError unless there is one per image, for what is no class, and for None where the
    answer has no classes.
    """
    if isinstance(targets, Asked):
        made_inferring = targets.classes is not None and targets.classes.is_inference()
        return Asked(targets.classes.clone()) if made_inferring else targets
    if targets is None:
        if not (isinstance(answer, Tensor) and answer.ndim == 2):
            raise ValueError(
                "the network's answer is no (image, class) tensor, so there is no predicted class: "
                "say by `targets` what is to be explained"
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
            "the network's answer is no (image, class) tensor: give functions of it as targets"
        )
    return Asked(_classes(targets, answer))


def _class(target: Any, answer: Any) -> Target:
    classes = answer.shape[1] if isinstance(answer, Tensor) and answer.ndim == 2 else 0
    if isinstance(target, bool) or not isinstance(target, Integral) or not 0 <= target < classes:
        raise ValueError(
            f"a target is a function of the network's answer, or a class 0 … {classes - 1}, and "
            f"not {target!r}"
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
    # Checked where they were, which for a shard's labels is not the device: no waiting for it.
    targets = targets.to(logits.device, torch.int64, non_blocking=True)
    return targets.clone() if targets.is_inference() else targets
