"""What each figure shows, in words: printed beside it, and its text for who cannot see it.

The order is that of the report. What stands in double brackets is said only of a study that has
pairs with and without DCLS; braces take words from the study's comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..base.tables import Table
from ..study.choices import Choices
from ..study.comparisons import forms_of


@dataclass(frozen=True)
class Caption:
    """A row: `key` is the figure's file name without suffix.

    number : of the paper's figure that it is, said where the paper's models ran
    """

    key: str
    title: str
    text: str
    number: str = ""


_MAPS = (
    "Colours run from each map's own minimum to its own maximum, so they compare places within "
    "an image, not images."
)
_BARS = "Bars: 95 % intervals over images."
_SCORE = (
    "Score: mean Spearman correlation with the human maps over valid images, divided by the "
    "human ceiling, how well these people agree, where it is known; the axis says by what."
)

_CLICKME = (
    "Where the axis says 0.658, the ceiling is ClickMe's, published as a number; if it is the "
    "correlation of two halves of the players, a perfect model reaches 1.35."
)

CAPTIONS: Table[Caption] = Table(
    "figure",
    [
        Caption(
            "beside_people", "People, a network, and maps that ignore the image",
            "Mean Spearman correlation with the map of all observers: of a network's maps, one row "
            "a CAM method; of control maps that no network made; and of people, one person with "
            "all others, one half with the other, and what as many other people would reach. "
            "Dashed: the best control; a map to its left agrees less with people than this "
            "control, surely so only where a paired test says it. Lines: 95 % intervals over "
            "images; of fewer than 50 images they also allow for unseen ones as extreme as any.",
        ),
        Caption(
            "gaze_sample", "Where people looked, and where a network finds its evidence",
            "Above, eight images with everybody's fixations and the class whose evidence is drawn, "
            "with its probability where the network predicted it; then the human map that the "
            "fixations make, and the maps of the network (the first of several) where it looked: "
            "grey is cropped away. "
            f"{_MAPS}",
        ),
        Caption(
            "fixation_measures", "Maps measured where people looked",
            "Mean over images of four measures that use the fixations themselves, a panel each. "
            "NSS: the map's value at fixations in its standard deviations above its mean. "
            "AUC-Judd: how often a fixated pixel lies above any pixel. Shuffled AUC: above where "
            "people looked in other images, so that a preference for the centre counts nothing. "
            "Information gain: bits per fixation beyond the centre bias. People: each observer's "
            "fixations under the map of all others. More is better. Lines: 95 % intervals over "
            "images.",
        ),
        Caption(
            "scanpaths", "One person after another",
            "The first three observers of four images: a colour each, fixations numbered in their "
            "order. Those beside the image are not drawn.",
        ),
        Caption(
            "clickme_sample", "Images and human maps",
            "Eight images as they are delivered to the models, and where people looked, in the "
            f"study's first reading. {_MAPS}",
        ),
        Caption(
            "maps_beside_people", "Human maps and a model's maps",
"Images, human maps, and the maps of the models of one {rows}: of ConvNeXt-B where it is "
            "chosen, else of the first. For the class above: the image's own or, where predicted "
            "classes are asked for, what the first of these models predicts, while each other "
            f"map is of its model's own prediction. {_MAPS}", "Figure 1",
        ),
        Caption(
            "pairs", "Scores of pairs: {second} against {first}",
            "A point per {rows}; above the dashed line {second} scores higher. "
            f"{_SCORE} {_BARS}", "Figure 2",
        ),
        Caption(
            "scores", "Scores: {label}",
            f"{{panels}} {_SCORE} {_BARS} Lines: control maps that no network made, "
            "scored in the same way: the centred Gaussian, the mean human map of the other "
            "images, another image's human map, random maps. A hollow bar does not surely lie "
            "above the strongest of them: such a model may do no more than look at the centre. "
            "{clickme}",
            "Figure 3",
        ),
        Caption(
            "along", "Scores along the comparison's axis",
            "Score against {axis}, a line per {rows}; a panel per method. Where few points are "
            "compared, a line between them is no trend by itself: the table of differences tells "
            f"what is sure. Lines across: control maps that no network made. {_SCORE} {_BARS}",
        ),
        Caption(
            "size", "Size and score",
            "Learnable parameters and score of the first model of each {rows}. "
            f"{_SCORE} {_BARS}", "Figure 4",
        ),
        Caption(
            "leaderboard", "Leaderboard",
            f"Every model of the run, best first. {_SCORE} Bars and bands: 95 % intervals over "
            "images. Lines: control maps that no network made; hollow: not surely above the "
            "strongest of them. Neighbours may not differ: two models on the same images are "
            "compared by their paired difference.",
        ),
        Caption(
            "accuracy", "Accuracy and agreement",
            "ImageNet's top-1 as published, of ImageNet's own validation images, against the score "
            "of each model whose accuracy is known; the others are named. Numbers: places on the "
            f"leaderboard. {_SCORE} {_BARS} Few points make a weak rank correlation whatever its "
            "value; below five models none is given.",
        ),
        Caption(
            "maps_by_method", "Every method on one model",
            "Every chosen method on ResNet-50[[ without DCLS]] (on the first model where that is "
            "not chosen): for the true class, or for the "
            f"predicted one on photographs without a label. {_MAPS}", "Figure 5",
        ),
        Caption(
            "maps_of_two", "Maps of CAFormer and ConvFormer, or of others",
            "Every chosen method on CAFormer and ConvFormer without DCLS, whose plain Grad-CAM "
            "maps the paper calls random; where neither is chosen, on the first model. "
            f"{_MAPS}", "Figure 6",
        ),
        Caption(
            "paired_differences", "Differences, image by image: {change}",
            "Mean over the images valid for both models, in units of the score, one row a "
            "pair. Thick bars: 95 % intervals; thin ones: the middle half of "
            "images. Filled where p, corrected by Holm over the pairs of its panel, is below "
            "0.05; the intervals are not corrected. Grey where the difference is surely too small "
            "to matter.",
        ),
        Caption(
            "compared", "Every two models, image by image",
            "Mean score of the row's model less the column's, over the images valid for both, "
            "with a number where it surely differs (p < 0.05, corrected by Holm over all pairs), "
            "and ≈ where the difference is surely too small to matter.",
        ),
        Caption(
            "rho_per_image", "How the correlation spreads over images",
            "Distribution of Spearman's correlation over valid images: {label}; "
            "lines inside: quartiles.",
        ),
        Caption(
            "protocols", "Published and corrected reading",
            "Scores under each reading protocol: how much of a score is the reading of images "
            f"and human maps? {_SCORE} {_BARS}",
        ),
        Caption(
            "floor_sweep", "Threshold-Grad-CAM taken apart: the floor",
            "Mean score against the floor, for both orders of ReLU and mean over channels, one "
            "panel a model[[, without and with DCLS]]; below, the share of tied pixels. Bands: "
            "95 % intervals over images.",
        ),
        Caption(
            "two_by_two", "Threshold-Grad-CAM taken apart: order and floor",
            "Paired change of the score against plain Grad-CAM by the floor of 0.3 alone, by the "
            f"ReLU before the mean alone, and by both, which is Threshold-Grad-CAM. {_BARS}",
        ),
        Caption(
            "measures", "Other measures of agreement",
            "Each backbone's rank among the models under each measure of agreement, 1 the best: "
            "where rows of a column differ, the choice of measure matters.",
        ),
        Caption(
            "randomisation", "Maps of networks that forget, from the head down",
            "Similarity (Spearman's correlation, mean over images) of maps to those of the "
            "trained network, as the weights of its parts are drawn anew, once, from the head "
            "down; scales, biases and statistics stay. Maps that stay similar do not depend on "
            "what was learned. Threshold-Grad-CAM's hardly change with the head: on the embedded "
            "example their similarity is then still 0.88, Grad-CAM's 0.29, so that they tell more "
            "of where features are large than of the class. Bands: 95 % intervals over images.",
        ),
        Caption(
            "method_grid", "Every CAM method on one image",
            "A row per method, a column per model, for the image's true class; grey where the "
            "network does not look, and all over where a map is constant. The last row is a "
            "control: Grad-CAM with random weights of the channels, which still shows where "
            f"features are large. {_MAPS}",
        ),
        Caption(
            "concepts", "What the features of the layer are made of",
            "Deep feature factorisation: the last features of some images together, without any "
            "class, as the sum of a few concepts that are never negative. A pixel has the colour "
            "of its strongest concept, the fuller the stronger. Beside each concept: the two "
            "likeliest classes, with their probability, of the model's answer to features that "
            "are the concept's everywhere.",
        ),
        Caption(
            "method_ranking", "CAM methods by their agreement with people",
            "Mean over the pairs of image and model of which every method but the control has a "
            "valid map, the best above; methods that take many forwards (ScoreCAM, FullGrad) are "
            "left out. Neighbours may differ by nothing: on these networks several formulas give "
            "equal maps. The control, Grad-CAM with random weights of the channels, follows where "
            f"features are large, which alone agrees with people. {_SCORE} {_BARS}",
        ),
        Caption(
            "faithfulness_measures", "Faithfulness of CAM methods, measure by measure",
            "A panel per measure, with its unit, whose definition it is, and the number of images; "
            "a row per method that has every measure, a mark per model. Maps and probabilities are "
            "of the predicted class. Average drop, deletion and road_morf are lower where a map is "
            "more faithful, the others higher; let_through, the map's mean, is no merit, but who "
            "hides less drops less. Bars: 95 % intervals over images.",
        ),
        Caption(
            "alignment_faithfulness", "Agreement with people against faithfulness",
            "A panel per model, a point per CAM method: its score, and the average drop of the "
            "predicted class's probability when the image is masked with the map; left is more "
            f"faithful, up agrees more with people. {_BARS}",
        ),
        Caption(
            "cose", "COSE: consistency against sensitivity",
            "A panel per method[[; an arrow leads from each model to the same with DCLS]]. "
            "Right: explanations stay the same, where the image is changed and the answer "
            "stays right; up: they change, where it becomes wrong. Grey: lines of equal COSE. "
            "Chance is what unrelated random maps of this resolution score, the ceiling what maps "
            "score that follow the image perfectly and are unrelated once the answer changes: no "
            "bound, as maps can become opposed. The control has one random set of channel weights "
            "for all images: it follows the features, and so both the image and the answer. "
            "Each map is scaled to 0-1, as published (docs/cose.md). "
            "Bars, where there are any: 95 % bootstrap intervals over images.",
        ),
        Caption(
            "cose_by_change", "COSE by kind of change",
            "Consistency and sensitivity for each kind of change, pairs of all models together; "
            "a change of the network has no consistency, and one that no answer fell to no "
            "sensitivity. Bars, where there are any: 95 % bootstrap intervals over images.",
        ),
        Caption(
            "cose_followed", "Explanations of changed images, brought back",
            "An image, the largest change of each kind that COSE made of it, the explanation of "
            "each, and where it lies on the unchanged image; uncovered is what left it. SSIM "
            "compares it with the first column's, as published and, in brackets where it differs, "
            "corrected; it should be high where the answer is the same, low where it is another. "
            f"{_MAPS}",
        ),
        Caption(
            "lcam_losses", "L-CAM: the loss while it is trained",
            "Terms of the loss of the two L-CAMs step by step, thick the mean of five steps, and "
            "how often the network keeps its answer when it sees only what the map lets through.",
        ),
        Caption(
            "lcam_looks", "L-CAM: maps while they are trained",
            "Maps of the network's predicted class, from an untrained module on; below, "
            f"Grad-CAM's. {_MAPS}",
        ),
        Caption(
            "lcam_maps", "L-CAM: trained maps beside gradients' maps",
            "Human maps, and each method's maps of the predicted class, on images that modules "
            f"were not trained on. {_MAPS}",
        ),
        Caption(
            "lcam", "Learned maps against Grad-CAM",
            "Of each method and measure the difference to Grad-CAM, paired by image: a mark per "
            "model, and the mean over all of them with its 95 % interval over images. "
            "Average drop is what L-CAM is trained for, so that "
            f"a smaller one is its own yardstick. {_SCORE}",
        ),
        Caption(
            "learned_kernels", "Learned kernels",
            "Kernels of sixteen channels of the first replaced layer of each stage, over the whole "
            "window in which positions are learned; each on its own symmetric scale, which is "
            "linear around 0 and logarithmic beyond.",
        ),
        Caption(
            "receptive_fields", "Receptive fields",
            "How strongly the central feature depends on each input pixel, mean over images, "
            "[[with and without DCLS]].",
        ),
    ],
)  # fmt: skip


def caption_of(key: str, choices: Choices) -> tuple[str, str] | None:
    """Title and text of a figure of a study; None for one that has no row."""
    if key not in CAPTIONS:
        return None
    row, comparison = CAPTIONS[key], choices.comparison
    forms = forms_of(choices)
    first, second = forms if len(forms) == 2 else ("the first", "the later")
    number = f"{row.number}. " if row.number and choices.of_paper else ""
    kept = r"\1" if choices.paired else ""
    words = {
        "first": first, "second": second, "rows": comparison.rows, "label": comparison.label,
        "change": comparison.change, "axis": comparison.axis or "their order",
        "panels": "" if comparison.key == "methods" else "One panel per method.",
        "clickme": _CLICKME if choices.profile.published_ceiling else "",
    }  # fmt: skip
    title, text = (
        re.sub(r"\[\[(.*?)\]\]", kept, some).format(**words) for some in (row.title, row.text)
    )
    return number + title, " ".join(text.split())
