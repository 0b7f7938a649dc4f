"""Simulated people playing ClickMe's game on a procedural scene.

In the game a player paints bubbles over the parts of an object that identify it. Here several
players each draw a few strokes. A stroke starts at a place sampled by its diagnosticity and moves
towards diagnostic places, with a shaky hand and occasional lapses of attention. The human map is
the share of players whose bubbles cover each pixel.
"""

from __future__ import annotations

import numpy as np

from .scenes import SIDE, Scene


def _stroke(rng: np.random.Generator, told: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Bubble centres (y, x) along one stroke."""
    places = [start]
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(4, 10)):
        turns = heading + rng.normal(0, 1.0, 6)
        step = rng.uniform(7, 12)
        options = places[-1] + step * np.stack([np.sin(turns), np.cos(turns)], axis=1)
        options = np.clip(options, 0, SIDE - 1)
        appeal = 0.02 + told[tuple(options.astype(int).T)]
        choice = rng.choice(len(options), p=appeal / appeal.sum())
        places.append(options[choice])
        heading = turns[choice]
    return places


def _bubbles(places: list[np.ndarray], radius: float) -> np.ndarray:
    y, x = np.ogrid[:SIDE, :SIDE]
    covered = np.zeros((SIDE, SIDE), dtype=bool)
    for cy, cx in places:
        covered |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return covered


def painted(scene: Scene, seed: int, index: int) -> np.ndarray:
    """The pixels that each simulated player painted: (player, 256, 256) bool."""
    rng = np.random.default_rng([seed, 2, index])
    told = scene.diagnosticity
    # Most strokes start on diagnostic parts, some anywhere on the creature, as if guessing.
    chances = (told**1.5 + 0.03 * (told > 0)).ravel().astype(np.float64)
    chances /= chances.sum()
    masks = []
    for _ in range(rng.integers(5, 10)):
        shift = rng.normal(0, 3, 2)  # each hand is a little off
        places: list[np.ndarray] = []
        for _ in range(rng.integers(1, 4)):
            start = np.array(divmod(rng.choice(chances.size, p=chances), SIDE), dtype=float)
            places += [p + shift for p in _stroke(rng, told, start)]
        masks.append(_bubbles(places, rng.uniform(10, 15)))
    return np.stack(masks)


def shared(masks: np.ndarray) -> np.ndarray:
    """The human map of the players' masks: (256, 256) uint8, 255 where every player painted."""
    return np.round(255 * masks.sum(axis=0) / len(masks)).astype(np.uint8)


def human_map(scene: Scene, seed: int, index: int) -> np.ndarray:
    """The simulated human map: (256, 256) uint8, see `shared`."""
    return shared(painted(scene, seed, index))
