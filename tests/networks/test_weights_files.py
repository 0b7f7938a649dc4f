"""Weights files as they may be: harmless things beside the weights, odd tensors, damage, attacks."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import io
import json
import os
import pathlib
import pickle
import pickletools
import random
import struct
import subprocess
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lib.networks.weights_files import WeightsError, read_weights


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "norm.bias": torch.randn(4, generator=generator).half(),
        "norm.num_batches_tracked": torch.tensor(7),
    }


ZIP_AND_OLD = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])


def store(path, contents, zipped=True):
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found, expected):
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


# --- beside the weights ---------------------------------------------------------------------


class Options(dict):
    """As trainers' packages have them: a dict with attributes."""


class Steps(list):
    pass


class Anything:
    def __init__(self):
        self.inner = {"a": [1, pathlib.PurePosixPath("/x")]}


def options() -> Options:
    made = Options(lr=0.1, out=pathlib.PosixPath("/x"))
    made.frozen = True
    return made


BESIDE = {
    "paths": argparse.Namespace(out=pathlib.PosixPath("/x"), data=pathlib.PureWindowsPath("C:/y")),
    "numpy": argparse.Namespace(best=np.float64(81.2), epoch=np.int64(3), kind=np.dtype("f4"),
                                losses=np.arange(3.0)),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "namespace in a namespace": argparse.Namespace(inner=argparse.Namespace(a=1)),
    "a dict of its own kind": options(),
    "a list of its own kind": Steps([1, 2]),
    "an object": Anything(),
    "several at once": [options(), np.dtype("f4"), datetime.date(2022, 1, 1), Anything(),
                        collections.deque([1]), collections.OrderedDict(a=1)],
    "a function": functools.partial(sorted, key=len),
}  # fmt: skip


@ZIP_AND_OLD
@pytest.mark.parametrize("beside", BESIDE.values(), ids=list(BESIDE))
def test_what_trainers_store_beside_the_weights_is_passed_over(tmp_path, beside, zipped):
    contents = {"model": tensors(), "args": beside, "epoch": 3}
    path = store(tmp_path / "checkpoint.pth", contents, zipped)
    assert same(read_weights(path), tensors())


def test_weights_in_a_dict_with_a_default_are_found(tmp_path):
    path = store(tmp_path / "c.pth", {"model": collections.defaultdict(list, tensors())})
    assert same(read_weights(path), tensors())


ran: list[str] = []


def run_me(word: str) -> None:
    ran.append(word)


class Calls:
    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


@ZIP_AND_OLD
def test_no_function_that_a_file_names_is_called(tmp_path, zipped):
    path = store(tmp_path / "c.pth", {"model": tensors(), "args": Calls(run_me, "x")}, zipped)
    assert same(read_weights(path), tensors())
    assert ran == []


@ZIP_AND_OLD
@pytest.mark.parametrize(
    ("function", "arguments"),
    [(os.system, ("touch ran",)), (eval, ("open('ran', 'w')",)), (exec, ("1",)),
     (subprocess.Popen, (["touch", "ran"],)), (getattr, (1, "real")), (open, ("ran", "w"))],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_what_would_run_code_is_refused_and_does_not(
    tmp_path, monkeypatch, function, arguments, zipped
):
    monkeypatch.chdir(tmp_path)
    path = store(tmp_path / "c.pth", {"model": tensors(), "a": Calls(function, *arguments)}, zipped)
    with pytest.raises(WeightsError, match=rf"c.pth is refused: .*{function.__name__}.*do not use"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_another_pickle_protocol_is_told_with_what_helps(tmp_path):
    torch.save({"model": tensors()}, tmp_path / "c.pth", pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"c.pth is refused: .*another protocol.*torch.save\("):
        read_weights(tmp_path / "c.pth")


# --- odd contents ---------------------------------------------------------------------------


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to give them up
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


ODD = {
    "names that are no texts": ({"model": {1: torch.zeros(2)}}, "names are not strings, such as 1"),
    "a bare tensor": (torch.zeros(2), "a bare tensor; save a network's `state_dict"),
    "a whole network": (nn.Linear(2, 2), "refused|a whole pickled network; save its"),
    "a list": ([torch.zeros(2)], "contains no weights; it contains: list"),
    "nothing": ({}, "it contains: nothing"),
    "sparse": ({"model": {"a": torch.eye(3).to_sparse()}}, "'a' is a float32 tensor .sparse_coo"),
    "meta": ({"model": {"a": torch.empty(3, device="meta")}}, "'a' has no values"),
    "quantized": ({"model": {"a": quantized()}}, "'a' is a quantized"),
    "complex": ({"model": {"a": torch.zeros(3, dtype=torch.complex64)}}, "'a' is a complex64"),
    "a number for gigabytes": (
        {"model": {"a": torch.zeros(1).expand(10**10)}}, "'a' claims to have 10000000000 numbers",
    ),
}  # fmt: skip


@ZIP_AND_OLD
@pytest.mark.parametrize(("contents", "said"), ODD.values(), ids=list(ODD))
def test_odd_contents_are_refused_naming_the_file(tmp_path, contents, said, zipped):
    path = store(tmp_path / "odd.pth", contents, zipped)
    with pytest.raises(WeightsError, match=rf"odd.pth .*({said})"):
        read_weights(path)


def test_a_small_zip_that_unpacks_to_much_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb/data.pkl", bytes(10**8))
    with pytest.raises(WeightsError, match="refused: its 0.1 MB would unpack to 100 MB"):
        read_weights(path)


# --- damage ---------------------------------------------------------------------------------


def test_a_flipped_bit_in_the_weights_is_found_which_torch_does_not(tmp_path):
    path = store(tmp_path / "c.pth", {"model": tensors()})
    content = bytearray(path.read_bytes())
    content[content.find(tensors()["conv.weight"].numpy().tobytes()) + 40] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["conv.weight"].shape == (4, 3, 3, 3)
    with pytest.raises(WeightsError, match="c.pth is damaged: the checksum of .* does not match"):
        read_weights(path)


def test_a_file_stored_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = store(tmp_path / "c.pth", {"model": tensors()})
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_weights(path), tensors())


def test_a_part_marked_as_a_folder_is_refused_which_torch_fills_with_whatever_memory_held(tmp_path):
    path = store(tmp_path / "c.pth", {"model": tensors()})
    content = bytearray(path.read_bytes())
    place = content.find(b"PK\x01\x02", content.rfind(b"data/0") - 60)
    content[place + 38] ^= 0x10  # one bit of the central directory, under no checksum
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged: a part of it is marked as a folder"):
        read_weights(path)


def pickled(path, instructions: bytes):
    """A checkpoint of hand-made instructions."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + instructions + b".")
        file.writestr("a/version", "3\n")
        file.writestr("a/byteorder", "little")
    return path


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


BUSY = {
    "tuples in tuples": b"}(" + b")" + b"\x85" * 100_000 + b"K\x01u",
    "a slow encoding": b"c_codecs\nencode\n" + text("漢" * 100_000) + text("punycode") + b"\x86R",
    "gigabytes of zeros": b"(" + b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R" * 20 + b"t",
    "names without end": b"(" + b"".join(b"cmod%d\nx\n" % i for i in range(10_000)) + b"t",
}


@pytest.mark.parametrize("instructions", BUSY.values(), ids=list(BUSY))
def test_what_would_keep_the_reader_busy_is_refused_unread(tmp_path, instructions):
    with pytest.raises(WeightsError, match="busy.pth is refused: it (is made to keep|names over)"):
        read_weights(pickled(tmp_path / "busy.pth", instructions))


def test_a_length_that_an_old_file_only_claims_takes_no_memory(tmp_path):
    claims = b"\x8d" + (2**62).to_bytes(8, "little")  # a text of so many bytes
    (tmp_path / "busy.pth").write_bytes(b"\x80\x02" + claims + b"a.")
    with pytest.raises(WeightsError, match="busy.pth is not a readable checkpoint"):
        read_weights(tmp_path / "busy.pth")


def test_an_old_file_with_a_zip_after_it_is_looked_through_as_torch_reads_it(tmp_path):
    path = store(tmp_path / "c.pth", {"m": tensors(), "a": Calls(os.system, "touch ran")}, False)
    harmless = store(tmp_path / "z.pth", {"model": tensors()}).read_bytes()
    path.write_bytes(path.read_bytes() + harmless)
    assert zipfile.is_zipfile(path)
    with pytest.raises(WeightsError, match=r"it would run code \(posix.system\)"):
        read_weights(path)


def test_a_function_named_by_a_later_protocol_is_told_before_any_advice(tmp_path):
    torch.save({"a": Calls(os.system, "touch ran")}, tmp_path / "c.pth", pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"it would run code \(posix.system\)") as caught:
        read_weights(tmp_path / "c.pth")
    assert "weights_only=False" not in str(caught.value)


def test_an_old_file_without_its_numbers_is_refused(tmp_path):
    """Otherwise torch takes whatever memory held."""
    path = store(tmp_path / "c.pth", {"model": {"a": torch.ones(1000)}}, False)
    file = io.BytesIO(path.read_bytes())
    for _ in range(4):
        list(pickletools.genops(file))
    path.write_bytes(path.read_bytes()[: file.tell()] + pickle.dumps([], 2))
    with pytest.raises(WeightsError, match="take more bytes than the file has"):
        read_weights(path)


BEGINNINGS = {
    "a web page": b"\n <!DOCTYPE html><p>404</p>", "a gzip archive": b"\x1f\x8b\x08",
    "an array of numpy": b"\x93NUMPY", "an HDF5 file": b"\x89HDF\r\n",
    "a safetensors file": safetensors.torch.save({"a": torch.ones(3)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_what_is_something_else_is_told_as_what_it_is(tmp_path, kind):
    (tmp_path / "c.pth").write_bytes(BEGINNINGS[kind])
    with pytest.raises(
        WeightsError, match=f"c.pth is not a pickled checkpoint: it begins like {kind}"
    ):
        read_weights(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "averaged", [{"model": {"a": torch.ones(1)}}, {"a": torch.ones(1), "n": 1}]
)
def test_averaged_weights_that_cannot_be_read_are_not_passed_over(tmp_path, averaged):
    contents = {"state_dict_ema": averaged, "state_dict": {"a": torch.zeros(1)}}
    path = store(tmp_path / "c.pth", contents)
    with pytest.raises(WeightsError, match="no plain weights under 'state_dict_ema'"):
        read_weights(path)
    assert read_weights(path, "state_dict")["a"] == 0
    path = store(path, {"model_ema": None, "state_dict_ema": {}, "model": tensors()})
    assert same(read_weights(path), tensors())


def test_the_prefix_of_parallel_training_goes_whatever_lies_beside(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in tensors().items()}
    path = store(tmp_path / "c.pth", {"model": state | {"total_ops": torch.zeros(1)}})
    assert same(read_weights(path), tensors() | {"total_ops": torch.zeros(1)})


def test_too_little_memory_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise MemoryError

    path = store(tmp_path / "c.pth", {"model": tensors()})
    monkeypatch.setattr(torch, "load", refused)
    with pytest.raises(MemoryError):
        read_weights(path)


def with_header(path, change):
    """A safetensors file whose header was changed, its length kept."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_half_of_the_halves_read_as_another_half_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2).half(), "b": torch.ones(2).half()}, path)
    with_header(path, lambda header: header["a"].update(dtype="BF16"))
    with pytest.raises(WeightsError, match="mixes float16 and bfloat16"):
        read_weights(path)


def mutated(content: bytes, dice: random.Random) -> bytes:
    """A few bits flipped, bytes inserted, removed or doubled, or the end cut off."""
    made = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 8])):
        place, kind = dice.randrange(max(len(made), 1)), dice.randrange(8)
        if kind < 4 and made:
            made[place] ^= 1 << dice.randrange(8)
        elif kind == 4:
            made[place:place] = dice.randbytes(dice.randrange(1, 9))
        elif kind == 5:
            del made[place : place + dice.randrange(1, 64)]
        elif kind == 6:
            made[place:place] = made[place : place + dice.randrange(1, 64)]
        else:
            del made[place:]
    return bytes(made)


def try_mutations(folder, count):
    """Each is refused as documented, or read; what a zip's checksums cover is what was stored."""
    whole = {"model": tensors(), "args": BESIDE["several at once"]}
    files = [
        store(folder / "zip.pth", whole), store(folder / "old.pth", whole, False),
        folder / "s.safetensors",
    ]  # fmt: skip
    safetensors.torch.save_file(tensors(), files[2])
    originals = {path: path.read_bytes() for path in files}
    dice, outcomes = random.Random(0), collections.Counter()
    for number in range(count):
        path = files[number % 3]
        path.write_bytes(mutated(originals[path], dice))
        try:
            found, said = read_weights(path), ""
        except WeightsError as error:
            found, said = {}, str(error)
        outcomes[path.name, "refused" if said else "read"] += 1
        assert (str(path) in said and said.isprintable()) if said else found
        if path.name == "zip.pth" and not said:
            assert same(found, tensors()), number
        elif not said:  # without checksums numbers may be others; they are numbers of a network's
            assert all(t.layout == torch.strided and not t.is_complex() for t in found.values())
    return outcomes


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_refused_or_right(tmp_path):
    outcomes = try_mutations(tmp_path, 150)
    assert outcomes["zip.pth", "refused"] > 40


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_thousands_of_mutated_files_are_refused_or_right(tmp_path):
    outcomes = try_mutations(tmp_path, 6000)
    assert outcomes["zip.pth", "refused"] > 1000
