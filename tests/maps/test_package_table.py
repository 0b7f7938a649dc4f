"""Everything that pytorch-grad-cam defines has its line in docs/cam-methods.md, made from here.

`python tests/maps/test_package_table.py` writes the page anew.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import pytorch_grad_cam

from lib.analyses.faithfulness.definitions import FAITHFULNESS
from lib.base.paths import ROOT
from lib.maps.methods import METHODS

PAGE = ROOT / "docs" / "cam-methods.md"
WITHIN = "internal to the package"
METRIC = "`package_metrics`, measure `{}`"

# The package's class or function: what does the same here.
METHOD_ROWS = {
    "GradCAM": "grad_cam", "GradCAMPlusPlus": "grad_cam_plus_plus", "XGradCAM": "x_grad_cam",
    "HiResCAM": "hires_cam", "GradCAMElementWise": "element_wise", "LayerCAM": "layer_cam",
    "EigenCAM": "eigen_cam", "EigenGradCAM": "eigen_grad_cam", "SegEigenCAM": "seg_eigen_cam",
    "KPCA_CAM": "kpca_cam", "FEM": "fem", "ShapleyCAM": "shapley_cam", "FinerCAM": "finer_cam",
    "AblationCAM": "ablation_cam", "ScoreCAM": "score_cam", "FullGrad": "full_grad",
    "RandomCAM": "random_cam", "RefineCAM": "refine_cam", "SESS": "sess",
    "GuidedBackpropReLUModel": "guided_backprop",
}  # fmt: skip
MEASURES = (
    "CamMultImageConfidenceChange", "DropInConfidence", "IncreaseInConfidence",
    "ROADMostRelevantFirst", "ROADLeastRelevantFirst", "ROADMostRelevantFirstAverage",
    "ROADLeastRelevantFirstAverage", "ROADCombined", "Complexity", "Coherency", "ARCC",
)  # fmt: skip
OTHERS = {
    "BaseCAM": "`live_maps`, with its `reshape`, `aug_smooth`, `eigen_smooth` and several layers; "
    "your own class: `add_method(key, cam=…)`",
    "DeepFeatureFactorization": "`factorised`", "dff": "`factorised`",
    "run_dff_on_image": "`factorised`, `plot_concepts`",
    "ClassifierOutputTarget": "class numbers, `class_score`",
    "ClassifierOutputSoftmaxTarget": "`class_probability`",
    "ClassifierOutputReST": "`class_rest`", "BinaryClassifierOutputTarget": "`binary`",
    "RawScoresOutputTarget": "`whole_answer`",
    "SoftmaxOutputTarget": "none: it returns one number per class, which has no gradient in either "
    "package; use `class_probability`",
    "SemanticSegmentationTarget": "`class_in_region`",
    "FasterRCNNBoxScoreTarget": "itself, as a target of `live_maps`, for a layer that returns a tensor "
    "(`backbone.body.layer4`)",
    "FinerWeightedTarget": "itself, as a target of `live_maps`; the row `finer_cam` creates it",
    "vit_reshape_transform": "not needed: the shape decides; else `reshape`",
    "swinT_reshape_transform": "not needed: the shape decides; else `reshape`",
    "fasterrcnn_reshape_transform": "none: a pyramid of several maps has no gradient in the "
    "other package either; name one layer of the backbone",
    "PerturbationConfidenceMetric": "`package_metrics`",
    "RemoveMostRelevantFirst": "`package_metrics(…, percentiles=80)`, or \"auto\"",
    "RemoveLeastRelevantFirst": "`package_metrics(…, percentiles=20)`, or \"auto\"",
    "AveragerAcrossThresholds": "`package_metrics(…, percentiles=[…])`",
    "NoisyLinearImputer": "`imputed` of `lib.analyses.faithfulness`",
    "show_cam_on_image": "`overlay` of `lib.figures.heatmaps`",
    "show_factorization_on_image": "`plot_concepts`",
    "create_labels_legend": "`plot_concepts`",
    "sobel_cam": "none: it shows edges of the image and needs no model",
    "preprocess_image": "none: each model has its own preprocessing (`StudyModel.prepare`)",
    "deprocess_image": "none: figures scale images themselves",
    "multiply_tensor_with_cam": WITHIN, "batch_pearson_coherency": WITHIN,
    "sliding_window": WITHIN, "window_starts": WITHIN, "scale_cam_image": WITHIN,
    "scale_accross_batch_and_channels": WITHIN, "get_2d_projection": WITHIN,
    "get_2d_projection_kernel": WITHIN, "get_2d_projection_with_sign_correction": WITHIN,
    "replace_layer_recursive": WITHIN, "replace_all_layer_type_recursive": WITHIN,
    "find_layer_types_recursive": WITHIN, "find_layer_predicate_recursive": WITHIN,
    "ActivationsAndGradients": WITHIN, "AblationLayer": WITHIN, "AblationLayerVit": WITHIN,
    "AblationLayerFasterRCNN": WITHIN, "GuidedBackpropReLU": WITHIN,
    "GuidedBackpropReLUasModule": WITHIN,
}  # fmt: skip


def here() -> dict[str, str]:
    rows = {name: f"row `{key}`: {METHODS[key].label}" for name, key in METHOD_ROWS.items()}
    return rows | {name: METRIC.format(name) for name in MEASURES} | OTHERS


def defined() -> dict[str, str]:
    """{name: module} of the package's classes and functions."""
    found = {}
    for module in pkgutil.walk_packages(pytorch_grad_cam.__path__, "pytorch_grad_cam."):
        for name, thing in vars(importlib.import_module(module.name)).items():
            made = inspect.isclass(thing) or inspect.isfunction(thing)
            if made and thing.__module__ == module.name and not name.startswith("_"):
                found[name] = module.name.removeprefix("pytorch_grad_cam.")
    return found


def page() -> str:
    ours, modules = here(), defined()
    calls = sorted(
        (name for name in modules if ours.get(name, "") != WITHIN),
        key=lambda name: (modules[name].startswith("utils"), "metrics" in modules[name], name),
    )
    notes = {key: METHODS[key].note for key in METHOD_ROWS.values()}
    lines = [
        "# Equivalents of pytorch-grad-cam's classes",
        "",
        "This table lists every class and function of pytorch-grad-cam and its equivalent here.",
        "",
        "```",
        "python run_all.py --list                  # all methods of the study",
        "```",
        "",
        "`python tests/maps/test_package_table.py` makes the table from the installed package. A "
        "test fails for a class or function without a line and names it. "
        "`tests/maps/test_methods.py` and `tests/maps/test_live.py` compare the methods with the "
        "package's classes; `tests/analyses/faithfulness/` compares the metrics.",
        "",
        "| in pytorch-grad-cam | here | note |",
        "|---|---|---|",
    ]
    for name in calls:
        note = notes.get(METHOD_ROWS.get(name, ""), "")
        lines.append(f"| `{name}` | {ours.get(name, '?')} | {note} |")
    rest = ", ".join(f"`{name}`" for name in sorted(modules) if ours.get(name) == WITHIN)
    return "\n".join(lines) + f"\n\nInternal parts of the package, without an equivalent: {rest}.\n"


def test_everything_that_the_package_defines_has_a_line():
    assert set(defined()) == set(here())


def test_the_page_is_what_this_file_makes():
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_there(name):
    assert name in FAITHFULNESS


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
