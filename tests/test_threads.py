"""What threads do together is what one does: the other tests may run with one thread only."""

from __future__ import annotations

import threading

import pytest
import torch
from stand_ins import mini

from lib.base.threads import each
from lib.people.clickme import ClickMe
from lib.scores.spearman import spearman_per_image


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_work_is_handed_out_where_there_are_threads_and_comes_back_in_order(set_threads):
    def work(number):
        return number, threading.current_thread().name.split("_")[0]

    set_threads(1)
    assert each(work, range(20)) == [(i, "MainThread") for i in range(20)]
    set_threads(2)
    assert each(work, range(20)) == [(i, "each") for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        each(lambda number: 1 // number, range(3))


def test_images_maps_and_correlations_are_the_same_by_two_threads(shard, set_threads):
    model = mini("resnet50").for_inference()
    found = []
    for count in (1, 2):
        set_threads(count)
        batch = next(ClickMe([shard]).batches(12))
        x = model.prepare(batch.images)
        rho = spearman_per_image(x.mean(1), batch.human_maps)
        found.append((torch.from_numpy(batch.images), batch.human_maps, x, rho))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
