"""Choices are checked before any work, and profiles never share a place to write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lib.base.paths import DEMO
from lib.base.tables import UnknownName
from lib.maps.methods import PUBLISHED_METHODS
from lib.networks.backbones import THE_EIGHT
from lib.study.inputs import MissingInputs
from lib.study.profiles import PROFILES
from lib.study.study import Study


def test_everything_is_chosen_by_default():
    study = Study.from_profile("demo")
    assert study.choices.backbones == THE_EIGHT
    assert len(THE_EIGHT) == 8
    assert [m.key for m in study.choices.methods] == list(PUBLISHED_METHODS)
    assert len(study.choices.variants) == 16


def test_choices_come_in_the_tables_order_once_each():
    study = Study.from_profile("demo", models=["fastvit_sa24", "resnet50", "fastvit_sa24"])
    assert [b.key for b in study.choices.backbones] == ["resnet50", "fastvit_sa24"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"profile": "papr"}, "unknown profile 'papr'. Did you mean 'paper'"),
        ({"models": ["convnet_tiny"]}, "unknown model .* 'convnext_tiny'"),
        ({"methods": ["gradcam"]}, "unknown method .* 'grad_cam'"),
        ({"models": "resnet50"}, "lists of names, not one text"),
        ({"limit": -1}, "limit must be a whole number of 0 or more, got -1"),
        ({"limit": "5"}, "limit must be a whole number"),
        ({"limit": True}, "limit must be a whole number"),
        ({"batch_size": -1}, "batch_size must be a whole number of 0 or more"),
        ({"batch_size": 2.0}, "batch_size must be"),
        ({"device": "gpu"}, "device 'gpu' is not one of"),
        ({"device": "cuda:x"}, "is not one of"),
        ({"models": [3]}, "unknown model 3"),
    ],
)
def test_a_wrong_choice_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        Study.from_profile(**{"profile": "demo"} | choice)


def test_compiling_without_a_compiler_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("lib.study.choices.which", lambda name: None)
    Study.from_profile("demo")
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        Study.from_profile("demo", compile=True)


def test_an_absent_device_is_named():
    with pytest.raises(ValueError, match="device 'cuda:63' does not exist"):
        Study.from_profile("demo", device="cuda:63").networks.device()


def test_unknown_names_without_a_near_one_list_all():
    with pytest.raises(UnknownName, match=r"unknown profile 'zzz'\. Known: gaze, demo, paper"):
        Study.from_profile("zzz")


def test_each_reading_of_a_folder_has_a_place_of_its_own(tmp_path):
    (tmp_path / "gaze.csv").write_text("file,x,y\na.png,1,1\n")
    (tmp_path / "gaze.json").write_text('{"sigma_pixels": 10}')
    readings = [
        {}, {"fit": "pad"}, {"fit": "stretch"}, {"gaze": ["weigh=counts"]},
        {"gaze": ["weigh=counts", "skip_first=1"]},
    ]  # fmt: skip
    studies = [Study.from_profile("gaze", images=str(tmp_path), **some) for some in readings]
    assert len({study.places.name for study in studies}) == len(readings)
    assert studies[3].facts()["viewing"]["weigh"] == "counts"
    assert studies[0].reading == (
        "each fixation blurred by a Gaussian of σ = 10 pixels, weighted by duration; "
        "the centred square of each image"
    )
    with pytest.raises(
        ValueError, match="how the folder of `images` is read: give the folder, too"
    ):
        Study.from_profile("gaze", fit="pad")


def test_gaze_is_read_by_its_own_protocol_unless_another_is_chosen(tmp_path):
    (tmp_path / "gaze.csv").write_text("file,x,y\na.png,1,1\n")
    choices = {"images": str(tmp_path), "target": "predicted"}
    study = Study.from_profile("paper", **choices)
    assert study.choices.protocols == ("gaze",)
    other = Study.from_profile("paper", protocols=["corrected"], **choices)
    assert other.choices.protocols == ("corrected",)
    # In another process from the same choices.
    assert Study.from_profile(**study.choices.options()).choices == study.choices


def test_profiles_write_to_different_places():
    places = {
        (s.places.figures, s.places.output) for s in (Study.from_profile(p) for p in PROFILES)
    }
    assert len({p for pair in places for p in pair}) == 2 * len(PROFILES)


def test_the_demo_has_all_its_inputs():
    study = Study.from_profile("demo")
    assert study.inputs.missing() == []
    assert all(line["MB"] != "missing" for line in study.inputs.inventory())
    assert len(study.networks.class_names()) == study.choices.profile.classes


def test_the_paper_profile_lists_what_is_missing(no_real_data):
    with pytest.raises(MissingInputs) as caught:
        Study.from_profile("paper", models=["resnet50"]).inputs.require()
    for part in (
        "clickme/val/val-0.tfrecords\n    https://storage.googleapis.com/serrelab/",
        "resnet_dcls_kernel_5_model_best.pth.tar (about 102 MB)\n    https://zenodo.org/records/",
        "python run_all.py --download-only", "--profile demo",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_a_single_missing_shard_is_named(no_real_data):
    study = Study.from_profile("paper", models=["resnet50"])
    for path in study.inputs.all_files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert study.inputs.missing() == []
    assert [p.name for p in study.inputs.image_paths()] == [f"val-{i}.tfrecords" for i in range(18)]
    published = Study.from_profile("paper", protocols=["published"])  # the published 17
    assert [p.name for p in published.inputs.image_paths()] == [
        f"val-{i}.tfrecords" for i in range(17)
    ]
    (study.inputs.data / "clickme" / "val" / "val-11.tfrecords").unlink()
    with pytest.raises(MissingInputs, match=r"lacks 1 files:\n.*val-11.tfrecords"):
        study.inputs.require()


def test_weights_are_found_as_published_or_in_timms_naming(no_real_data):
    study = Study.from_profile("paper", models=["resnet50"])
    published = study.inputs.weights_path("resnet50", True)
    assert published.name == "resnet_dcls_kernel_5_model_best.pth.tar"
    own = published.with_name("resnet50_dcls.safetensors")
    own.parent.mkdir(parents=True)
    own.touch()
    assert study.inputs.weights_path("resnet50", True) == own
    assert "resnet50_dcls" not in [source.key for source in study.inputs.sources()]
    assert len(study.inputs.sources()) == 1 + 18


def test_the_data_may_lie_elsewhere(tmp_path):
    study = Study.from_profile("paper", data_dir=str(tmp_path))
    assert study.inputs.image_paths()[0] == tmp_path / "clickme" / "val" / "val-0.tfrecords"
    assert Study.from_profile("demo", data_dir=str(tmp_path)).inputs.data == DEMO


def test_a_subset_never_replaces_the_whole_studys_results():
    whole = Study.from_profile("demo")
    subsets = [{"limit": 5}, {"models": ["resnet50"]}, {"methods": ["grad_cam"]}]
    for choice in subsets:
        study = Study.from_profile("demo", **choice)
        assert study.places.figures != whole.places.figures
        assert study.places.output != whole.places.output
        assert study.places.scores == whole.places.scores  # named by what determines them
    assert (
        Study.from_profile("demo", batch_size=4, models=[b.key for b in THE_EIGHT]).places.name
        == "demo"
    )


def test_a_short_runs_analyses_take_fewer_images_and_models_and_a_whole_runs_all():
    short, whole = (Study.from_profile("demo", whole=w) for w in (False, True))
    sampled = short.sampled().choices
    assert (sampled.limit, [b.key for b in sampled.backbones]) == (
        16,
        ["resnet50", "convnext_tiny"],
    )
    assert [short.choices.few(part) for part in (1, 3, 24)] == [16, 5, 2]
    assert [short.choices.few(3, least=n) for n in (12, 100)] == [12, 16]
    assert [run.choices.briefly("fields", 16) for run in (short, whole)] == [5, 16]
    assert [run.choices.of_brief for run in (short, whole)] == [
        {"sample": "Short run: fewer images. --whole takes all."},
        {},
    ]
    assert short.choices.backbones == THE_EIGHT  # what is scored stays whole
    (said,) = short.choices.of_sample.values()
    assert said == "Short run: 16 images at most, 2 of 8 backbones. --whole takes all."

    assert whole.sampled().choices == whole.changed(limit=48).choices
    assert [whole.choices.few(part) for part in (1, 3, 24)] == [48, 16, 2]
    assert whole.choices.of_sample == {}


def test_a_short_run_takes_the_models_and_the_limit_that_are_chosen():
    study = Study.from_profile("demo", ["fastvit_sa24"], limit=10)
    sampled = study.sampled(methods=("grad_cam",)).choices
    assert (sampled.limit, [b.key for b in sampled.backbones]) == (10, ["fastvit_sa24"])
    assert [m.key for m in sampled.methods] == ["grad_cam"]
    assert study.choices.few(3) == 5
    assert study.choices.few(1) == 10
    assert study.changed(limit=1).choices.few(3) == 1
    assert "10 images at most, 1 of 1 backbones" in study.choices.of_sample["sample"]


def test_short_and_whole_runs_keep_their_results_apart_and_share_cached_scores():
    short, whole = (Study.from_profile("demo", whole=w) for w in (False, True))
    assert (short.places.name, whole.places.name) == ("demo", "demo_whole")
    assert short.places.scores == whole.places.scores
    assert whole.changed(limit=5).places.name == "demo_whole_subset"
    assert short.unlike(whole.facts()) == ["whole: True, here False"]


def test_whole_changes_nothing_where_a_profile_has_one_sample():
    for profile in ("gaze", "paper", "rehearsal"):
        asked, usual = (Study.from_profile(profile, whole=w) for w in (True, False))
        assert asked.choices == usual.choices
        assert asked.places.name == usual.places.name
        assert asked.choices.of_sample == {}


def test_preferred_backbones_fall_back_to_a_chosen_one():
    study = Study.from_profile("demo", models=["resnet50", "caformer_s18"], methods=["grad_cam"])
    assert [b.key for b in study.networks.prefer("caformer_s18", "convformer_s18")] == [
        "caformer_s18"
    ]
    assert [b.key for b in study.networks.prefer("convnext_base")] == ["resnet50"]
    assert study.choices.prefer_method().key == "grad_cam"


def test_making_a_study_and_drawing_figures_import_no_torch():
    code = (
        "import sys; from lib.study.study import Study; import lib.figures.scores, lib.maps.methods;"
        "Study.from_profile('demo').inputs.inventory(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_earlier_weights_are_any_files_of_a_variants_folder(no_real_data):
    study = Study.from_profile("paper", models=["resnet50"])
    assert study.inputs.training_checkpoints("resnet50", True) == []
    folder = study.inputs.data / "checkpoints" / "training" / "resnet50_dcls"
    folder.mkdir(parents=True)
    for name in ("b.safetensors", "a.pth.tar", ".hidden"):
        (folder / name).touch()
    found = study.inputs.training_checkpoints("resnet50", True)
    assert [path.name for path in found] == ["a.pth.tar", "b.safetensors"]
    assert study.inputs.files()["training checkpoints"] == found


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"protocls": ["corrected"]}, "unknown choice 'protocls'.*Did you mean 'protocols'"),
        ({"own": ()}, "unknown choice 'own'"),
        ({"batchsize": 3}, "Did you mean 'batch_size'"),
    ],
)
def test_a_misspelt_choice_is_refused_with_the_nearest_one(choice, why):
    with pytest.raises(ValueError, match=why):
        Study.from_profile("demo", **choice)


def test_a_changed_study_is_checked_as_a_new_one():
    study = Study.from_profile("demo", ["resnet50"], limit=8)
    assert study.changed() == study
    other = study.changed(models=["convnext_tiny"], methods=["layer_cam"], limit=3)
    assert other == Study.from_profile("demo", ["convnext_tiny"], ["layer_cam"], 3)
    assert study.choices.limit == 8
    assert study.changed(profile="paper").choices.profile is PROFILES["paper"]
    for choice, why in (
        ({"limt": 9}, "Did you mean 'limit'"),
        ({"limit": -9}, "limit must be a whole number"),
        ({"device": "gpu"}, "device 'gpu' is not one of"),
        ({"models": ["resnet5"]}, "Did you mean 'resnet50'"),
    ):
        with pytest.raises(ValueError, match=why):
            study.changed(**choice)


def test_what_counts_as_true_makes_the_same_study():
    assert (
        Study.from_profile("demo", keep_going=1).facts()
        == Study.from_profile("demo", keep_going=True).facts()
    )
    assert Study.from_profile("demo", keep_going="yes").choices.keep_going is True
