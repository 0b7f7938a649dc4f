"""The questions that the report answers, with the figures and tables that belong to each."""

from __future__ import annotations

from dataclasses import dataclass

from ..base.tables import Table


@dataclass(frozen=True)
class Question:
    """A row: a fold of the report.

    text    : the question, as its heading
    figures : file names without suffix; a figure whose name begins with one of them and an
              underscore belongs here too
    tables  : keys of TABLES, or of a table that the page reads in its own way
    """

    key: str
    text: str
    figures: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


QUESTIONS: Table[Question] = Table(
    "question",
    [
        Question("claims", "Which of the paper's claims hold?", tables=("verdicts",)),
        Question(
            "agreement", "How well do the heatmaps agree with where people look?",
            ("beside_people", "scores", "leaderboard", "accuracy", "rho_per_image"),
            ("results", "leaderboard", "beside_people", "summary", "controls_summary", "ceiling"),
        ),
        Question(
            "difference", "Which models differ?",
            ("pairs", "along", "size", "paired_differences", "compared"),
            ("paired", "compared", "power"),
        ),
        Question(
            "looking", "Where do people look, and where do the heatmaps lie?",
            ("gaze_sample", "scanpaths", "clickme_sample", "maps_beside_people", "maps_by_method",
             "maps_of_two"),
        ),
        Question(
            "fixations", "How well do the heatmaps predict single fixations?",
            ("fixation_measures",), ("fixation_measures",),
        ),
        Question(
            "methods", "Which CAM method agrees with people, and which is faithful to its model?",
            ("method_ranking", "method_grid", "concepts", "faithfulness_measures",
             "alignment_faithfulness"),
            ("method_ranking", "faithfulness", "method_costs"),
        ),
        Question(
            "threshold", "Which step of Threshold-Grad-CAM changes the score?",
            ("floor_sweep", "two_by_two"), ("threshold", "two_by_two"),
        ),
        Question(
            "checks", "Does the answer depend on the weights, the class, the measure or the "
            "protocol?",
            ("randomisation", "measures", "protocols"), ("sanity", "measures", "targets"),
        ),
        Question(
            "cose", "Do the heatmaps follow the image, and change when the answer changes?",
            ("cose", "cose_by_change", "cose_followed"),
            ("cose", "cose_dcls", "cose_conditions", "cose_left_out"),
        ),
        Question(
            "lcam", "Are learned attention maps more faithful than Grad-CAM?",
            ("lcam", "lcam_losses", "lcam_looks", "lcam_maps"), ("lcam_against_grad_cam",),
        ),
        Question(
            "conversion", "What does DCLS change inside a model?",
            ("learned_kernels", "receptive_fields"), ("parameters",),
        ),
        Question("other", "Other figures"),
    ],
)  # fmt: skip


_QUESTION_OF = {name: row.key for row in QUESTIONS.values() for name in row.figures}


def named_as(figure: str) -> str:
    """The figure of a question that this one is, or is one of: "leaderboard" of
    "leaderboard_grad_cam"; "" for one that no question names."""
    fitting = [name for name in _QUESTION_OF if f"{figure}_".startswith(f"{name}_")]
    return max(fitting, key=len, default="")


def question_of(figure: str) -> str:
    """The key of the question to which a figure belongs; "other" for one that none names."""
    return _QUESTION_OF.get(named_as(figure), "other")


# Braces take the words of the study's comparison.
TABLES = {
    "beside_people": "People, models and controls on one scale",
    "fixation_measures": "Measures at the fixations themselves",
    "weights": "Weights: files, checksums, accuracy",
    "summary": "Scores in full: agreement, ceiling, floor",
    "controls_summary": "Controls: maps that no model made",
    "ceiling": "The human ceiling: how well these people agree with one another",
    "paired": "Differences between models, paired by image: {change}",
    "compared": "Every two models, paired by image",
    "power": "How many images it takes to find a difference",
    "sanity": "Heatmaps of models with re-initialised layers",
    "measures": "Other measures of agreement",
    "threshold": "The floor of Threshold-Grad-CAM, value by value",
    "two_by_two": "Order of ReLU and mean, and floor, one by one",
    "targets": "Heatmaps of the true and of the predicted class",
    "method_ranking": "CAM methods, ranked by their agreement with people",
    "faithfulness": "Faithfulness of CAM methods to their model",
    "method_costs": "What a CAM method costs",
    "cose": "COSE: consistency and sensitivity of the heatmaps",
    "cose_dcls": "COSE: with DCLS minus without",
    "cose_conditions": "Answers before and after a change of the image",
    "cose_left_out": "What COSE skipped",
    "lcam_against_grad_cam": "Learned maps less Grad-CAM",
    "parameters": "Learnable parameters",
}
NOTES = {
    "beside_people": "rho is the mean Spearman correlation with the human map of all observers, "
    "not divided by any ceiling; a single person is compared with the map of all others. "
    "reading is the part of the image that the model sees. Intervals: 95 %, over images.",
    "fixation_measures": "nss counts standard deviations above the heatmap's mean; auc judd and "
    "shuffled auc are 0.5 at chance; information gain is in bits per fixation beyond the centre "
    "bias. Higher is better for all of them. The rows of people compare each observer's fixations "
    "with the map of all others (docs/fixations.md).",
    "weights": "verified says whether the publisher's checksum was compared when the file was "
    "fetched; top1 is the accuracy on these images, top1 known the published accuracy on "
    "ImageNet's validation images; p is the probability of such a gap by chance.",
    "summary": "raw is mean ρ; score is raw over the ceiling, and missing where no ceiling is "
    "known; control names the strongest control; over control is the score less the control's, "
    "paired by image, and above control says whether it significantly exceeds 0; rescaled is 0 "
    "at the "
    "strongest control and 1 at the ceiling, and missing where the control comes near the ceiling; "
    "other human is the score of another image's human map; partial is ρ with the distance from "
    "the centre held constant; correct is the score over correctly classified images; tied is the "
    "share of pixels whose value occurs more than once; attainable is the largest ρ that these "
    "ties allow. Intervals: 95 %, over images.",
    "ceiling": "split half is the mean ρ between the maps of two halves of an image's observers; "
    "ceiling is the same for all observers, by the formula of Spearman and Brown; one against rest "
    "compares one observer's map with the map of all others; most is the mean ρ that a perfect "
    "model would reach. These are known only where the ceiling is estimated.",
    "controls_summary": "strongest marks the floor, the control with the highest score of its "
    "protocol and reading. A model that does not score above the floor may only look at the "
    "centre, or where people look in any image.",
    "paired": "difference is the second model's score less the first one's, the mean over images "
    "with its uncorrected 95 % interval; p tests for no difference and is missing for few images; "
    "p holm is corrected over the pairs of a protocol and panel; decision follows from p holm and "
    "the smallest effect that matters; effect is Cohen's d; spread is the standard deviation over "
    "images.",
    "compared": "difference is the second model's score less the first one's; p is corrected by "
    "Holm over all pairs of a protocol.",
    "power": "The number of images with which a paired t test finds a mean difference of that size "
    "four times in five, at the level 0.05 ÷ 8, with the spread seen here.",
    "threshold": "order is that of ReLU and mean over channels; tied is the share of pixels whose "
    "value occurs more than once; attainable is the largest ρ that these ties allow.",
    "faithfulness": "All measures are of the predicted class. Lower means more faithful for "
    "average drop, deletion and road morf; higher means more faithful for increase, insertion, "
    "road lerf and road combined. let through, the map's mean in per cent, has no better side, "
    "but a map that hides less drops less. Average drop and increase follow L-CAM, deletion and "
    "insertion follow RISE, and ROAD removes 20, 50 and 80 % of the pixels.",
    "method_costs": "The time of a map beyond the forward pass and head gradient that all methods "
    "share, in milliseconds and as a multiple of the model's forward pass; measured once, on this "
    "machine.",
    "cose": "Each heatmap is of the class that the model predicts for that input. consistency is "
    "the mean SSIM where the answer stays right; sensitivity is 1 less the mean SSIM where the "
    "answer becomes wrong; COSE is the root of their product. chance is the COSE of unrelated "
    "random maps of this resolution; ceiling is that of maps that follow the image perfectly and "
    "are unrelated once the answer changes, and is no bound. matched is COSE after finer maps are "
    "averaged to the layer's cells; n kept and n changed count pairs; n undefined counts pairs of "
    "two constant maps. Fewer than twelve images have no intervals. The published form scales each "
    "map to 0–1 as its method gives it; the corrected form scales it within the part of the image "
    "that stayed, and compares whole windows only.",
    "cose_dcls": "Paired by image, over the images that both models classify correctly; 95 % "
    "intervals, not corrected for their number.",
    "lcam_against_grad_cam": "difference is paired by image and averaged over models, with its "
    "uncorrected 95 % interval; better counts the models that improve. Lower is better for "
    "average drop, higher for everything else; let through, the map's mean in per cent, is no "
    "merit. Maps are of the predicted class; for the score, of the study's target class.",
    "sanity": "similarity is ρ with the trained model's heatmap; part names the last part of the "
    "model that was re-initialised.",
    "measures": "rank is the model's place under this measure; 1 is the best.",
}
