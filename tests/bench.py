"""How fast the study scores, against the forward alone and against others; ratios of one run.

    python tests/bench.py [--quick] [--models KEY ...] [--batch-size N] [--rounds N]

Full-size networks with random weights, generated images. Contenders take turns, round by
round, and medians are told, as multiples of the floor: one plain `inference_mode` forward of
the folded network on tensors that are ready. Writes `data/bench/bench.json` and `bench.md`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import scipy.stats
import torch
from rehearsal import generated_records
from tqdm import tqdm

from lib.base.files import write_atomically
from lib.base.geometry import Preprocessing
from lib.base.paths import DATA, shown
from lib.base.threads import reuse_memory
from lib.maps.forward import enlarge, head_pass
from lib.maps.methods import METHODS, PUBLISHED_METHODS
from lib.networks.backbones import THE_EIGHT, Backbone, variant_name
from lib.networks.batch_size import BatchSize
from lib.networks.building import build_network
from lib.networks.dcls import dcls_layers
from lib.networks.models import Provenance, StudyModel
from lib.networks.preprocessing import resize_images
from lib.networks.rewrites import Form, fastest_form, processor
from lib.people.clickme import ClickMe
from lib.people.human_maps import published_human_maps
from lib.people.protocols import DEFAULT_PROTOCOLS
from lib.people.stored.shards import write_shard
from lib.scores.agreements import agreements_of
from lib.scores.prepared import PreparedPart
from lib.scores.scoring import score_part
from lib.scores.spearman import correlate, rank_maps, spearman_per_image

RESULTS = DATA / "bench"
_QUICK = ("convnext_tiny", "caformer_s18_dcls")
_PUBLISHED = [METHODS[key] for key in PUBLISHED_METHODS]
_FURTHER = [METHODS["grad_cam_floor_0.3"], METHODS["relu_first"]]
_Contenders = Mapping[str, Callable[[], object]]


def _timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


_LONG = 5.0  # seconds: what takes longer needs no turn to get warm


def in_turns(contenders: _Contenders, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, taking turns; a first turn is not counted, unless it was long."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            if len(times[name]) < rounds:
                seconds = _timed(work, device)
                if number or seconds > _LONG:
                    times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


# --- networks ---------------------------------------------------------------------------------


def random_model(backbone: Backbone, dcls: bool, device: torch.device) -> StudyModel:
    """A full-size variant whose positions are spread over their window."""
    torch.manual_seed(0)
    network = build_network(backbone, dcls)
    reach = backbone.dcls.size // 2
    with torch.no_grad():
        for layer in dcls_layers(network).values():
            layer.P.uniform_(-reach, reach)
    provenance = Provenance(variant_name(backbone.key, dcls), "random", "full")
    return StudyModel(network, backbone, provenance).eval().to(device)


def published_way(
    model: StudyModel, x: torch.Tensor, labels: torch.Tensor, maps: np.ndarray
) -> list:
    """As the study was published: a full backward per method, kernels built at every forward,
    scipy image by image."""
    scores = []
    for method in _PUBLISHED:
        model.zero_grad()
        features = model.features(x)
        features.retain_grad()
        logits = model.head(features)
        logits.gather(1, labels[:, None]).sum().backward()
        small = method.small_map(features.detach(), features.grad)
        ours = enlarge(small).cpu().numpy()
        scores += [
            scipy.stats.spearmanr(a.ravel(), b.ravel()) for a, b in zip(ours, maps, strict=True)
        ]
    model.zero_grad()
    return scores


def _others(model: StudyModel, x: torch.Tensor, labels: torch.Tensor) -> _Contenders:
    """One plain Grad-CAM map an image, no score, by other packages; networks folded."""
    from captum.attr import LayerGradCam
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import GradCAM as TorchCam

    class Whole(torch.nn.Module):  # these packages hook a layer
        def __init__(self):
            super().__init__()
            self.network, self.end = model.network, torch.nn.Identity()

        def forward(self, x):
            return self.network.forward_head(self.end(self.network.forward_features(x)))

    whole = Whole().eval()
    targets = [ClassifierOutputTarget(int(label)) for label in labels]

    def grad_cam():
        with GradCAM(whole, [whole.end]) as cam:
            return cam(x, targets)

    def torch_cam():
        with TorchCam(whole, target_layer=whole.end) as cam:
            return cam(labels.tolist(), whole(x))

    def captum():
        return LayerGradCam(whole, whole.end).attribute(x, labels)

    return {"pytorch-grad-cam": grad_cam, "torch-cam": torch_cam, "captum": captum}


def bench_variant(
    backbone: Backbone,
    dcls: bool,
    shard: Path,
    batch: int,
    rounds: int,
    device: torch.device,
    compiled: bool = True,
) -> dict:
    """Seconds per image of every contender, and how scores change in other numbers.

    compiled : the study on a compiled network is one of them
    """
    plain = random_model(backbone, dcls, device)
    folded = plain.folded()
    side = backbone.preprocessing.crop
    fast = plain.for_inference(form=fastest_form(folded.network, side))
    rough = plain.for_inference("bf16", form=fast.form)
    clickme = ClickMe([shard], DEFAULT_PROTOCOLS, limit=2 * batch)
    ready = PreparedPart(clickme, device, batch)
    first = next(iter(ready.blocks(backbone.preprocessing)))[:batch]
    x = folded.prepare_pixels(first.pixels)
    labels = first.labels.to(device)
    people = published_human_maps(next(clickme.batches(batch)).stored_maps).numpy()
    last = x.contiguous(memory_format=torch.channels_last)
    folded_last = plain.for_inference(form=Form())
    images = len(clickme)

    @torch.inference_mode()
    def forward(model: StudyModel, x: torch.Tensor) -> None:
        for _ in range(images // batch):
            model(x)

    def study(model: StudyModel, part: PreparedPart | None = None) -> pd.DataFrame:
        part = part or PreparedPart(
            ClickMe([shard], DEFAULT_PROTOCOLS, limit=2 * batch), device, batch
        )
        return score_part(model, _PUBLISHED, part, BatchSize(batch))

    fast_contenders = {
        "forward, contiguous": lambda: forward(folded, x),
        "forward, channels-last": lambda: forward(folded_last, last),
        "forward, as rewritten": lambda: forward(fast, fast.prepare_pixels(first.pixels)),
        "study, from the shard on": lambda: study(fast),
        "study, part ready": lambda: study(fast, ready),
        "study, bf16": lambda: study(rough, ready),
    }
    scores, changed = study(fast, ready), {"bf16": study(rough, ready)}
    why = ""
    if compiled:
        packed = plain.for_inference(compiled=True)
        try:
            changed["compiled"] = study(packed, ready)
        except Exception as error:  # no compiler for this machine
            why = f"{type(error).__name__}: {error}"[:200]
        else:
            fast_contenders["study, compiled"] = lambda: study(packed)
            fast_contenders["forward, compiled"] = lambda: forward(packed, last)
    seconds = in_turns(fast_contenders, rounds, device)
    per_image = {name: value / images for name, value in seconds.items()}
    contenders = {"published way": lambda: published_way(plain, x, labels, people)}
    contenders |= _others(folded, x, labels)
    slow = in_turns(contenders, max(1, rounds // 2), device)
    per_image |= {name: seconds / batch for name, seconds in slow.items()}
    changes = {name: (table.rho - scores.rho).abs() for name, table in changed.items()}
    return {
        "variant": plain.variant,
        "form": vars(fast.form) | {},
        "seconds_per_image": per_image,
        "change_of_rho": {
            name: {"mean": float(change.mean()), "max": float(change.max())}
            for name, change in changes.items()
        },
        "not_compiled": why,
        "further_methods": further_methods(fast, first, device, rounds),
    }


def further_methods(
    model: StudyModel, block, device: torch.device, rounds: int
) -> dict[str, float]:
    """Seconds per image that each further map and its scores cost, the pass being made."""
    x = model.prepare_pixels(block.pixels)
    passed = head_pass(model, x, block.labels)

    def only_map(method):
        return enlarge(method.small_map(passed.features, passed.gradient))

    def cost(method):
        return agreements_of(only_map(method)[None], block.human)

    contenders = {f"{m.label}, map": lambda m=m: only_map(m) for m in _FURTHER}
    contenders |= {f"{m.label}, map and scores": lambda m=m: cost(m) for m in _FURTHER}
    found = in_turns(contenders, 3 * rounds, device)
    return {name: seconds / len(block) for name, seconds in found.items()}


# --- the other parts --------------------------------------------------------------------------


def bench_spearman(rounds: int, device: torch.device, count: int = 8) -> dict[str, float]:
    """Seconds per map of 50,176 pixels, human ranks made before where a package can."""
    from torchmetrics.functional import spearman_corrcoef

    torch.manual_seed(0)
    small = torch.rand(count, 7, 7, device=device).clamp(min=0.3)
    maps, human = enlarge(small), enlarge(torch.rand(count, 64, 64, device=device))
    ranks = rank_maps(human)
    flat, flat_human = maps.flatten(1).T.contiguous(), human.flatten(1).T.contiguous()
    pairs = list(zip(maps.cpu().numpy(), human.cpu().numpy(), strict=True))

    found = in_turns(
        {
            "this study, one protocol": lambda: spearman_per_image(maps, ranks),
            "this study, both protocols": lambda: correlate(maps, [(ranks, False), (ranks, True)]),
            "this study, human maps unranked": lambda: spearman_per_image(maps, human),
            "scipy.stats.spearmanr": lambda: [
                scipy.stats.spearmanr(a.ravel(), b.ravel()) for a, b in pairs
            ],
            "torchmetrics": lambda: spearman_corrcoef(flat, flat_human),
        },
        3 * rounds,
        device,
    )
    return {name: seconds / count for name, seconds in found.items()}


def bench_reader(shard: Path, batch: int, rounds: int) -> dict[str, float]:
    """Seconds per image of reading alone."""
    clickme = ClickMe([shard], DEFAULT_PROTOCOLS, limit=2 * batch)
    images = next(clickme.batches(8)).images
    stored = next(clickme.batches(8)).stored_maps
    here = torch.device("cpu")

    def resized(resize: int, crop: int):
        return resize_images(images, Preprocessing(resize, crop))

    found = in_turns(
        {
            "decode, checksum, deliver": lambda: list(clickme.batches(8)),
            "resize to 256 (8 images)": lambda: resized(256, 224),
            "rank human maps, one reading (8)": lambda: rank_maps(published_human_maps(stored)),
        },
        3 * rounds,
        here,
    )
    of = {"decode, checksum, deliver": len(clickme)}
    return {name: seconds / of.get(name, 8) for name, seconds in found.items()}


def bench_growth(counts: Sequence[int], batch: int) -> list[dict]:
    """Time and peak memory of scoring so many images, each in a process of its own.

    In shards of 64, so that memory is that of the loop and not of one growing shard.
    """
    rows = []
    for count in counts:
        command = [
            sys.executable,
            __file__,
            "--grow",
            str(count),
            "--batch-size",
            str(batch),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def _grow(count: int, batch: int) -> dict:
    device = torch.device("cpu")
    backbone = next(b for b in THE_EIGHT if b.key == "convnext_tiny")
    model = random_model(backbone, False, device).for_inference(form=Form())
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for number in range(max(1, count // 64)):
            shards.append(Path(folder) / f"val-{number}.tfrecords")
            write_shard(shards[-1], islice(generated_records(number), min(count, 64)))
        clickme = ClickMe(shards, ("corrected",))
        size = BatchSize(batch)
        parts = list(clickme.per_part())
        score_part(model, _PUBLISHED, PreparedPart(parts[0], device, batch), size)
        started = time.perf_counter()
        for some in parts:
            score_part(model, _PUBLISHED, PreparedPart(some, device, batch), size)
        seconds = time.perf_counter() - started
    return {"images": count, "seconds": seconds, "peak_memory_bytes": _peak_memory()}


def _peak_memory() -> int:
    """Bytes. (`resource.getrusage` would tell the parent's, from before this program began.)"""
    status = Path("/proc/self/status")
    if not status.exists():
        return psutil.Process().memory_info().rss
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# --- all of it ----------------------------------------------------------------------------------


def machine(device: torch.device) -> str:
    """In words, for the table."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def run(
    models: Sequence[str], batch: int, rounds: int, quick: bool, save: Callable[[dict], None]
) -> dict:
    """Every measurement, as plain values; `save` is given them as they grow."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reuse_memory()  # as scoring does; the floor has it too
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    variants = [
        (backbone, dcls)
        for backbone in THE_EIGHT
        for dcls in (False, True)
        if not models or variant_name(backbone.key, dcls) in models
    ]
    images = 2 * batch  # of a shard with one whole batch of the published protocol
    packages = ("torch", "timm", "numpy", "scipy", "numba", "grad-cam", "torchcam", "captum",
                "torchmetrics")  # fmt: skip
    facts = {
        "machine": machine(device),
        "system": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "batch": batch,
        "rounds": rounds,
        "images": images,
    }
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "val-0.tfrecords"
        write_shard(shard, islice(generated_records(0), max(32, images)))
        results = facts | {
            "spearman": bench_spearman(rounds, device),
            "reader": bench_reader(shard, batch, rounds),
            "growth": bench_growth((16, 64) if quick else (16, 64, 256), batch),
            "variants": [],
        }
        for backbone, dcls in tqdm(variants, desc="variants", unit="model", file=sys.stderr):
            row = bench_variant(backbone, dcls, shard, batch, rounds, device, not quick)
            results["variants"].append(row)
            save(results)  # what is measured is kept if the rest is not
    return results


def floor_of(row: Mapping) -> float:
    """Seconds of the plain forward in the better of the two layouts."""
    times = row["seconds_per_image"]
    return min(times["forward, contiguous"], times["forward, channels-last"])


_COLUMNS = {
    "study, from the shard on": "study",
    "study, part ready": "study, part ready",
    "forward, as rewritten": "rewritten forward",
    "forward, compiled": "compiled forward",
    "study, compiled": "study, compiled",
    "study, bf16": "study, bf16",
    "published way": "published way",
    "pytorch-grad-cam": "pytorch-grad-cam",
    "torch-cam": "torch-cam",
    "captum": "captum",
}


_RATES = {
    "study, from the shard on": "images/s ÷ floor's",
    "study, compiled": "the same, compiled",
}


def markdown(results: Mapping) -> str:
    """The tables, for readers."""
    rows = []
    for row in results["variants"]:
        floor, times = floor_of(row), row["seconds_per_image"]
        line = {"variant": row["variant"], "floor (ms)": f"{1e3 * floor:.1f}"}
        line |= {
            label: f"{times[name] / floor:.2f}" for name, label in _COLUMNS.items() if name in times
        }
        for name, label in _RATES.items():
            if name in times:
                line[label] = f"{floor / times[name]:.2f}"
        for name, change in row["change_of_rho"].items():
            line[f"{name}: mean, max change of ρ"] = "{mean:.0e}, {max:.0e}".format(**change)
        if row["not_compiled"]:
            line["not compiled"] = row["not_compiled"]
        rows.append(line)
    further = pd.DataFrame(
        [
            {"variant": row["variant"]}
            | {n: f"{s / floor_of(row):.3f}" for n, s in row["further_methods"].items()}
            for row in results["variants"]
        ]
    )
    grown = pd.DataFrame(
        {
            "images": row["images"],
            "ms an image": f"{1e3 * row['seconds'] / row['images']:.1f}",
            "peak memory (MiB)": f"{row['peak_memory_bytes'] / 2**20:.0f}",
        }
        for row in results["growth"]
    )

    def table(frame: pd.DataFrame) -> str:
        return frame.to_markdown(index=False, disable_numparse=True)

    def listing(times: Mapping[str, float]) -> str:
        names = pd.DataFrame({"": n, "ms": f"{1e3 * s:.2f}"} for n, s in times.items())
        return table(names)

    parts = [
        f"# Benchmark\n\n{results['machine']}; {results['system']}; "
        + ", ".join(f"{name} {number}" for name, number in results["packages"].items())
        + f". Batch {results['batch']}, float32 unless said otherwise, random weights, "
        f"{results['images']} generated images; medians of {results['rounds']} rounds in which "
        "contenders take turns (half as many for other packages). Made by `make bench`.",
        "## Time per image, as a multiple of the floor\n\n"
        "Floor: one plain `inference_mode` forward of the folded network on ready tensors, in the "
        "faster of two layouts. Study: Grad-CAM and Threshold-Grad-CAM, both protocols, from the "
        "encoded record to the score; *part ready*: decoding and human ranks shared with other "
        "variants; *compiled*: with `--compile`, from the record on, compiling not counted. "
        "Published way: a full backward per method, kernels built anew, scipy. Other "
        "packages: one plain map, no score, networks folded for them.",
        table(pd.DataFrame(rows)),
        "## A further method, as a share of the floor",
        table(further),
        f"## Spearman alone, a map of 50,176 pixels\n\n{listing(results['spearman'])}",
        f"## Reading alone, per image\n\n{listing(results['reader'])}",
        "## Time and memory against the number of images\n\nConvNeXt-T, one protocol, shards of "
        "at most 64 images; a shard's images and ranks are held while it is scored "
        f"(0.6 MB an image).\n\n{table(grown)}",
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python tests/bench.py", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="two variants, in three minutes")
    parser.add_argument("--models", nargs="+", default=[], metavar="VARIANT")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=0, help="default: 3, quick: 2")
    parser.add_argument("--out", type=Path, default=None, help="folder (default: data/bench)")
    parser.add_argument("--grow", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.grow:
        print(json.dumps(_grow(options.grow, options.batch_size)))
        return
    models = options.models or (_QUICK if options.quick else ())
    rounds = options.rounds or (2 if options.quick else 3)
    folder = options.out or (DATA / "output" / "bench" if options.quick else RESULTS)

    def save(results: dict) -> None:
        texts = {"bench.json": json.dumps(results, indent=1), "bench.md": markdown(results)}
        for name, text in texts.items():
            with write_atomically(folder / name) as partial:
                partial.write_text(text, encoding="utf-8")

    print(markdown(run(models, options.batch_size, rounds, options.quick, save)))
    print(f"written to {shown(folder)}")


if __name__ == "__main__":
    main()
