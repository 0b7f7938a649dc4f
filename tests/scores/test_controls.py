"""Control maps, the taken-apart method and networks that forget, on small data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from stand_ins import CEILINGS, FAMILIES, mini, settled, write_plateaus

from lib.analyses.sanity import (
    compare_targets,
    forgetting,
    parts,
    score_forgetting,
    summarise_forgetting,
)
from lib.analyses.taken_apart import score_family, sweep, two_by_two
from lib.maps.methods import FLOORS, METHODS, family_key
from lib.people.clickme import ClickMe
from lib.people.human_maps import published_human_maps
from lib.scores.agreements import VALID
from lib.scores.control_scores import score_controls
from lib.scores.controls import CONTROLS, Shown
from lib.scores.measures import score_measures
from lib.scores.study_scores import score_study
from lib.study.study import Study


@pytest.fixture(scope="module")
def study() -> Study:
    return Study.from_profile("demo", ["convnext_tiny", "caformer_s18"], limit=8)


@pytest.fixture(scope="module")
def controls(study):
    return score_controls(study)


def test_controls_are_scipys_correlations(study, controls):
    batch = next(ClickMe(study.inputs.image_paths(), ("published",), 8, 12).batches(8))
    maps = published_human_maps(batch.stored_maps).numpy().astype(float)
    chosen = controls[(controls.protocol == "published")]
    assert list(chosen.reading.unique()) == ["whole"]
    y, x = np.mgrid[:224, :224] - 111.5
    gaussian = np.exp(-(x**2 + y**2) / (2 * 50.0**2))
    scaled = np.array([(m - m.min()) / (m.max() - m.min()) for m in maps])
    for image in (0, 3, 7):
        row = chosen[chosen.image_id == batch.image_ids[image]].set_index("control").rho
        expected = spearmanr(gaussian.ravel(), maps[image].ravel()).statistic
        assert row["centre"] == pytest.approx(expected, abs=1e-6)
        others = np.delete(scaled, image, axis=0).mean(axis=0)
        expected = spearmanr(others.ravel(), maps[image].ravel()).statistic
        assert row["mean_human"] == pytest.approx(expected, abs=1e-4)
        possible = [spearmanr(m.ravel(), maps[image].ravel()).statistic
                    for i, m in enumerate(maps) if i != image]  # fmt: skip
        assert np.isclose(possible, row["other_human"], atol=1e-6).any()
    assert (chosen[chosen.control == "random"].rho.abs().mean()) < 0.3


def test_every_reading_and_protocol_has_its_controls(study, controls):
    assert set(controls[controls.protocol == "corrected"].reading) == {
        "whole", "centre, 224 of 256",
    }  # fmt: skip
    counts = controls.groupby(["protocol", "reading", "control"]).size()
    assert (counts == 8).all()
    # The centre itself has nothing left once the centre is held constant.
    assert controls[controls.control == "centre"].partial.abs().fillna(0).max() < 1e-3


def test_controls_settle_and_leave_out_as_their_protocol_does(tmp_path, monkeypatch):
    shown = {key: CONTROLS[key] for key in ("mean_human", "other_human")}
    monkeypatch.setattr("lib.scores.control_scores.CONTROLS", shown)
    folder = write_plateaus(tmp_path / "people", 33)
    protocols = ("published+ties", "published+images")
    study = Study.from_profile("demo", ["caformer_s18"], images=str(folder), protocols=protocols)
    found = score_controls(study)
    ids = [f"{number:02}.png" for number in range(33)]
    for (protocol, _), rows in found.groupby(["protocol", "control"]):
        assert rows.image_id.tolist() == ids[: 32 if protocol == "published+ties" else 33]
    stored = next(ClickMe([folder], protocols).batches(33)).stored_maps
    maps = published_human_maps(stored).numpy().astype(float)
    scaled = np.array([(m - m.min()) / (m.max() - m.min()) for m in maps])
    for image in (0, 31):
        row = found[(found.protocol == "published+ties") & (found.image_id == ids[image])]
        rho = row.set_index("control").rho
        human = settled(maps[image]).ravel()
        others = settled(np.delete(scaled[:32], image, axis=0).mean(axis=0)).ravel()
        assert rho["mean_human"] == pytest.approx(spearmanr(others, human).statistic, abs=1e-4)
        possible = [
            spearmanr(settled(m).ravel(), human).statistic for m in np.delete(maps, image, 0)
        ]
        assert np.isclose(possible, rho["other_human"], atol=1e-6).any()


def test_random_maps_differ_and_are_a_images_own():
    def drawn(*places):
        nothing = torch.zeros(len(places), 8, 8)
        return CONTROLS["random"].maps(Shown(nothing, nothing, nothing, np.array(places)))

    several = drawn(4, 0, 9)
    assert several.shape == (3, 7, 7)
    assert len(np.unique(several)) == 3 * 49
    np.testing.assert_array_equal(drawn(9, 4), several[[2, 0]])


def test_a_single_image_has_no_floor():
    alone = score_controls(Study.from_profile("demo", ["convnext_tiny"], limit=1))
    floor = alone[alone.control.isin(["other_human", "mean_human"])]
    assert (floor.validity != VALID).all()
    assert floor.rho.isna().all()


def test_family_has_the_published_methods_where_they_belong():
    assert family_key(False, 0.0) == "grad_cam"
    assert family_key(True, 0.3) == "threshold_grad_cam"
    keys = {family_key(order, floor) for order in (False, True) for floor in FLOORS}
    assert len(keys) == 20
    assert keys <= set(METHODS)


def test_taken_apart_scores_are_the_studys_own(study):
    scores = score_family(study)
    assert scores.image_id.nunique() == 8
    own = score_study(study)
    merged = own[own.protocol == "published"].merge(
        scores, on=["variant", "method", "image_id"], suffixes=("", "_apart")
    )
    assert len(merged) == 4 * 2 * 8
    np.testing.assert_allclose(merged.rho, merged.rho_apart, atol=1e-9)
    table = sweep(scores, CEILINGS)
    assert len(table) == 2 * 2 * 20
    assert (table.attainable <= 1 + 1e-12).all()
    plain = table[table.order.str.startswith("mean")].sort_values("floor")
    for _, model in plain.groupby(["backbone", "dcls"]):
        assert model.tied.is_monotonic_increasing
    changes = two_by_two(scores, CEILINGS)
    both = changes[changes.change_by.str.startswith("both")].iloc[0]
    wide = own[(own.backbone == both.backbone) & (own.dcls == both.dcls)
               & (own.protocol == "published")].pivot(
        index="image_id", columns="method", values="rho")  # fmt: skip
    expected = (wide.threshold_grad_cam - wide.grad_cam).mean() / 0.6575315343478081
    assert both.change == pytest.approx(expected)


@pytest.mark.parametrize("key", FAMILIES)
def test_parts_forget_from_the_head_down(key):
    model = mini(key, dcls=True)
    groups = parts(model.network)
    assert list(groups) == ["head", "stage 4", "stage 3", "stage 2", "stage 1", "stem"]
    owned = [n for names in groups.values() for n in names]
    assert len(owned) == len(set(owned))
    counted = sum(sum(p.numel() for p in model.network.get_submodule(n).parameters())
                  for n in owned)  # fmt: skip
    assert counted == sum(p.numel() for p in model.network.parameters())

    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    seen: list[str] = []
    for part, forgot in forgetting(model, mini=True, classes=5):
        seen += groups.get(part, [])
        prefixes = tuple(f"{name}." for name in seen)
        for name, value in forgot.network.state_dict().items():
            if not name.startswith(prefixes or ("",)) or not seen:
                assert torch.equal(value, before[name]), (part, name)
    assert seen == owned
    assert all(torch.equal(v, before[n]) for n, v in forgot.network.state_dict().items()
               if v.ndim < 2)  # fmt: skip
    changed = [n for n, p in forgot.network.named_parameters() if not torch.equal(p, before[n])]
    assert any(name.startswith(owned[0]) for name in changed)
    assert any(name.startswith(tuple(groups["stem"])) for name in changed)


def test_forgetting_begins_with_equal_maps(study):
    table = summarise_forgetting(score_forgetting(study, 2))
    assert list(table.part.unique()) == [
        "nothing", "head", "stage 4", "stage 3", "stage 2", "stage 1", "stem",
    ]  # fmt: skip
    np.testing.assert_allclose(table[table.part == "nothing"].similarity, 1)
    assert table[table.part == "stem"].similarity.mean() < 0.9


def test_targets_differ_only_where_the_model_is_wrong(study):
    found = compare_targets(study)
    right = found[found.top1 == 1]
    np.testing.assert_allclose(right.difference, 0)
    true = score_study(study.sampled(protocols=("published",)))
    wrong = score_study(study.sampled(protocols=("published",), target="predicted"))
    same = true.top1.to_numpy()
    np.testing.assert_allclose(true.rho[same], wrong.rho[same], atol=1e-12)
    assert (true.top1 == wrong.top1).all()


def test_other_measures_follow_the_studys_target():
    study = Study.from_profile("demo", ["convnext_tiny"], ["grad_cam"], target="predicted",
                               protocols=["published"], limit=40)  # fmt: skip
    measured = score_measures(study)
    rho = measured[measured.measure == "spearman"].set_index(["dcls", "image_id"]).value
    scores = score_study(study).query("validity == 'valid'").set_index(["dcls", "image_id"]).rho
    assert set(rho.index) == set(scores.index)
    np.testing.assert_allclose(rho.sort_index(), scores.sort_index(), atol=1e-6)
