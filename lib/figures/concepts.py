"""Where the concepts of a layer's features are, a colour each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch

from .style import Size, lay_out, width_of

# Okabe and Ito's, and further ones that differ in lightness; then they are repeated.
_COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#882255",
)  # fmt: skip
_STRENGTH = 0.8


def concept_colours(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A grey image under the colour of each pixel's strongest concept, by how strong that is.

    image : (height, width, 3) uint8
    maps    : (concept, height, width) in 0-1; NaN where the network did not look
    Returns (height, width, 3) in 0-1.
    """
    grey = np.repeat((image @ [0.299, 0.587, 0.114])[..., None], 3, axis=-1) / 255
    seen = np.nan_to_num(maps)
    strongest = seen.argmax(axis=0)
    colours = np.array([to_rgb(_COLOURS[n % len(_COLOURS)]) for n in range(len(maps))])
    share = _STRENGTH * seen.max(axis=0)[..., None]
    return (1 - share) * grey + share * colours[strongest]


def plot_concepts(
    images: Sequence[np.ndarray],
    maps: np.ndarray,
    words: Sequence[str],
    title: str = "",
    *,
    size: Size = None,
    fig: FigureBase | None = None,
) -> Figure:
    """Images above, their concepts below, and what the network answers to each concept alone.

    images : (image, height, width, 3) uint8
    maps     : (image, concept, height, width) as for `concept_colours`
    words    : for each concept, such as its likeliest classes
    """
    count = len(images)
    wide = min(1.75 * count + 0.5, 7.2)
    cell = max(width_of(wide, size, fig) - 0.5, 0.0) / count
    sheet = lay_out((wide, 2 * cell + 0.4), 2, count, size=size, fig=fig)
    axes = sheet.axes
    for column, (image, found) in enumerate(zip(images, maps, strict=True)):
        axes[0, column].imshow(image)
        axes[1, column].imshow(concept_colours(image, found))
    sheet.names_of_images(axes[:, 0], ["image", "concepts"], cell)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    patches = [
        Patch(color=_COLOURS[n % len(_COLOURS)], label=f"{n + 1}: {text}")
        for n, text in enumerate(words)
    ]
    sheet.above(title)
    sheet.legend(patches, "the answer if the features were one concept everywhere", columns=2)
    return sheet.shown
