"""Scores, tables and kept results against literal recomputation."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, rankdata, spearmanr
from stand_ins import (
    CEILINGS,
    EACH_VARIANT,
    NO_CONTROLS,
    made_up_scores,
    make_record,
    mini,
    settled,
    write_plateaus,
)

from lib.base.paths import DEMO, PUBLISHED_SCORES
from lib.maps.methods import METHODS
from lib.networks.backbones import BACKBONES, THE_EIGHT
from lib.networks.batch_size import BatchSize
from lib.networks.models import StudyModel
from lib.people.clickme import ClickMe
from lib.people.human_maps import human_maps
from lib.people.protocols import PROTOCOLS
from lib.people.stored.shards import Record, write_shard
from lib.report.readable import readable_table
from lib.report.result_table import entered_scores, results_table, write_results
from lib.scores import units
from lib.scores.accuracy import weights_table
from lib.scores.agreements import (
    CONSTANT_HUMAN_MAP,
    CONSTANT_MODEL_MAP,
    NON_FINITE,
    VALID,
    agreements_of,
)
from lib.scores.ceiling import HUMAN_CEILING
from lib.scores.prepared import PreparedPart
from lib.scores.results import (
    arrange,
    load_scores,
    one_of_each,
    paired_differences,
    size_correlation,
    summarise,
)
from lib.scores.scoring import score_part
from lib.scores.spearman import rank_maps
from lib.scores.statistics import mean_interval
from lib.scores.study_scores import left_out, score_study
from lib.study.inputs import MissingInputs
from lib.study.outputs import save_table
from lib.study.profiles import PROFILES
from lib.study.study import Study

TINY = {"models": ["resnet50"], "limit": 12, "protocols": ["published"]}


def published(**choices) -> Study:
    return Study.from_profile("demo", protocols=["published"], **choices)


def tiny_study(tmp_path: Path, monkeypatch, **choices) -> Study:
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    return Study.from_profile("demo", **{**TINY, **choices})


def test_scores_equal_a_literal_recomputation(tmp_path, monkeypatch):
    """Image by image with autograd through the head, numpy and scipy alone."""
    study = tiny_study(tmp_path, monkeypatch, models=["convnext_tiny"], limit=4)
    scores = score_study(study)
    for dcls in (False, True):
        model = study.networks.load_model("convnext_tiny", dcls)
        for batch in study.clickme().batches(1):
            features = model.features(model.prepare(batch.images)).detach().requires_grad_()
            logits = model.head(features)
            (gradient,) = torch.autograd.grad(logits[0, batch.labels[0]], features)
            weighted = (features * gradient.mean((2, 3), keepdim=True))[0].detach()
            plain = weighted.mean(0).clamp(min=0)
            early = weighted.clamp(min=0).mean(0)
            early = ((early - early.min()) / (early.max() - early.min())).clamp(min=0.3)
            for method, small in (("grad_cam", plain), ("threshold_grad_cam", early)):
                maps = torch.nn.functional.interpolate(
                    small[None, None], (224, 224), mode="bilinear", align_corners=False
                )
                expected = spearmanr(maps.numpy().ravel(), batch.human_maps.numpy().ravel())
                row = scores[
                    (scores.dcls == dcls) & (scores.method == method)
                    & (scores.image_id == batch.image_ids[0])
                ].iloc[0]  # fmt: skip
                # channels-last sums differ in the last digits, which breaks ties
                assert row.rho == pytest.approx(expected.statistic, abs=1e-4)
                assert row.top1 == (logits.argmax() == batch.labels[0]).item()


def test_agreement_is_scipys_of_each_protocols_ranks():
    """Maps with plateaus that are not bit-equal, which one of the protocols rounds away."""
    rng = np.random.default_rng(0)
    ours, people = (rng.integers(0, 5, (*n, 12, 14)) + 1e-7 * rng.random((*n, 12, 14))
                    for n in ((2, 3), (3,)))  # fmt: skip
    y, x = np.mgrid[:12, :14]
    centre = rankdata(-((2 * y - 11) ** 2) - (2 * x - 13) ** 2)

    def without_centre(ranks):
        return ranks - np.polyval(np.polyfit(centre, ranks, 1), centre)

    for settles in (
        {"published": False, "corrected": True}, {"published+ties": True, "published+blur": False}
    ):  # fmt: skip
        human = {key: rank_maps(people, settle) for key, settle in settles.items()}
        found = agreements_of(torch.from_numpy(ours), human)
        for key, settle in settles.items():
            for method, image in np.ndindex(2, 3):
                pair = ours[method, image], people[image]
                a, b = (rankdata(settled(m) if settle else m) for m in pair)
                expected = [
                    np.corrcoef(a, b)[0, 1],
                    np.corrcoef(without_centre(a), without_centre(b))[0, 1],
                    1.0 if settle else 0.0,  # each value is one of five, or there once
                    a.std() / np.arange(12 * 14).std(),
                ]
                np.testing.assert_allclose(
                    found.measured[key][:, method, image], expected, atol=1e-9
                )


def test_why_a_map_has_no_score():
    maps, people = torch.rand(1, 5, 6, 6), torch.rand(5, 6, 6)
    maps[0, 1], maps[0, 2, 0, 0] = 0.5, torch.nan
    people[3], people[4, 0, 0] = 0.5, torch.inf
    found = agreements_of(maps, {"published": rank_maps(people)})
    expected = [VALID, CONSTANT_MODEL_MAP, NON_FINITE, CONSTANT_HUMAN_MAP, NON_FINITE]
    assert found.validity(0, "published").tolist() == expected
    assert found.measured["published"][0, 0].isnan().tolist() == [e != VALID for e in expected]


def test_every_variant_method_and_image_has_one_row(tmp_path, monkeypatch):
    scores = score_study(tiny_study(tmp_path, monkeypatch))
    assert len(scores) == 2 * 2 * 12
    assert not scores.duplicated(["variant", "method", "image_id"]).any()
    assert set(scores.variant) == {"resnet50", "resnet50_dcls"}
    assert (scores.protocol == "published").all()
    assert scores.rho.between(-1, 1).all()


def test_batch_size_does_not_change_scores(tmp_path, monkeypatch):
    one = score_study(tiny_study(tmp_path / "a", monkeypatch, batch_size=5))
    other = score_study(tiny_study(tmp_path / "b", monkeypatch, batch_size=12))
    keys = ["variant", "method", "image_id"]
    together = one.merge(other, on=keys)
    assert len(together) == len(one)
    np.testing.assert_allclose(together.rho_x, together.rho_y, atol=1e-4)


# --- kept scores ------------------------------------------------------------------


def test_kept_scores_are_read_and_not_computed(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, monkeypatch)
    first = score_study(study)

    monkeypatch.setattr(units, "score_part", None)  # nothing is computed
    pd.testing.assert_frame_equal(score_study(study), first)


def test_other_choices_are_computed_anew(tmp_path, monkeypatch):
    score_study(tiny_study(tmp_path, monkeypatch))
    monkeypatch.setattr(units, "score_part", lambda *_: 1 / 0)
    for change in ({"limit": 6}, {"methods": ["grad_cam"]}, {"models": ["fastvit_sa24"]}):
        with pytest.raises(ZeroDivisionError):
            score_study(tiny_study(tmp_path, monkeypatch, **change))


def test_scores_of_several_shards_are_kept_shard_by_shard(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, monkeypatch, limit=0)
    data = tmp_path / "data"
    folder = data / "clickme" / "val"
    folder.mkdir(parents=True)
    (data / "checkpoints").symlink_to(DEMO / "checkpoints")
    for number in range(2):
        write_shard(
            folder / f"val-{number}.tfrecords",
            (make_record(10 * number + i, label=i % 12) for i in range(20)),
        )
    names = ("val-0.tfrecords", "val-1.tfrecords")
    profile = replace(study.choices.profile, data=data, shard_names=names)
    study = study.changed(profile=profile)
    scores = score_study(study)
    assert scores.groupby("variant").image_id.nunique().tolist() == [32, 32]  # 8 of 40 left out
    kept = sorted(p.name.rsplit("-", 1)[0] for p in study.places.scores.iterdir())
    assert kept == [
        "resnet50-val-0",
        "resnet50-val-1",
        "resnet50_dcls-val-0",
        "resnet50_dcls-val-1",
    ]
    assert list(scores.variant.unique()) == ["resnet50", "resnet50_dcls"]


def test_other_weights_are_scored_anew(tmp_path, monkeypatch):
    score_study(tiny_study(tmp_path, monkeypatch))
    monkeypatch.setattr(units, "score_part", lambda *_: 1 / 0)
    monkeypatch.setattr("lib.study.inputs.sha256_of", lambda path: "another")
    with pytest.raises(ZeroDivisionError):
        score_study(tiny_study(tmp_path, monkeypatch))


def test_an_interruption_keeps_what_is_finished(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, monkeypatch)
    done = []

    def interrupted(model, *others):
        if done:
            raise KeyboardInterrupt
        done.append(model.variant)
        return score_part(model, *others)

    monkeypatch.setattr(units, "score_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_study(study)
    assert [p.suffix for p in study.places.scores.iterdir()] == [".parquet"]
    again = []
    monkeypatch.setattr(
        units,
        "score_part",
        lambda model, *o: again.append(model.variant) or score_part(model, *o),
    )
    assert len(score_study(study)) == 48
    assert (done, again) == (["resnet50"], ["resnet50_dcls"])


# --- invalid maps -------------------------------------------------------------------


def test_constant_and_non_finite_maps_are_counted_and_never_enter_a_mean(tmp_path):
    flat = make_record(0)
    black = Record(flat.image, make_flat_jpeg(), 1)
    path = tmp_path / "val-0.tfrecords"
    write_shard(path, [black, *(make_record(i, label=1) for i in range(1, 32))])
    model = mini("resnet50")
    model.network.fc.weight.data[1] = -model.network.fc.weight.data[1].abs()  # all evidence < 0
    frame = scores_of(model, path)
    assert dict(zip(frame.image_id, frame.validity, strict=True))["val-0:0"] == CONSTANT_HUMAN_MAP
    assert set(frame.validity[frame.image_id != "val-0:0"]) == {CONSTANT_MODEL_MAP}
    assert frame.rho.isna().all()

    model.network.fc.weight.data[1] = float("nan")
    assert set(scores_of(model, path).validity) == {NON_FINITE}


def test_every_block_is_scored_as_each_protocol_reads_it(shard, monkeypatch):
    """36 images: a block of 32 and one of 4, which is not of the published protocol's."""
    model, head, logits = mini("resnet50", classes=12), StudyModel.head, []
    monkeypatch.setattr(model, "head", lambda x: logits.append(head(model, x)) or logits[-1])
    part = PreparedPart(ClickMe([shard], ("published", "corrected")), torch.device("cpu"))
    table = score_part(model, [METHODS["grad_cam"]], part, BatchSize(32))
    ids = [f"val-0:{number}" for number in range(36)]
    assert table[table.protocol == "published"].image_id.tolist() == ids[:32]
    rows = table[table.protocol == "corrected"]
    assert rows.image_id.tolist() == ids
    assert rows.label.tolist() == [number % 5 for number in range(36)]
    likely = np.argsort(-torch.cat(logits).detach().numpy(), axis=1)
    hits = likely[:, :5] == rows.label.to_numpy()[:, None]
    assert rows.top1.tolist() == hits[:, 0].tolist()
    assert rows.top5.tolist() == [any(five) for five in hits]
    assert rows.top1.sum() < rows.top5.sum() < 36  # or nothing is seen of it
    # Grad-CAM of the labels, which are not the predicted classes: the last layer is linear.
    (_, block) = part.blocks(model.backbone.preprocessing)
    features = model.features(model.prepare_pixels(block.pixels)).detach()
    assert rows.rho.tail(4).notna().sum() > 1
    for image, row in enumerate(rows.tail(4).itertuples()):
        weights = model.network.fc.weight[row.label].detach()
        small = (weights[:, None, None] * features[image]).sum(dim=0).relu()[None, None]
        assert np.isnan(row.rho) == (not small.any())
        if small.any():
            large = torch.nn.functional.interpolate(small, (224, 224), mode="bilinear").numpy()
            pair = settled(large.ravel()), block.human["corrected"].centred[image]
            assert row.rho == pytest.approx(spearmanr(*pair).statistic, abs=1e-4)


def test_a_part_is_prepared_anew_for_another_crop_and_block(tmp_path):
    folder = write_plateaus(tmp_path / "people", 33)
    part = PreparedPart(ClickMe([folder], ("corrected",)), torch.device("cpu"))
    stored = next(ClickMe([folder], ("corrected",)).batches(33)).stored_maps
    for key, side in (("convnext_tiny", 224), ("resnet50", 224), ("fastvit_sa24", 256)):
        geometry = BACKBONES[key].preprocessing
        blocks = list(part.blocks(geometry))
        assert [block.pixels.shape[:2] for block in blocks] == [(32, side), (1, side)]
        for block, image in zip(blocks, (31, 32), strict=True):
            human = human_maps(stored[image : image + 1], PROTOCOLS["corrected"], geometry)
            expected = rankdata(settled(human)) - (224**2 + 1) / 2
            np.testing.assert_array_equal(block.human["corrected"].centred[-1], expected)


def scores_of(model, path: Path, batch: int = 32) -> pd.DataFrame:
    part = PreparedPart(ClickMe([path]), torch.device("cpu"), batch)
    return score_part(model, study_methods(), part, BatchSize(batch))


def make_flat_jpeg() -> bytes:
    from stand_ins import jpeg

    return jpeg(np.zeros((256, 256), np.uint8))


def study_methods():
    return Study.from_profile("demo").choices.methods


def test_summary_means_valid_images_and_counts_the_others():
    study = published(models=["resnet50", "caformer_s18"])
    summary = summarise(study.choices, made_up_scores(study), CEILINGS)
    assert len(summary) == 2 * 2 * 2
    base = summary[~summary.dcls].iloc[0]
    assert base.score == pytest.approx(np.mean(np.arange(1, 10) / 10) / HUMAN_CEILING)
    assert (base.n, base.n_constant_model, base.n_constant_human, base.n_non_finite) == (9, 1, 0, 0)
    assert base.top1 == pytest.approx(0.8)
    assert base.low < base.score < base.high


def test_difference_is_paired_on_images_valid_for_both():
    study = published(models=["resnet50"])
    difference = paired_differences(study.choices, made_up_scores(study), CEILINGS).iloc[0]
    assert difference.n_paired == 8
    assert difference.difference == pytest.approx(0.05 / HUMAN_CEILING)
    # Every image gains the same: by hand what as many more without a gain could make of it.
    unseen = 1 - 0.025 ** (1 / 8)
    gain = 0.05 / HUMAN_CEILING
    assert difference.low == pytest.approx((1 - 2 * unseen) * gain)
    assert difference.high == pytest.approx(gain)
    assert np.isnan(difference.p)  # of eight images nothing is decided
    assert difference.decision == "fewer than 50 images"


def test_no_image_valid_for_both_leaves_the_difference_missing():
    study = published(models=["resnet50"])
    scores = made_up_scores(study)
    scores.loc[scores.dcls, ["rho", "validity"]] = [np.nan, CONSTANT_MODEL_MAP]
    difference = paired_differences(study.choices, scores, CEILINGS).iloc[0]
    assert difference.n_paired == 0
    assert np.isnan(difference.difference)
    table = results_table(study, scores, NO_CONTROLS, CEILINGS)
    assert table.invalid[table.form == "with DCLS"].tolist() == [10, 10]
    readable_table(table)


def test_figures_take_the_scores_of_just_this_study(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, monkeypatch, models=[])
    with pytest.raises(MissingInputs, match="run notebook 04_scoring"):
        load_scores(study)
    scores = made_up_scores(study)
    save_table(scores, "scores", study, suffix="parquet")
    pd.testing.assert_frame_equal(load_scores(study), scores)
    with pytest.raises(MissingInputs, match=r"of another study \(limit: 12, here 7\)"):
        load_scores(study.changed(limit=7))
    load_scores(study.changed(batch_size=7))


def test_a_notebook_says_what_it_lacks_in_one_line(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    cell = "from lib.study import MissingInputs\nraise MissingInputs('no scores: run notebook 04')"
    InteractiveShell().run_cell(cell)
    assert capsys.readouterr().out.splitlines() == ["MissingInputs: no scores: run notebook 04"]


def test_results_are_written_in_three_forms_and_say_what_they_are(tmp_path, monkeypatch):
    study = tiny_study(tmp_path, monkeypatch, models=[])
    scores = made_up_scores(study)
    results = results_table(study, scores, NO_CONTROLS, CEILINGS)
    write_results(study, results, left_out(pd.DataFrame()), weights_table(study, scores), CEILINGS)
    folder = study.places.output / "tables"
    assert {p.name for p in folder.iterdir()} == {"results.csv", "results.md", "results.tex"}
    read = pd.read_csv(folder / "results.csv")
    assert len(read) == 32
    assert (read.data == "embedded example").all()
    np.testing.assert_allclose(read.score, results.score)
    for name in ("results.md", "results.tex"):
        text = (folder / name).read_text()
        assert "ConvNeXt-T" in text
        assert "simulated people, miniature models" in text
    assert r"95 \%" in (folder / "results.tex").read_text()


def test_a_published_table_that_a_reader_enters_stands_beside_the_paper_profiles(
    tmp_path, monkeypatch
):
    assert entered_scores().score.isna().all()  # none is invented
    assert len(entered_scores()) == 16
    path = tmp_path / "published_scores.csv"
    text = PUBLISHED_SCORES.read_text()
    path.write_text(text.replace("resnet50,grad_cam,,", "resnet50,grad_cam,0.5,0.625"))
    monkeypatch.setattr("lib.report.result_table.entered_scores", lambda: entered_scores(path))
    study = published(models=["resnet50", "convnext_tiny"])
    paper = study.changed(profile=PROFILES["paper"])
    table = results_table(paper, made_up_scores(paper), NO_CONTROLS, CEILINGS)
    assert table.entered[:2].tolist() == [0.5, 0.625]
    assert table.entered.notna().sum() == 2
    assert readable_table(table)["Published score with DCLS, as entered"][0] == "0.625"
    demo = results_table(study, made_up_scores(study), NO_CONTROLS, CEILINGS)
    assert not any("Published" in column for column in readable_table(demo))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resnet5,grad_cam,,", "Did you mean 'resnet50'"),
        ("resnet50,grad_cam,much,", "line 2: much is no score"),
        ("resnet50,grad_cam,,65.7", "line 2: 65.7 is no score"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, line, message):
    path = tmp_path / "published_scores.csv"
    path.write_text(f"backbone,method,score,score_dcls\n{line}\n")
    with pytest.raises(ValueError, match=message):
        entered_scores(path)
    path.write_text("model,score\n")
    with pytest.raises(ValueError, match="needs the columns backbone, method"):
        entered_scores(path)


# --- intervals -----------------------------------------------------------------------


def test_size_correlation_is_scipys_over_the_baselines():
    study = published()
    summary = summarise(study.choices, made_up_scores(study), CEILINGS)
    summary["score"] = np.random.default_rng(0).random(len(summary))
    base = summary[~summary.dcls & (summary.method == "grad_cam")]
    expected = spearmanr(base.parameters_millions, base.score).statistic
    placed = arrange(study.choices, summary)
    models = one_of_each(placed[placed.panel == "grad_cam"])
    assert list(models.variant) == [b.key for b in THE_EIGHT]
    assert size_correlation(models) == pytest.approx(expected)


def test_interval_is_close_to_the_normal_one():
    values = np.random.default_rng(3).normal(0.4, 0.2, 400)
    found = mean_interval(values)
    half = norm.ppf(0.975) * values.std(ddof=1) / 20
    assert (found.mean, found.n) == (values.mean(), 400)
    assert found.low == pytest.approx(found.mean - half, abs=2e-3)
    assert found.high == pytest.approx(found.mean + half, abs=2e-3)


def test_interval_is_the_same_every_time():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values) == mean_interval(values)


@pytest.mark.parametrize(("values", "mean"), [([], np.nan), ([0.5], 0.5)])
def test_interval_of_too_few_values_is_missing(values, mean):
    result = mean_interval(values)
    np.testing.assert_equal(astuple(result), (mean, np.nan, np.nan, len(values)))


def test_random_weights_score_near_zero_only_by_chance(shard):
    # a smoke test of the whole path on a network that knows nothing
    frame = scores_of(mini("convformer_s18").for_inference(), shard, 8)
    assert frame.rho.dropna().between(-1, 1).all()
    assert len(frame) == 2 * 32


# --- memory ------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_and_goes_on(shard, monkeypatch, capsys):
    model = mini("resnet50").for_inference()
    expected = scores_of(model, shard, 32)
    sizes = []
    features = model.features
    # As a GPU and as the processor say it.
    errors = [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory: 1 bytes")]

    def scarce(x):
        sizes.append(len(x))
        if len(x) > 10:
            raise errors.pop()
        return features(x)

    monkeypatch.setattr(model, "features", scarce)
    scores = scores_of(model, shard, 32)
    assert sizes == [32, 16, 8, 8, 8, 8]
    assert scores.image_id.tolist() == expected.image_id.tolist()
    np.testing.assert_allclose(scores.rho, expected.rho, atol=1e-5)
    told = capsys.readouterr().out
    assert "out of memory with 32 images per forward pass: going on with 16" in told


@pytest.mark.parametrize("message", ["out of memory, even for one", "something else"])
def test_what_a_smaller_batch_does_not_mend_ends_the_scoring(shard, monkeypatch, message):
    model = mini("resnet50").for_inference()

    def broken(x):
        raise RuntimeError(message)

    monkeypatch.setattr(model, "features", broken)
    with pytest.raises(RuntimeError, match=message):
        scores_of(model, shard, 4)


# --- the hot path --------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "dcls"), EACH_VARIANT)
def test_the_fast_path_scores_as_the_plain_definition_does(key, dcls):
    """Every rewrite together: folded, fused, channels-last, one pass, sorting by digits."""
    study = Study.from_profile("demo", models=[key], limit=4)
    fast = study.networks.load_model(key, dcls).for_inference()
    plain = study.networks.load_model(key, dcls)
    part = PreparedPart(study.clickme(), torch.device("cpu"), 4)
    scores = score_part(fast, study.choices.methods, part, BatchSize(4))
    (block,) = part.blocks(plain.backbone.preprocessing)
    features = plain.features(plain.prepare_pixels(block.pixels)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(
        plain.head(features).gather(1, block.labels[:, None]).sum(), features
    )
    for method in study.choices.methods:
        small = method.small_map(features.detach(), gradient)
        maps = torch.nn.functional.interpolate(small[:, None], (224, 224), mode="bilinear")
        maps = maps.flatten(1).numpy()
        for protocol, ranks in block.human.items():
            rows = scores[(scores.method == method.key) & (scores.protocol == protocol)]
            for rho, of_model, of_people in zip(rows.rho, maps, ranks.centred, strict=True):
                if PROTOCOLS[protocol].settles:
                    exact = of_model.astype(np.float64)
                    of_model = np.rint((exact - exact.min()) / (exact.max() - exact.min()) * 1e5)
                expected = spearmanr(of_model, of_people).statistic
                assert rho == pytest.approx(expected, abs=1e-5)


def test_a_forward_in_bf16_scores_nearly_the_same(tmp_path, monkeypatch):
    exact = score_study(tiny_study(tmp_path, monkeypatch))
    rough = score_study(tiny_study(tmp_path, monkeypatch, precision="bf16"))
    change = (exact.rho - rough.rho).abs()
    assert 0 < change.max() < 0.05
