"""A rehearsal of the full study: everything but its true numbers.

    python tests/rehearsal.py [options of run_all.py]

makes full-size networks with random weights, stored in the published containers under the
original repositories' names, and shards of ClickMe's format with 1,024 generated images
each; serves them on this machine; and runs the study on them from the download on. Nothing
measured on them says anything about any model, and every figure says so.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from lib.base.fingerprint import sha256_of
from lib.base.paths import DATA, ROOT
from lib.networks.backbones import BACKBONES
from lib.networks.building import build_network
from lib.networks.dcls import dcls_layers
from lib.networks.sources import MIRROR, SHARDS, WEIGHTS, Source
from lib.people.stored.shards import Record, encode_jpeg, write_shard

SERVED = DATA / "rehearsal" / "served"
_PER_SHARD, _DISTINCT = 1024, 48

Renaming = Callable[[str, Tensor], tuple[str, Tensor]]


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        name = re.sub(pattern, replacement, name)
    return name


def _convnext(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Facebook's ConvNeXt."""
    return _renamed(name, {
        r"^stem\.": "downsample_layers.0.",
        r"^stages\.(\d+)\.downsample\.": r"downsample_layers.\1.",
        r"\.blocks\.": ".", "conv_dw": "dwconv", r"mlp\.fc": "pwconv",
        r"^head\.norm\.": "norm.", r"^head\.fc\.": "head.",
    }), tensor  # fmt: skip


def _metaformer(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Sail's MetaFormer: its pointwise layers are linear, channels last."""
    name = _renamed(name, {
        r"^stem\.norm": "downsample_layers.0.post_norm", r"^stem\.": "downsample_layers.0.",
        r"^stages\.(\d+)\.downsample\.norm": r"downsample_layers.\1.pre_norm",
        r"^stages\.(\d+)\.downsample\.": r"downsample_layers.\1.",
        r"\.blocks\.": ".", r"^head\.norm\.": "norm.", r"^head\.fc\.": "head.",
    })  # fmt: skip
    is_linear = tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
    return name, tensor.flatten(1) if is_linear else tensor


# Stage: its place in Apple's flat list, in which downsamplings and, before the last stage,
# the positional encoding have places of their own.
_FASTVIT_PLACES = {"0": 0, "1": 2, "2": 4, "3": 7}


def _fastvit(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Apple's FastViT."""
    name = re.sub(r"^stages\.(\d)\.blocks\.", lambda m: f"network.{_FASTVIT_PLACES[m[1]]}.", name)
    name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"network.{2 * int(m[1]) - 1}.", name)
    return _renamed(name, {
        r"^stages\.3\.pos_emb\.pos_enc\.": "network.6.pe.",
        r"^stem\.": "patch_embed.", r"^final_conv\.": "conv_exp.", r"^head\.fc\.": "head.",
        "conv_kxk": "rbr_conv", "conv_scale": "rbr_scale",
        r"(rbr_\w+|\.mixer|\.norm|^patch_embed\.\d|^conv_exp|\.proj\.\d)\.identity": r"\1.rbr_skip",
        "large_conv": "lkb_origin", r"\.mlp\.": ".convffn.",
        r"se\.fc1": "se.reduce", r"se\.fc2": "se.expand",
        r"(layer_scale(?:_\d)?)\.gamma$": r"\1",
    }), tensor  # fmt: skip


_ORIGINAL: dict[str, Renaming] = {
    "resnet": lambda name, tensor: (name, tensor),
    "convnext": _convnext,
    "metaformer": _metaformer,
    "fastvit": _fastvit,
}


def in_original_names(network: nn.Module, family: str) -> dict[str, Tensor]:
    """A network's tensors as the original repository of its family names and shapes them."""
    return dict(_ORIGINAL[family](name, t) for name, t in network.state_dict().items())


def random_network(key: str, dcls: bool) -> nn.Module:
    """A full-size variant whose random positions are spread over their window."""
    network = build_network(BACKBONES[key], dcls)
    with torch.no_grad():
        for layer in dcls_layers(network).values():
            size = layer.dilated_kernel_size[0]
            layer.P.uniform_(-(size // 2), size // 2)
    return network.eval()


def write_stand_in(network: nn.Module, family: str, source: Source, folder: Path) -> Path:
    """Store a network as the published file of that row is stored; returns where."""
    path = folder / source.place
    path.parent.mkdir(parents=True, exist_ok=True)
    if not source.container:
        tensors = {name: t.contiguous() for name, t in network.state_dict().items()}
        save_file(tensors, path)
        return path
    # As trainers leave it: with their options, paths and numbers of numpy among them.
    options = argparse.Namespace(
        model="stand-in", output_dir=Path("/somewhere"), data=PureWindowsPath("C:/images"),
        lr=np.float64(1e-3), kind=np.dtype("float32"), losses=defaultdict(list, {"train": [1.0]}),
    )  # fmt: skip
    stored = {source.container: in_original_names(network, family), "epoch": 1, "args": options}
    if source.container == "state_dict_ema":
        stored |= {"arch": "stand-in", "state_dict": {}, "version": 2}
    torch.save(stored, path)
    return path


def _served(source: Source) -> Path:
    """Where the server looks for a file: `<host>/<path>`, as a mirror is asked for it."""
    parts = urlsplit(source.url)
    return SERVED / parts.netloc / parts.path.strip("/")


def make_weights() -> None:
    """A stand-in of every published weights file that is not there yet."""
    for source in tqdm(WEIGHTS.values(), desc="weights", unit="file"):
        place = _served(source)
        if place.exists():
            continue
        key, dcls = source.variant
        torch.manual_seed(len(source.key))
        network = random_network(key, dcls)
        made = write_stand_in(network, BACKBONES[key].family, source, SERVED / "made")
        place.parent.mkdir(parents=True, exist_ok=True)
        made.replace(place)


def generated_records(shard: int) -> Iterator[Record]:
    """Generated images, some dozens of them repeated under other labels."""
    rng = np.random.default_rng(shard)
    pairs = []
    for _ in range(_DISTINCT):
        image = rng.integers(0, 256, (16, 16, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        heatmap = np.zeros((256, 256), np.uint8)
        row, column = rng.integers(0, 180, 2)
        heatmap[row : row + 70, column : column + 60] = rng.integers(100, 255)
        pairs.append((encode_jpeg(image, 90), encode_jpeg(heatmap, 90)))
    for index in range(_PER_SHARD):
        yield Record(*pairs[index % _DISTINCT], int(rng.integers(0, 1000)))


def make_shards() -> None:
    """A stand-in of every shard that is not there yet."""
    for number, source in enumerate(tqdm(SHARDS.values(), desc="shards", unit="file")):
        if not _served(source).exists():
            write_shard(_served(source), generated_records(number))


def make_zenodo_records() -> None:
    """What Zenodo's API says of its files: names, sizes, checksums."""
    records: dict[str, list[dict]] = {}
    for source in WEIGHTS.values():
        parts = urlsplit(source.url)
        if parts.netloc == "zenodo.org":
            *_, record, _, name = parts.path.split("/")
            path = _served(source)
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, "md5").hexdigest()
            entry = {"key": name, "size": path.stat().st_size, "checksum": f"md5:{md5}"}
            records.setdefault(record, []).append(entry)
    for record, files in records.items():
        path = SERVED / "zenodo.org" / "api" / "records" / record
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"files": files}), encoding="utf-8")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        """Nothing: the runner tells what it fetches."""

    def end_headers(self) -> None:
        """The checksums that timm's hub and Google's bucket give, in their manner."""
        path = Path(self.translate_path(self.path))
        if path.is_file() and "huggingface.co" in self.path:
            self.send_header("X-Linked-ETag", f'"{sha256_of(path)}"')
        if path.is_file() and "storage.googleapis.com" in self.path:
            md5 = hashlib.md5(path.read_bytes()).digest()
            self.send_header("x-goog-hash", f"md5={base64.b64encode(md5).decode()}")
        super().end_headers()


def main(arguments: list[str]) -> int:
    """Make, serve, run; returns run_all.py's exit status."""
    make_weights()
    make_shards()
    make_zenodo_records()
    handler = partial(_Quiet, directory=str(SERVED))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, str(ROOT / "run_all.py"), "--profile", "rehearsal", "--download"]
        done = subprocess.run(
            [*command, *arguments], env={**os.environ, MIRROR: mirror}, check=False
        )
        server.shutdown()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--limit", "32", "--batch-size", "8"]))
