"""The embedded photographs and people: what is there, and scores recomputed from raw fixations."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch.nn import functional as F

from lib.demo import real_people
from lib.figures import plot_beside_people, plot_fixation_measures, plot_scanpaths
from lib.people.clickme import ClickMe
from lib.people.stored import Read
from lib.report import in_sentences
from lib.scores import (
    FIXATION_MEASURES,
    score_beside_people,
    score_fixations,
    score_study,
    study_ceilings,
    summarise_fixations,
)
from lib.scores.observers import score_observers
from lib.study import Study, evidence_titles, held_out, looks
from lib.study.profiles import GAZE, PROFILES


def raw_points() -> dict[str, dict[str, np.ndarray]]:
    """{image: {observer: (fixation, 2)}} as the file has them."""
    found = defaultdict(lambda: defaultdict(list))
    with (GAZE / "gaze.csv").open() as file:
        for row in csv.DictReader(file):
            found[row["file"]][row["observer"]].append((float(row["x"]), float(row["y"])))
    return {n: {who: np.array(p) for who, p in of.items()} for n, of in found.items()}


def map_by_hand(points: np.ndarray) -> np.ndarray:
    """One degree's Gaussian around each fixation, as MobileNetV2's crop of the image sees it."""
    sigma = 24 * 256 / 600  # pixels a degree in the original, whose 600 rows are 256 here
    rows, columns = np.mgrid[:256, :256] + 0.5
    human = sum(np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) for x, y in points)
    delivered = _resized(torch.from_numpy(human)[None, None], 224)
    return _resized(delivered, 256)[0, 0, 16:240, 16:240].numpy()


def rounded(values: np.ndarray) -> np.ndarray:
    """To a hundred-thousandth of the range: where nobody looked nearby, pixels are equal."""
    return np.round((values - values.min()) / (values.max() - values.min()), 5)


def _resized(maps: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def test_the_embedded_example_is_small_and_says_whose_it_is():
    files = [path for path in GAZE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    assert "MIT License" in (GAZE / "LICENSE-OSIE").read_text()
    assert "Apache License" in (GAZE / "LICENSE-MobileNetV2").read_text()
    raw = raw_points()
    assert len(raw) == 48
    assert {len(of) for of in raw.values()} == {15}
    for name in raw:
        with Image.open(GAZE / name) as image:
            assert image.size == (256, 256)
    assert [f"pictures/{name}" for name in real_people.names()] == sorted(raw)


def test_the_ceiling_is_scipys_of_the_raw_fixations():
    clickme = ClickMe([GAZE], ["gaze"], limit=2)
    geometry = PROFILES["gaze"].backbones[0].preprocessing
    found = score_observers(clickme, [geometry]).set_index("image_id")
    assert len(found) == 2
    # Every second pixel of every second row, as many on either side of the centre.
    sampled = np.ix_(*[[*range(0, 111, 2), *range(113, 224, 2)]] * 2)
    for name, row in found.iterrows():
        people = raw_points()[name]
        rho = []
        for who in people:
            rest = np.concatenate([points for other, points in people.items() if other != who])
            one, others = (rounded(map_by_hand(p)[sampled]) for p in (people[who], rest))
            rho.append(spearmanr(one.ravel(), others.ravel())[0])
        assert row.one_against_rest == pytest.approx(np.mean(rho), abs=2e-4)
        assert row.observers == 15


def test_a_score_is_scipys_of_a_literal_grad_cam():
    """The network is built, the image prepared and the map made anew here."""
    study = Study.from_profile("gaze", methods=["grad_cam"], limit=2)
    scores = score_study(study).set_index("image_id")
    assert scores.top1.isna().all()
    assert set(scores.label) == {-1}
    network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same").eval()
    weights = load_file(GAZE / "checkpoints" / "mobilenetv2_100.safetensors")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    raw, batch = raw_points(), held_out(study, 2)
    for name, image in zip(batch.image_ids, batch.images, strict=True):
        large = Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(large)[16:240, 16:240].copy()).permute(2, 0, 1)[None] / 255
        features = network.forward_features((x - 0.5) / 0.5)
        logits = network.forward_head(features)
        (gradient,) = torch.autograd.grad(logits.max(), features)
        small = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True)
        shown = rounded(_resized(small.relu().detach(), 224).numpy()).ravel()
        human = rounded(map_by_hand(np.concatenate([*raw[name].values()])))
        assert scores.rho[name] == pytest.approx(spearmanr(shown, human.ravel())[0], abs=1e-3)
    model = study.networks.inference_model("mobilenetv2_100", dcls=False)
    asked = study.choices.asked(batch.labels)
    title = evidence_titles(study, model, batch.images, asked)[-1]
    best = logits.softmax(dim=-1).max(dim=-1)
    assert (
        title
        == f"{study.networks.class_names()[best.indices].split(',')[0]}, {best.values.item():.0%}"
    )


@pytest.fixture(scope="module")
def beside() -> pd.DataFrame:
    return score_beside_people(Study.from_profile("gaze", methods=["grad_cam"], limit=24))


def test_people_controls_and_the_network_stand_on_one_scale(beside):
    kinds = beside.groupby("kind").label.apply(list)
    assert kinds["network"] == ["Grad-CAM"]
    assert len(kinds["control"]) == 4
    assert len(kinds["people"]) == 3
    people = beside[beside.kind == "people"].rho
    half = people.iloc[1]
    # By hand: Spearman and Brown from seven people to fifteen.
    assert people.iloc[2] == pytest.approx(15 / 7 * half / (1 + (15 / 7 - 1) * half))
    assert people.iloc[0] < half < people.iloc[2]
    assert (beside.rho > beside.low).all()
    assert (beside.rho < beside.high).all()
    assert set(beside.n) == {24}


def test_people_of_few_images_are_shown_without_a_ceiling():
    """Twenty images are the fewest of which one is estimated; how they agree is told of any."""
    table = score_beside_people(Study.from_profile("gaze", methods=["grad_cam"], limit=6))
    people = table[table.kind == "people"]
    assert [*people.label] == [
        "one person with all others",
        "one half of the people with the other",
    ]
    assert set(people.n) == {6}
    ceiling = study_ceilings(Study.from_profile("gaze", methods=["grad_cam"], limit=6)).table()
    assert ceiling.ceiling.isna().all()
    assert (ceiling.observers_least == 15).all()


def test_what_is_found_is_said_in_words(beside):
    said = " ".join(in_sentences(beside))
    centre = beside[beside.label == "centred Gaussian"].iloc[0]
    assert (
        f"one person with all others: {beside[beside.kind == 'people'].rho.iloc[0]:.2f} [" in said
    )
    assert (
        f"ignores the image, centred Gaussian, reaches {centre.rho:.2f} [{centre.low:.2f}" in said
    )
    assert "So few images (24) decide nothing: 50 are the fewest" in said
    many = beside.assign(n=60)
    assert in_sentences(many)[-1] == "None of them lies significantly above it."
    lies = many.assign(above_control=many.kind == "network")
    assert in_sentences(lies)[-1] == "1 of 1 lie significantly above it."
    assert in_sentences(beside[:0]) == []


def test_the_figures_of_people_draw_what_the_table_says(beside):
    (ax,) = plot_beside_people(beside, "a title").axes
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == [*beside.sort_values("rho", kind="stable").label]
    assert "n = 24 images" in ax.get_xlabel() + ax.figure.get_supxlabel()
    found = looks(Study.from_profile("gaze"), 2)
    fig = plot_scanpaths(found.batch.images, found.points, found.owners, people=2)
    first = found.points[0][found.owners[0] == 0]
    np.testing.assert_allclose(fig.axes[0].lines[0].get_xydata(), first - 0.5)
    assert len(fig.axes[0].lines) == 2
    assert len(plot_beside_people(beside[:0]).axes[0].texts) == 1


def test_a_panel_per_measure_draws_what_the_table_says():
    study = Study.from_profile("gaze", methods=["grad_cam"], limit=3)
    table = summarise_fixations(score_fixations(study))
    chance = {measure.key: measure.chance for measure in FIXATION_MEASURES.values()}
    fig = plot_fixation_measures(table, {"grad_cam": "Grad-CAM"}, chance)
    assert len(fig.axes) == len(FIXATION_MEASURES)
    for ax, (_, rows) in zip(fig.axes, table.groupby("measure", sort=False), strict=True):
        dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
        assert sorted(dots) == sorted(rows.value.dropna())
        assert ax.get_title() == rows.label.iloc[0]
    assert "Grad-CAM" in [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert len(plot_fixation_measures(table[:0], {}, {}).axes[0].texts) == 1


def test_the_points_of_a_image_are_those_of_the_delivered_size():
    found = looks(Study.from_profile("gaze"), 3)
    raw = raw_points()
    for name, points, owners in zip(found.batch.image_ids, found.points, found.owners, strict=True):
        expected = np.concatenate([*raw[name].values()]) * 224 / 256
        np.testing.assert_allclose(points, expected)
        assert [*np.bincount(owners)] == [len(of) for _, of in sorted(raw[name].items())]


def test_the_original_photographs_make_the_same_map(tmp_path):
    """Made from a wide original, the square has the map that the original's own square has."""
    number = real_people.names()[0]
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    originals, made = tmp_path / "originals", tmp_path / "made"
    originals.mkdir()
    rows = ["file,x,y,duration,observer"]
    for name in real_people.names():
        Image.fromarray(pixels).resize((800, 600)).save(originals / name)
        rows += [f"{name},50,300,100,0", f"{name},410.5,200,90,1"]
    (originals / "fixations.csv").write_text("\n".join([*rows, ""]))
    real_people.make(originals, made)
    options = ("sigma_pixels=24", "weigh=counts")
    wide, square = (
        next(ClickMe([folder], ["gaze"], read=Read(gaze=some)).batches(2)).stored_maps
        for folder, some in ((originals, options), (made, ()))
    )
    np.testing.assert_allclose(square, wide, atol=0.2)  # of 255; places are kept to 0.01 pixel
    assert (made / "gaze.csv").read_text().splitlines()[
        1
    ] == f"pictures/{number},-21.33,128.00,100,0"
    (originals / "fixations.csv").write_text("\n".join(rows[:3]) + "\n")
    with pytest.raises(ValueError, match="lacks fixations of"):
        real_people.make(originals, made)


def test_a_whole_run_takes_the_notebooks_of_its_question():
    numbers = ["00", "01", "02", "04", "04b", "05", "05c"]
    study, demo = Study.from_profile("gaze"), Study.from_profile("demo")
    assert [n for n in numbers if study.choices.takes(n)] == ["00", "04", "04b"]
    assert [n for n in numbers if demo.choices.takes(n)] == numbers[1:]
    two = Study.from_profile("gaze", ["mobilenetv2_100", "untrained:mobilenetv2_100"])
    assert [n for n in numbers if two.choices.takes(n)] == ["00", "04", "04b", "05", "05c"]
    plain = Study.from_profile("paper", ["vgg16"])
    assert [n for n in numbers if plain.choices.takes(n)] == ["01", "04", "04b", "05"]
    assert study.choices.is_whole
    assert study.choices.target == "predicted"
    assert not Study.from_profile("gaze", target="true", images=str(GAZE)).choices.is_whole
