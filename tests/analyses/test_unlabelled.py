"""Images of which nobody told the class: no analysis takes the mark for a class."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.analyses.cose.pairs import ShownImages
from lib.analyses.method_study import map_grid
from lib.analyses.sanity import compare_targets
from lib.explorer.explained import Explainer
from lib.maps.methods import METHODS
from lib.maps.placed import heatmaps
from lib.people.stored import StoredError
from lib.report.readable import readable_table
from lib.report.result_table import results_table
from lib.scores import ceilings_of, people_of, score_controls, score_study, summarise
from lib.scores.accuracy import weights_table
from lib.study import Study, evidence_titles, held_out, image_titles


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("unlabelled")
    rng = np.random.default_rng(0)
    rows = ["image,map"]
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(
            folder / f"{name}.png"
        )
        np.save(folder / f"{name}.npy", rng.random((256, 256)))
        rows.append(f"{name}.png,{name}.npy")
    (folder / "labels.csv").write_text("\n".join([*rows, ""]))
    return Study.from_profile(
        "demo", models=["resnet50"], methods=["grad_cam"], protocols=["corrected"],
        images=str(folder), target="predicted",
    )  # fmt: skip


def test_what_needs_a_class_has_no_value(study):
    scores = score_study(study)
    assert set(scores.label) == {-1}
    assert scores[["top1", "top5"]].isna().all(axis=None)
    ceilings = ceilings_of(study.choices, people_of(study))
    row = summarise(study.choices, scores, ceilings).iloc[0]
    assert row[["top1", "top1_low", "correct"]].isna().all()
    assert row.n_correct == 0
    assert row.n == 3
    weights = weights_table(study, scores)
    assert (weights.n == 0).all()
    assert weights.top1.isna().all()
    results = results_table(study, scores, score_controls(study), ceilings)
    assert "Top-1 (%)" not in readable_table(results)
    found = compare_targets(study)
    assert found.empty
    assert {"true", "predicted", "n"} <= set(found)


def test_maps_are_of_the_predicted_class(study):
    batch = held_out(study, 3)
    assert image_titles(study, batch) == ["a", "b", "c"]
    model = study.networks.inference_model("resnet50", False)
    with torch.no_grad():
        best = model(model.prepare(batch.images)).argmax(dim=1)
    names = study.networks.class_names()
    titles = evidence_titles(study, model, batch.images, study.choices.asked(batch.labels))
    assert [title.split(",")[0] for title in titles] == [names[c].split(",")[0] for c in best]
    row = METHODS["grad_cam"]
    grid, _, _ = map_grid(study, [row], study.choices.variants[:1])
    expected = heatmaps(model, batch.images[:1], best[:1], (row,))
    np.testing.assert_allclose(grid[row.label], expected[row.label], atol=1e-6)
    shown = ShownImages.of_clickme(batch, model.backbone.preprocessing)
    assert shown.labels is None
    explainer = Explainer(study)
    assert [image.label for image in explainer.images] == [None] * 3
    view = explainer.view("resnet50", "grad_cam", 0.0, explainer.images[0])
    assert view.predicted
    assert view.truth == ""


def test_the_true_class_of_what_has_none_is_refused_at_once(study):
    with pytest.raises(StoredError, match="no classes of its images: use `--target predicted`"):
        score_study(study.changed(target="true"))
    assert isinstance(study.facts()["viewing"], dict)


def test_an_archive_may_lack_its_label(tmp_path):
    for number in range(2):
        pixels = np.full((256, 256, 3), number, np.uint8)
        label = {} if number else {"label": np.array(3)}
        np.savez(tmp_path / f"{number}.npz", image=pixels, heatmap=np.eye(256), **label)
    options = {"images": str(tmp_path), "protocols": ["corrected"], "models": ["resnet50"]}
    mixed = score_study(Study.from_profile("demo", target="predicted", **options))
    assert mixed.drop_duplicates("image_id").top1.isna().tolist() == [False, True]
    with pytest.raises(StoredError, match=r"1\.npz has no label; `--target predicted` needs none"):
        score_study(Study.from_profile("demo", **options))
    assert isinstance(mixed, pd.DataFrame)
