"""What each figure shows, in words: its caption, and a text for those who cannot see it.

The order is that of the report. What stands in double brackets is said only of a study that has
pairs with and without DCLS; braces take words from the study's comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..base.tables import Table
from ..study.choices import Choices
from ..study.comparisons import forms_of
from ..study.rules import RULES


@dataclass(frozen=True)
class Caption:
    """A row: `key` is the figure's file name without suffix.

    text     : what is drawn, for which data, and what bars and marks are
    alt      : one or two sentences for those who cannot see the figure
    notebook : the number of the notebook that makes it
    number   : of the paper's figure that it is, said where the paper's models ran
    """

    key: str
    title: str
    text: str
    alt: str
    notebook: str
    number: str = ""


# Of fewer images an interval would span most of the axis, and some figures draw none.
FEWEST_WITH_INTERVAL = 5

_MAPS = (
    "Colours run from each map's own minimum to its own maximum, so they compare places within "
    "an image, not images with each other. Grey: the model does not see this part of the image."
)
_BARS = "Error bars: 95 % intervals over n images; the figure gives n."
_SCORE = (
    "Score: agreement ρ (Spearman's rank correlation of heatmap and human map, mean over the "
    "images whose heatmap is valid) divided by the human ceiling on the axis; ρ itself where no "
    "ceiling is known."
)
_CAUTIOUS = (
    f"For fewer than {RULES.fewest_images} images they also allow for unseen images as extreme as "
    "any seen."
)
_CONTROLS = "Lines and their bands: control maps that no network made, with their 95 % intervals."

_CLICKME = (
    "A ceiling of 0.658 is ClickMe's, published as a number; if it is the correlation of two "
    "halves of the players, a perfect model reaches 1.35."
)

CAPTIONS: Table[Caption] = Table(
    "figure",
    [
        Caption(
            "beside_people", "People, a model, and maps that ignore the image",
            "Agreement ρ with the human map of all observers, mean over n images: of a model's "
            "heatmaps, one row per CAM method; of control maps; and of people (one person with "
            "all others, one half with the other, and what as many other people would reach). "
            "The dashed line marks the floor, the strongest control. A heatmap to its left "
            "agrees less with people than this control; only a paired test decides whether "
            "that is sure. Error bars: 95 % intervals over images; for fewer than 50 images "
            "they also allow for unseen images as extreme as any seen.",
            "Dots with horizontal error bars, one row each for people, CAM methods and control "
            "maps, ordered by agreement with the human map; a dashed line marks the strongest "
            "control.", "00",
        ),
        Caption(
            "gaze_sample", "Where people looked, and where a model finds its evidence",
            "Eight images with the fixations of all observers; above each, the class that is "
            "explained, with its probability where the model predicted it. Below: the human map "
            "made from the fixations, and heatmaps of the model (of the first, where there are "
            f"several). {_MAPS}",
            "Rows of eight images: photographs with fixation points, human maps, and heatmaps of "
            "a model laid over the photographs.", "00",
        ),
        Caption(
            "fixation_measures", "Heatmaps measured at fixations",
            "Mean over n images of four measures that use the fixations themselves, a panel each. "
            "NSS: the map's value at fixations, in standard deviations above its mean. "
            "AUC-Judd: how often a fixated pixel lies above any pixel. Shuffled AUC: how often it "
            "lies above pixels fixated in other images, so that a preference for the centre earns "
            "nothing. Information gain: bits per fixation beyond the centre bias. The row of "
            "people: each observer's fixations under the map of all others. Larger is better; "
            "the dotted line is chance. Error bars: 95 % intervals over images.",
            "Four panels of dots with error bars, one row per CAM method, control and people, "
            "for NSS, two kinds of AUC and information gain; a dotted line marks chance.", "00",
        ),
        Caption(
            "scanpaths", "Scanpaths of three observers",
            "Fixations of the first three observers on four images: one colour per observer, "
            "fixations numbered in their order. Fixations outside the image are not drawn.",
            "Four photographs with numbered fixations joined by lines, one colour for each of "
            "three observers.", "00",
        ),
        Caption(
            "clickme_sample", "Images and human maps",
            "Eight images as models receive them, and their human maps under the study's first "
            f"protocol. {_MAPS}",
            "Eight images above, and below them the same images overlaid with human maps.", "01",
        ),
        Caption(
            "maps_beside_people", "Human maps and a model's heatmaps",
            "Eight images, their human maps, and the heatmaps of the models of one {rows}: of "
            "ConvNeXt-B where it is chosen, else of the first. Each heatmap explains the class "
            "above the image; where predicted classes are asked for, that class is the first "
            "model's prediction, and each other heatmap explains its own model's prediction. "
            f"{_MAPS}",
            "Rows of eight images: the images, their human maps, and the heatmaps of each model "
            "compared.", "03", "Figure 1",
        ),
        Caption(
            "pairs", "Scores of pairs: {second} against {first}",
            "One point per {rows}: the score {first} (horizontal) and {second} (vertical). Points "
            f"above the dashed line score higher {{second}}. {_SCORE} {_BARS}",
            "Scatter plot with one named point per {rows}, the score {first} against the score "
            "{second}, with error bars and the dashed line of equal scores.", "05", "Figure 2",
        ),
        Caption(
            "scores", "Scores: {label}",
            f"{{panels}} {_SCORE} 1 means that a model agrees with people as much as they agree "
            f"with each other. {_BARS} {_CONTROLS} They are scored in the same way: the centred "
            "Gaussian, the mean human map of the other images, another image's human map, and "
            "random maps. A hollow column is not significantly above the strongest of them: such a "
            "model "
            "may do no more than look at the centre. {clickme}",
            "Column chart of the score of every model with error bars, one panel per CAM method, "
            "crossed by black and grey lines of control maps.", "05", "Figure 3",
        ),
        Caption(
            "along", "Scores along the comparison's axis",
            "Score against {axis}, one line per {rows}, one panel per CAM method. Where few points "
            "are compared, a line between them is no trend by itself: the table of differences "
            f"gives the tests. {_CONTROLS} {_SCORE} {_BARS}",
            "Lines with error bars: the score against {axis}, one line per {rows}, crossed by "
            "black and grey lines of control maps.", "05",
        ),
        Caption(
            "size", "Size and score",
            "One named point per {rows}, its first model: learnable parameters and score. The "
            "title gives Spearman's rank correlation over models with its 95 % interval (Bonett "
            "and Wright), which takes these models for a sample of others like them. "
            f"{_SCORE} {_BARS}",
            "Scatter plot with one named point per model: the number of learnable parameters "
            "against the score, with error bars.", "05", "Figure 4",
        ),
        Caption(
            "leaderboard", "Leaderboard",
            f"Every model of the run, the best first. {_SCORE} {_BARS} {_CONTROLS} The coloured "
            "line is the human ceiling. A hollow mark is not significantly above the strongest "
            "control. "
            "Neighbours may not differ: the paired differences compare two models.",
            "Dots with horizontal error bars, one row per model, the best on top, beside black "
            "and grey lines of control maps and a coloured line of the human ceiling.", "05c",
        ),
        Caption(
            "accuracy", "Accuracy and agreement",
            "One named point per model: ImageNet's top-1 accuracy as published, on ImageNet's own "
            "validation images, and the score. Models of unknown accuracy are listed, not drawn. "
            "The title gives Spearman's rank correlation over models with its 95 % interval "
            f"(Bonett and Wright); below five models it gives none. {_SCORE} {_BARS}",
            "Scatter plot with one named point per model: published ImageNet accuracy against the "
            "score, with error bars.", "05c",
        ),
        Caption(
            "maps_by_method", "Every method on one model",
            "Heatmaps of every chosen method on ResNet-50[[ without DCLS]] (on the first model "
            "where that is not chosen), for the true class, or for the predicted class of "
            f"photographs without a label. {_MAPS}",
            "A row of images, then one row of heatmaps over the same images for each CAM method.",
            "03", "Figure 5",
        ),
        Caption(
            "maps_of_two", "Heatmaps of CAFormer and ConvFormer, or of others",
            "Heatmaps of every chosen method on CAFormer and ConvFormer without DCLS, whose plain "
            "Grad-CAM heatmaps the paper calls random; on the first model where neither is chosen. "
            f"{_MAPS}",
            "A row of images, then one row of heatmaps over the same images for each model and "
            "CAM method.", "03", "Figure 6",
        ),
        Caption(
            "paired_differences", "Differences, image by image: {change}",
            "One row per pair, one panel per CAM method: the mean difference over the images valid "
            "for both models, in units of the score. Thick error bars: 95 % intervals of the mean; "
            "thin lines: the middle half of the images. Filled marks: p below 0.05, corrected by "
            "Holm over the pairs of the panel; the intervals are not corrected. Grey: the "
            "difference is shown to be too small to matter.",
            "Dots with thick error bars and thin lines, one row per pair of models, on either "
            "side of a dashed line at zero; one panel per CAM method.", "05b",
        ),
        Caption(
            "compared", "Every two models, image by image",
            "Mean score of the row's model minus the column's, over the n images valid for both. A "
            "cell has a number where the two differ significantly (p < 0.05, corrected by Holm "
            "over all pairs), ≈ where the difference has been shown to be too small to matter, and "
            "? where it is undecided; the colour then shows no more than the mean. A small number "
            "may be too small to matter as well, but these images do not show it.",
            "Matrix of all pairs of models, red where the row's model scores higher and blue where "
            "it scores lower, with a number in each decided cell.", "05b",
        ),
        Caption(
            "rho_per_image", "How the agreement spreads over images",
            "Distribution of the agreement ρ over the n images with a valid heatmap: {label}. "
            "Thick lines: the middle half of the images; white dots: medians. Of fewer than 30 "
            "images each is a dot, and no curve is drawn.",
            "One violin or column of dots per model shows how the agreement spreads over images, "
            "with its middle half and median.", "05",
        ),
        Caption(
            "protocols", "Published and corrected protocol",
            "Scores of the same models under each protocol; the distance between two marks of a "
            f"row is the effect of how images and human maps are read. {_SCORE} {_BARS}",
            "Dots with horizontal error bars, one row per model and one colour per protocol.",
            "05",
        ),
        Caption(
            "floor_sweep", "Threshold-Grad-CAM taken apart: the floor",
            "Score against the floor, for both orders of ReLU and mean over channels, one panel "
            "per backbone[[, without and with DCLS]]; below each, the share of tied pixels. "
            "Dotted: the published floor. Error bars: 95 % intervals over n images, at four floors "
            "and side by side so that they do not hide each other.",
            "Small panels of lines, one per backbone: the score, and below it the share of tied "
            "pixels, against the floor for two orders of operations.", "04c",
        ),
        Caption(
            "two_by_two", "Threshold-Grad-CAM taken apart: order and floor",
            "One row per model: the paired change of the score against plain Grad-CAM by the floor "
            "of 0.3 alone, by the ReLU before the mean alone, and by both, which is "
            f"Threshold-Grad-CAM. {_BARS}",
            "Three marks with horizontal error bars per model, for the floor alone, the ReLU "
            "alone and both, beside a dashed line at zero.", "04c",
        ),
        Caption(
            "measures", "Other measures of agreement",
            "Each model's rank among the models under each measure of agreement, 1 the best; one "
            "panel per CAM method; mean over n images. Where the rows of a column differ, the "
            "choice of measure matters. Ranks have no interval: close models change places by "
            "chance.",
            "Coloured table of ranks: a row per measure of agreement, a column per model; one "
            "panel per CAM method.", "04d",
        ),
        Caption(
            "randomisation", "Heatmaps of networks that are re-initialised from the head down",
            "Similarity (Spearman's correlation, mean over n images) of heatmaps to those of the "
            "trained network while the weights of its parts are drawn anew, once, from the head "
            "down; scales, biases and statistics stay. One panel per CAM method and backbone"
            "[[, without and with DCLS]]. A heatmap that stays similar does not depend on what was "
            "learned. Error bars: 95 % intervals over images, cut off at ±1; none "
            f"is drawn of fewer than {FEWEST_WITH_INTERVAL} images, because it would span most of "
            "the axis. At “nothing” the similarity is 1 by definition and has no interval.",
            "Small panels, one per CAM method and backbone: points with error bars fall from 1 "
            "as the network is re-initialised from its head to its stem.", "04d",
        ),
        Caption(
            "method_grid", "Every CAM method on one image",
            "One image, explained for its true class: methods in columns, models in rows; each "
            "model's row is broken into bands. The word “constant” marks a heatmap that is the "
            "same everywhere, which explains nothing. The last method is a control: Grad-CAM "
            "with random weights of the channels, which still shows where features are large. "
            f"{_MAPS}",
            "A grid of heatmaps over the same image, CAM methods in columns and models in rows; "
            "constant heatmaps are marked by the word.", "06",
        ),
        Caption(
            "concepts", "What the features of the layer are made of",
            "Deep feature factorisation: the last features of some images together, without any "
            "class, as the sum of a few concepts that are never negative. A pixel has the colour "
            "of its strongest concept, more saturated where that is stronger. The legend gives, "
            "for each concept, the two likeliest classes and their probability if the features "
            "were that concept everywhere.",
            "A row of images, and below it the same images in grey, coloured by the strongest "
            "concept at each place; a legend names each concept's likeliest classes.", "06",
        ),
        Caption(
            "method_ranking", "CAM methods by their agreement with people",
            "One row per method, the best on top: its mean over the pairs of image and model for "
            "which every method but the control has a valid heatmap. Methods that take many "
            "forward passes (ScoreCAM, FullGrad) are skipped. Neighbours may not differ: on these "
            "networks several formulas give equal heatmaps. The control, Grad-CAM with random "
            "weights of the channels, follows where features are large, which alone agrees with "
            f"people. {_SCORE} {_BARS} {_CAUTIOUS}",
            "Dots with horizontal error bars, one row per CAM method, the best on top.", "06",
        ),
        Caption(
            "faithfulness_measures", "Faithfulness of CAM methods, measure by measure",
            "One panel per measure, with its authors, unit and n; one row per method that has "
            "every measure, one mark per model. Heatmaps and probabilities are of the predicted "
            "class. Average drop, deletion and road morf are lower where a heatmap is more "
            "faithful, the others are higher; let through, the heatmap's mean, has no better "
            "side, but a method that hides less drops less. Error bars: 95 % "
            f"intervals over images; none is drawn of fewer than {FEWEST_WITH_INTERVAL} images, "
            "because it would span most of the axis.",
            "Small panels, one per measure of faithfulness: a row per CAM method with a mark "
            "for each model, and an error bar where there are enough images.", "06",
        ),
        Caption(
            "alignment_faithfulness", "Agreement with people against faithfulness",
            "One panel per model, one numbered point per CAM method: its score, and the average "
            "drop of the predicted class's probability when the image is masked by the heatmap. "
            "Left is more faithful, up agrees more with people. The diamond is the control, random "
            f"weights of the channels. {_BARS}",
            "Scatter plots, one per model, with a numbered point per CAM method: average drop "
            "against the score, with error bars.", "06",
        ),
        Caption(
            "cose", "COSE: consistency against sensitivity",
            "The first panel shows every model of every method on one scale; the others enlarge "
            "one method each[[, with an arrow from each model to the same with DCLS]]. Right: "
            "heatmaps stay the same where the image is changed and the answer stays right. Up: "
            "heatmaps change where the answer becomes wrong. Grey: lines of equal COSE, with its "
            "value. Chance is the COSE of unrelated random maps of this resolution. The ceiling "
            "is the COSE of maps that follow the image perfectly and are unrelated once the "
            "answer changes; it is no bound, because maps can become opposed. The control has one "
            "random set of channel weights for all images. Each heatmap is scaled to 0-1, as "
            "published (docs/cose.md). Error bars, where there are any: 95 % bootstrap "
            "intervals over images.",
            "Scatter plots of sensitivity against consistency: all methods together, then one "
            "enlarged panel per method with named points and grey lines of equal COSE.", "07",
        ),
        Caption(
            "cose_by_change", "COSE by kind of change",
            "Consistency (left) and sensitivity (right) for each kind of change, over the pairs of "
            "all models together. The brackets give the pairs that stay right and those that "
            "become wrong; a range, where methods lost some to constant heatmaps. A change of the "
            "network has no consistency, and a change that turned no answer wrong has no "
            "sensitivity. Error bars, where there are any: 95 % bootstrap intervals over images.",
            "Two panels of marks, consistency and sensitivity, with a row per kind of change and a "
            "colour per CAM method.", "07",
        ),
        Caption(
            "cose_followed", "Heatmaps of changed images, brought back",
            "One image, the largest change of each kind that COSE made of it, the heatmap of each, "
            "and the heatmap laid back on the unchanged image; what left the image is uncovered. "
            "SSIM compares it with the first column's, as published and, in brackets where it "
            "differs, corrected. It should be high where the answer is the same, and low where "
            f"the answer is another. {_MAPS}",
            "Columns of one image under each kind of change: the changed image, its heatmap, and "
            "the heatmap laid back on the original, with their similarity.", "07",
        ),
        Caption(
            "lcam_losses", "L-CAM: the loss during training",
            "Terms of the loss of the two L-CAMs step by step, and the share of images for which "
            "the network keeps its answer when it sees only what the heatmap lets through. Thin: "
            "each step; thick: the mean of five steps.",
            "Four panels of curves over training steps: cross-entropy, area, variation, and the "
            "share of images whose class stays when masked.", "08",
        ),
        Caption(
            "lcam_looks", "L-CAM: heatmaps during training",
            "Heatmaps of the network's predicted class from an untrained module on; the last row "
            f"is Grad-CAM's. {_MAPS}",
            "A row of images, then rows of heatmaps at successive steps of training, and "
            "Grad-CAM's.", "08",
        ),
        Caption(
            "lcam_maps", "L-CAM: trained heatmaps beside gradients' heatmaps",
            "Human maps, and each method's heatmaps of the predicted class, on images that the "
            f"modules were not trained on. {_MAPS}",
            "A row of images, a row of human maps, then one row of heatmaps per CAM method.", "08",
        ),
        Caption(
            "lcam", "Learned heatmaps against Grad-CAM",
            "One panel per measure, one row per method: its difference from Grad-CAM, paired by "
            "image. Small marks: one per model; a triangle at an end marks a model beyond "
            "the axis, which ends one and a half times the middle half of the marks beyond it. "
            "Coloured: the mean over all models with its 95 % interval over n images. Average drop "
            f"is what L-CAM is trained for, so that a smaller one is expected. {_SCORE}",
            "Panels of small marks, one per model, around zero, with the mean and its interval for "
            "each learned method and measure.", "08",
        ),
        Caption(
            "learned_kernels", "Learned kernels",
            "Kernels of sixteen channels of the first replaced layer of each stage, cropped, all "
            "alike, to the central cells that hold visible weights; the foot gives the size of the "
            "crop and of the whole window in which positions are learned. Each kernel has its own "
            "symmetric scale, linear around 0 and logarithmic beyond.",
            "Rows of sixteen small square kernels, one row per stage, red for positive and blue "
            "for negative weights.", "02",
        ),
        Caption(
            "receptive_fields", "Receptive fields",
            "How strongly the central feature of the last layer depends on each input pixel: the "
            "size of the gradient, mean over n images, relative to its peak, on a logarithmic "
            "scale, [[with and without DCLS]]. Each panel is the whole input of its model; the "
            "white bar gives the scale in pixels.",
            "A panel per model: brightness shows how strongly the central feature depends on each "
            "input pixel.", "02",
        ),
    ],
)  # fmt: skip


def caption_of(key: str, choices: Choices) -> tuple[str, str] | None:
    """Title and text of a figure of a study; None for one that has no row."""
    if key not in CAPTIONS:
        return None
    row = CAPTIONS[key]
    number = f"{row.number}. " if row.number and choices.of_paper else ""
    return number + _filled(row.title, choices), _filled(row.text, choices)


def alt_text_of(key: str, choices: Choices) -> str:
    """One or two sentences for those who cannot see a figure of a study; of a figure without a row
    those of the row that its name begins with ("leaderboard_grad_cam"), else its name."""
    known = [name for name in CAPTIONS if f"{key}_".startswith(f"{name}_")]
    if not known:
        return f"Figure {key.replace('_', ' ')}."
    return _filled(CAPTIONS[max(known, key=len)].alt, choices)


def _filled(text: str, choices: Choices) -> str:
    """A row's text with the words of the study's comparison."""
    comparison, forms = choices.comparison, forms_of(choices)
    first, second = forms if len(forms) == 2 else ("the first", "the later")
    words = {
        "first": first, "second": second, "rows": comparison.rows, "label": comparison.label,
        "change": comparison.change, "axis": comparison.axis or "their order",
        "panels": "" if comparison.key == "methods" else "One panel per CAM method.",
        "clickme": _CLICKME if choices.profile.published_ceiling else "",
    }  # fmt: skip
    kept = r"\1" if choices.paired else ""
    return " ".join(re.sub(r"\[\[(.*?)\]\]", kept, text).format(**words).split())
