"""Kept scores: killed, raced, damaged, half there; the table is as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import random
import re
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
from filelock import SoftFileLease
from rehearsal import write_stand_in
from stand_ins import CEILINGS, NO_CONTROLS, imports_of, make_record, module_of

from lib.base.alone import alone
from lib.base.files import partial_name
from lib.base.paths import DEMO, ROOT
from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.checkpoints import MissingWeights, WeightsError
from lib.networks.sources import WEIGHTS
from lib.people.stored import StoredError
from lib.people.stored.shards import Shard, write_shard
from lib.report.readable import readable_table
from lib.report.result_table import results_table, write_results
from lib.scores import units
from lib.scores.accuracy import weights_table
from lib.scores.kept import DETERMINING_CODE
from lib.scores.results import paired_differences
from lib.scores.study_scores import left_out, score_study
from lib.scores.units import ScoreWork
from lib.study.inputs import Inputs, MissingInputs
from lib.study.profiles import PROFILES
from lib.study.study import Study
from lib.work import cache
from lib.work.cache import read_cached

SHARDS, IMAGES = 3, 8
_MAKE_STUDY = """
import os, sys
from dataclasses import replace
import lib.study.places
from lib.scores import score_study
from lib.study import Study

sys.stderr = open(os.devnull, "w")
lib.study.places.OUTPUT = output
study = Study.from_profile("demo", models=["resnet50"], protocols=["corrected"], batch_size=4)
names = tuple(p.name for p in sorted((data / "clickme" / "val").iterdir()))
study = study.changed(profile=replace(study.choices.profile, data=data, shard_names=names))
scores = score_study(study)
scores.to_csv(table, index=False)
"""
# Processes of their own that need not import everything anew.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lib.study.study", "lib.scores.study_scores"])


@pytest.fixture
def data(tmp_path) -> Path:
    """The demo's weights, and three small shards."""
    folder = tmp_path / "data"
    for number in range(SHARDS):
        path = folder / "clickme" / "val" / f"val-{number}.tfrecords"
        write_shard(path, (make_record(100 * number + i, label=i % 12) for i in range(IMAGES)))
    (folder / "checkpoints").mkdir()
    for path in (DEMO / "checkpoints").iterdir():
        (folder / "checkpoints" / path.name).symlink_to(path)
    return folder


@pytest.fixture
def make(data, monkeypatch, tmp_path):
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")

    def study(**choices) -> Study:
        choices = {"models": ["resnet50"], "protocols": ["corrected"], "batch_size": 4} | choices
        made = Study.from_profile("demo", **choices)
        names = tuple(f"val-{number}.tfrecords" for number in range(SHARDS))
        return made.changed(profile=replace(made.choices.profile, data=data, shard_names=names))

    return study


def start(data: Path, output: Path, table: Path) -> BaseProcess:
    names = {"data": data, "output": output, "table": table}
    process = PROCESSES.Process(target=exec, args=(_MAKE_STUDY, names))
    process.start()
    return process


def status(process: BaseProcess) -> int:
    process.join()
    return process.exitcode


def kept(output: Path) -> dict[str, tuple[int, int]]:
    """Finished files: name -> inode and time of change."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in output.rglob("[!.]*.parquet")}


def test_what_a_killed_process_leaves_is_kept_where_it_is_whole(make, monkeypatch):
    """As a kill leaves it: two finished files, and a part of a third under its temporary name."""
    study, whole, done = make(), units.score_part, []
    expected = score_study(study)

    def killed(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return whole(*arguments)

    monkeypatch.setattr("lib.study.places.OUTPUT", study.places.output / "killed")
    with monkeypatch.context() as patched:
        patched.setattr(units, "score_part", killed)
        with pytest.raises(KeyboardInterrupt):
            score_study(study)
    before = kept(study.places.scores)
    assert len(before) == 2
    one = next(study.places.scores.iterdir())
    partial_name(one).write_bytes(one.read_bytes()[:-10])
    pd.testing.assert_frame_equal(score_study(study), expected)
    after = kept(study.places.scores)
    assert len(after) == SHARDS * 2
    assert {name: after[name] for name in before} == before


@pytest.mark.slow  # of which the test above is the quick form
def test_scoring_killed_at_any_moment_and_resumed_ends_as_if_it_had_not_been(data, tmp_path):
    expected = tmp_path / "expected.csv"
    assert status(start(data, tmp_path / "once", expected)) == 0
    output, table = tmp_path / "killed", tmp_path / "table.csv"
    dice = random.Random(4)
    kills = 0
    for wanted in (1, 2, 4):  # so many files are there when the kill comes, or just more
        process = start(data, output, table)
        while process.is_alive() and len(kept(output)) < wanted:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.05))
        before = kept(output)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        after = kept(output)
        assert {name: after[name] for name in before} == before  # nothing finished is redone
    before = kept(output)
    assert status(start(data, output, table)) == 0
    assert kills
    after = kept(output)
    assert {name: after[name] for name in before} == before
    assert len(after) == SHARDS * 2
    assert table.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_two_at_once_do_not_disturb_each_other(data, tmp_path):
    both = [start(data, tmp_path / "shared", tmp_path / f"{i}.csv") for i in range(2)]
    alone = start(data, tmp_path / "alone", tmp_path / "alone.csv")
    assert [status(process) for process in (*both, alone)] == [0, 0, 0]
    texts = {(tmp_path / f"{name}.csv").read_bytes() for name in (0, 1, "alone")}
    assert len(texts) == 1
    files = list((tmp_path / "shared").rglob("*.parquet"))
    assert len(files) == SHARDS * 2
    assert not list((tmp_path / "shared").rglob(".*"))


def test_what_another_process_scores_is_waited_for_and_not_scored_again(make, monkeypatch):
    study = make()
    score_study(study)
    work = ScoreWork(study)
    unit = next(work.units())
    whole = unit.path.read_bytes()
    unit.path.unlink()
    monkeypatch.setattr(units, "score_part", lambda *_: pytest.fail("scored again"))
    waits = threading.Event()
    acquire = SoftFileLease.acquire

    def watched(self, timeout=None, **options):
        if timeout:
            waits.set()
        return acquire(self, timeout=timeout, **options)

    with ThreadPoolExecutor(1) as other:
        with alone(unit.path):
            monkeypatch.setattr(SoftFileLease, "acquire", watched)
            scored = other.submit(work.do, unit)
            assert waits.wait(60)
            unit.path.write_bytes(whole)
        scored.result()
    assert unit.path.read_bytes() == whole
    assert not list(study.places.scores.glob("*.lease"))


def test_a_damaged_file_of_cached_scores_is_made_anew(make):
    study = make()
    expected = score_study(study)
    path = next(study.places.scores.iterdir())
    whole = path.read_bytes()
    for content in (b"", whole[:-10], b"PAR1" + bytes(100)):
        path.write_bytes(content)
        pd.testing.assert_frame_equal(score_study(study), expected)
    bits = random.Random(0).sample(range(8 * len(whole)), 300)
    assert flips_that_pass(path, [*bits, *range(8 * len(whole) - 64, 8 * len(whole))]) == []


@pytest.mark.slow
def test_no_flipped_bit_in_cached_scores_passes(make):
    study = make()
    score_study(study)
    path = next(study.places.scores.iterdir())
    assert flips_that_pass(path, range(8 * path.stat().st_size)) == []


def flips_that_pass(path: Path, bits: Iterable[int]) -> list[int]:
    """Those of these bits that may flip in a file of kept scores without its being damaged."""
    whole, passed = path.read_bytes(), []
    assert read_cached(path) is not None
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        if read_cached(path) is not None:
            passed.append(bit)
    path.write_bytes(whole)
    return passed


def test_cached_scores_are_a_parquet_file_like_any_other(make):
    study = make()
    score_study(study)
    path = next(study.places.scores.iterdir())
    pd.testing.assert_frame_equal(pd.read_parquet(path), read_cached(path))


def test_where_scores_cannot_be_written_nothing_finished_is_lost(make, monkeypatch):
    """A full disk, or a folder that became read-only, after some of the work."""
    study = make()
    whole = cache.write_atomically
    written = []

    def full(path):
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return whole(path)

    monkeypatch.setattr(cache, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        score_study(study)
    assert len(kept(study.places.scores)) == 2
    monkeypatch.setattr(cache, "write_atomically", whole)
    before = kept(study.places.scores)
    assert len(score_study(study)) == SHARDS * IMAGES * 2 * 2
    assert before.items() <= kept(study.places.scores).items()


# --- what is missing or unreadable ------------------------------------------------------------


def test_an_unreadable_shard_ends_the_run_and_keeps_what_is_finished(make, data):
    second = data / "clickme" / "val" / "val-1.tfrecords"
    content = bytearray(second.read_bytes())
    content[Shard(second).addresses[5].offset + 50] ^= 1
    second.write_bytes(content)
    study = make()
    with pytest.raises(StoredError, match=r"val-1.tfrecords, record 5 at byte .* checksum"):
        score_study(study)
    assert len(kept(study.places.scores)) == 2  # val-0, both variants


def test_keep_going_scores_what_it_can_and_says_what_it_left_out(make, data):
    complete = score_study(make())
    val = data / "clickme" / "val"
    content = bytearray((val / "val-1.tfrecords").read_bytes())
    content[Shard(val / "val-1.tfrecords").addresses[5].offset + 50] ^= 1
    (val / "val-1.tfrecords").write_bytes(content)
    (val / "val-2.tfrecords").unlink()
    with pytest.raises(MissingInputs):
        score_study(make())
    study = make(keep_going=True)
    scores = score_study(study)
    told = left_out(scores).set_index("left_out").reason
    assert set(told.index) == {"val-1:5", "val-2"}
    assert "checksum does not match" in told["val-1:5"]
    assert "No such file" in told["val-2"]
    there = complete[~complete.image_id.str.fullmatch(r"val-1:5|val-2:\d+")]
    # Other batches sum in another order, which may break ties otherwise.
    pd.testing.assert_frame_equal(scores, there.reset_index(drop=True), atol=1e-4)
    # Said again when all is kept from before; and never taken for complete.
    pd.testing.assert_frame_equal(left_out(score_study(study)), left_out(scores))
    (val / "val-2.tfrecords").write_bytes((val / "val-0.tfrecords").read_bytes())
    with pytest.raises(StoredError, match="val-1.tfrecords, record 5"):
        score_study(make())


@pytest.mark.parametrize("trouble", ["missing", "cut short"])
def test_keep_going_leaves_out_a_model_that_cannot_be_loaded(make, data, trouble, monkeypatch):
    path = data / "checkpoints" / "caformer_s18_dcls.safetensors"
    content = path.read_bytes()
    path.unlink()
    if trouble == "cut short":
        path.write_bytes(content[:-100])
        (data / "classes.txt").symlink_to(DEMO / "classes.txt")
        monkeypatch.setattr(
            "lib.networks.loading.DEMO", data
        )  # where the miniatures are loaded from
    models = ["resnet50", "caformer_s18"]
    with pytest.raises((MissingInputs, WeightsError)):
        score_study(make(models=models))
    study = make(models=models, keep_going=True)
    assert [backbone.key for backbone, _ in study.networks.there()] == ["resnet50"] * 2
    scores = score_study(study)
    assert set(scores.variant) == {"resnet50", "resnet50_dcls", "caformer_s18"}
    missed = left_out(scores)
    assert missed.left_out.tolist() == ["caformer_s18_dcls"]
    table = results_table(study, scores, NO_CONTROLS, CEILINGS)
    of_caformer = table[table.group.str.startswith("CAFormer")]
    plain, dcls = (of_caformer[of_caformer.place == place] for place in (0, 1))
    assert plain.score.notna().all()
    assert dcls.score.isna().all()
    assert dcls.n_paired.eq(0).all()
    assert readable_table(table)["Score with DCLS [95 %]"].tolist().count("–") == 2
    write_results(study, table, missed, weights_table(study, scores), CEILINGS)
    text = (study.places.output / "tables" / "results.md").read_text()
    assert "Skipped, because missing or unreadable (1, see left_out.csv): caformer_s18_dcls" in text


def test_with_nothing_that_can_be_scored_keep_going_ends_with_the_reasons(make, data):
    for path in (data / "checkpoints").glob("resnet50*"):
        path.unlink()
    with pytest.raises(MissingInputs, match="resnet50_dcls.safetensors"):
        score_study(make(keep_going=True))


def test_missing_weights_without_keep_going_are_named(make, monkeypatch):
    study = make()
    monkeypatch.setattr(Inputs, "require", lambda self: None)  # gone since they were checked
    (study.inputs.data / "checkpoints" / "resnet50.safetensors").unlink()
    with pytest.raises(MissingWeights, match=r"no weights at .*resnet50\.safetensors"):
        score_study(study)


# --- the fairer pair -----------------------------------------------------------------------------


def test_the_matched_resnet_shares_its_dcls_model_and_its_scores(tmp_path, monkeypatch):
    """ResNet-50 (A3) is a row of the paper profile; its DCLS scores are computed once."""
    monkeypatch.setattr("lib.study.places.OUTPUT", tmp_path / "output")
    # Small networks of the same layers: which are read and scored is all that matters here.
    small = partial(build_network, num_classes=1000, mini=True)
    for reads in ("loading", "opened"):
        monkeypatch.setattr(
            f"lib.networks.{reads}.build_network", lambda row, dcls, **_: small(row, dcls)
        )
    assert [b.key for b in PROFILES["paper"].backbones if b.pair_of] == ["resnet50_a3"]
    data = tmp_path / "data"
    write_shard(data / "clickme/val/val-0.tfrecords", (make_record(i, label=i) for i in range(3)))
    for name in ("resnet50", "resnet50_a3", "resnet50_dcls"):
        source = WEIGHTS[name]
        network = small(BACKBONES[source.variant[0]], source.variant[1])
        write_stand_in(network, "resnet", source, data)
    study = Study.from_profile(
        "paper", models=["resnet50", "resnet50_a3"], protocols=["corrected"],
        methods=["grad_cam"], images=str(data / "clickme" / "val"), data_dir=str(data),
    )  # fmt: skip
    scores = score_study(study)
    names = sorted(re.sub("-val-0-.*", "", p.name) for p in study.places.scores.iterdir())
    assert names == ["resnet50", "resnet50_a3", "resnet50_dcls"]
    rho = {name: rows.rho.fillna(-2).tolist() for name, rows in scores.groupby("variant")}
    assert rho["resnet50_a3_dcls"] == rho["resnet50_dcls"]
    assert rho["resnet50_a3"] != rho["resnet50"]
    table = results_table(study, scores, NO_CONTROLS, CEILINGS)
    assert table.variant.tolist() == [
        "resnet50", "resnet50_dcls", "resnet50_a3", "resnet50_a3_dcls",
    ]  # fmt: skip
    assert [("A1" in told, "A3" in told) for told in table.recipe] == [
        (True, False), (False, True), (False, True), (False, True),
    ]  # fmt: skip
    assert "Trained by without DCLS" in readable_table(table)
    assert len(paired_differences(study.choices, scores, CEILINGS)) == 2


def test_a_shard_that_changes_while_it_is_scored_keeps_nothing_wrong(make, data, monkeypatch):
    """Its images were read before, its hash would be taken after."""
    study = make()
    path = data / "clickme" / "val" / "val-0.tfrecords"
    whole = units.score_part

    def replaced(*arguments):
        scores = whole(*arguments)
        write_shard(path, (make_record(500 + i, label=1) for i in range(IMAGES)))
        return scores

    monkeypatch.setattr(units, "score_part", replaced)
    with pytest.raises(StoredError, match="resnet50-val-0: its images or weights changed while"):
        score_study(study)
    assert not kept(study.places.scores)


# --- what the names of kept scores depend on ---------------------------------------------

# Modules that scoring imports and that cannot change a score, or whose part in it is hashed
# otherwise.
WITHOUT_A_PART = {
    # files, messages, tables, threads: they carry numbers and make none
    "lib.base.files", "lib.base.fingerprint", "lib.base.paths", "lib.base.progress_bar",
    "lib.base.shortage",
    "lib.base.stored_json", "lib.base.tables", "lib.base.threads", "lib.base.words",
    "lib.people.stored",
    # points that are read, and how: hashed
    "lib.people.stored.layouts",
    # what was fetched is hashed
    "lib.networks.known_files", "lib.networks.opened",
    # rows: those that were chosen are hashed
    "lib.networks.backbones", "lib.networks.precision", "lib.networks.sources",
    # how many images a forward takes; which images, weights and device there are: hashed
    "lib.networks.batch_size", "lib.study.choices", "lib.study.extension", "lib.study.inputs",
    "lib.study.comparisons", "lib.study.own_files", "lib.study.plug_ins", "lib.study.profiles", "lib.study.rules",
}  # fmt: skip


def test_every_module_that_makes_a_score_is_in_its_name():
    files = {module_of(path): path for path in (ROOT / "lib").rglob("*.py")}
    # The table of methods names further ones, which are imported when they are called.
    text = files["lib.maps.methods"].read_text()
    called = {f"lib.maps{name}" for name in re.findall(r'"(\.[a-z][\w.]*)"', text)}
    assert len(called) == 8
    reached: set[str] = set()
    waiting = {"lib.scores.scoring", "lib.study.networks", "lib.people.clickme", *called}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= imports_of(files[name], set(files)) - reached
    reached = {name for name in reached if not name.startswith("lib.people.stored.layouts.")}
    named = {f"lib.{name}" for name in DETERMINING_CODE}
    assert reached - WITHOUT_A_PART == named
