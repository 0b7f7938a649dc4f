"""Training by several processes: the same losses as one, resumed by any number, ended together."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_ins import InHalves
from torch import nn

from lib.maps.learned.processes import Processes, ProcessLost, check_devices, joined
from lib.maps.learned.training import EPOCHS, Recipe, train_attention
from lib.people.image_folders import ArrayImages

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (50, SIDE, SIDE, 3), "u1")
RECIPE = Recipe("toy", lr=0.1, epochs=2, batch=15)  # 15 is odd: two processes take 8 and 7
CPU = torch.device("cpu")


class Toy(InHalves, nn.Module):
    """A convolution and a linear head, with random weights."""

    variant = "toy"

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

    def normalised(self, images):
        return 4 * images - 2

    def features(self, x):
        return nn.functional.max_pool2d(self.conv(x).relu(), 2)

    def layers(self, x):
        return [x, self.conv(x), self.features(x)]

    def head(self, features):
        return 5 * self.fc(features.mean(dim=(2, 3)))

    def forward(self, x):
        return self.head(self.features(x))


def together(size, work):
    """Call `work(processes)` in `size` forked processes; their exit codes."""

    def one(rank, port):
        torch.set_num_threads(1)
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        with joined(CPU) as processes:
            work(processes)

    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=one, args=(rank, store.port)) for rank in range(size)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def train(key, processes, path=None, **options):
    options = {"held_out": ArrayImages(PIXELS[:7], "held out")} | options
    return train_attention(
        Toy(), key, ArrayImages(PIXELS, "p"), options.pop("recipe", RECIPE), SIDE,
        processes=processes, checkpoint=path, report=lambda line: None, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "options"),
    [("lcam_img", {"masking": "random"}), ("tame", {}),
     ("lcam_fm", {"recipe": replace(RECIPE, standardised=True, one_cycle=True, start=1.0)})],
)  # fmt: skip
def test_two_processes_give_the_losses_of_one(tmp_path, key, options):
    def work(processes):
        trained = train(key, processes, **options)
        state = trained.attention.state_dict()
        torch.save((trained.history, trained.epochs, state), tmp_path / str(processes.rank))

    assert together(2, work) == [0, 0]
    one = train(key, Processes(), **options)
    for rank in "01":
        history, epochs, state = torch.load(tmp_path / rank, weights_only=False)
        assert np.allclose(history, one.history, rtol=2e-5, atol=1e-7)
        same = [name for name in EPOCHS if name not in ("processes", "images_per_second")]
        assert np.allclose(epochs[same], one.epochs[same], rtol=2e-5, atol=1e-7)
        assert epochs.processes.tolist() == [2, 2]
        assert state.keys() == one.attention.state_dict().keys()
        for name, tensor in one.attention.state_dict().items():
            assert torch.allclose(tensor.float(), state[name].float(), atol=1e-5), name


def test_a_process_whose_peer_has_ended_says_so():
    def work(processes):
        values = torch.ones(2)
        if processes.rank == 1:
            os._exit(3)
        with pytest.raises(ProcessLost, match="another process of this training has ended"):
            for _ in range(2):
                processes.add([values])
        os._exit(4)  # the group cannot be left without its peer

    assert together(2, work) == [4, 3]


def test_a_batch_needs_an_image_for_every_process():
    with pytest.raises(ValueError, match="a batch of 15 images cannot be split among 16 processes"):
        train("lcam_fm", Processes(0, 16))


def test_devices_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="several processes cannot train on mps"):
        check_devices(torch.device("mps"), 2)
    with pytest.raises(ValueError, match="--device cuda:1 names one GPU"):
        check_devices(torch.device("cuda:1"), 2)
    most = torch.cuda.device_count()
    with pytest.raises(ValueError, match=f"need {most + 1} GPUs, and torch sees {most}"):
        check_devices(torch.device("cuda"), most + 1)
    check_devices(CPU, 64)
