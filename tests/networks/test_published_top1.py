"""timm's published accuracies: rows read by hand from its file, unknown names, bad tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import lib.networks.published_top1
from lib.networks.backbones import BACKBONES
from lib.networks.published_top1 import published_top1

TABLE = Path(lib.networks.published_top1.__file__).with_name("timm_top1.csv")


@pytest.mark.parametrize(
    ("name", "size", "percent"),
    [
        ("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k", None, 90.054),  # the first row
        ("resnet50.a1_in1k", None, 81.240),
        ("resnet50.a1_in1k", 288, 81.240),
        ("resnet50.a1_in1k", 224, 80.382),
        ("convnext_tiny.fb_in22k_ft_in1k", None, 78.950),  # less at its own evaluation size
        ("convnext_tiny.fb_in22k_ft_in1k", 224, 82.888),
        ("vgg16.tv_in1k", 224, 71.600),
        ("test_vit.r160_in1k", None, 40.832),  # the last row
        ("resnet50.a1_in1k", 256, None),
        ("resnet50", None, None),
        ("no_such_network.in1k", None, None),
    ],
)
def test_accuracies_are_those_of_timms_file(name, size, percent):
    assert published_top1(name, size) == percent


def test_the_table_is_whole_and_in_the_order_of_its_source():
    with TABLE.open(newline="") as file:
        names, *rows = csv.reader(file)
    assert names == ["name", "image_size", "top1", "top5"]
    assert len(rows) == len({(name, size) for name, size, *_ in rows}) == 1445
    accuracies = [(float(top1), float(top5)) for *_, top1, top5 in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(0 < top1 < top5 < 100 for top1, top5 in accuracies)


def test_it_agrees_with_the_accuracies_that_the_backbones_state_of_timms_resnets():
    for key in ("resnet50", "resnet50_a3"):
        row = BACKBONES[key]
        found = published_top1(row.timm_tag, row.preprocessing.crop)
        assert found == pytest.approx(row.top1[False], abs=0.005)


def test_a_newer_table_of_a_reader_is_read_in_timms_columns_or_in_ours(tmp_path):
    timms, own = tmp_path / "results-imagenet.csv", tmp_path / "own.csv"
    timms.write_text('model,img_size,top1,param_count\nnew.in1k,224,81.5,"1,014.45"\n')
    own.write_text("top1,name,image_size\n60,new.in1k,128\n64.25,new.in1k,160\n")
    assert published_top1("new.in1k", table=timms) == 81.5
    assert published_top1("new.in1k", table=own) == 64.25
    assert published_top1("resnet50.a1_in1k", table=own) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,top1\na,50\n", "needs the columns name,image_size,top1; has name,top1"),
        ("", "has nothing"),
        ("name,image_size,top1\n", "lists no models"),
        ("name,image_size,top1\na,224,50\nb,224\n", "table.csv:3: .*correct the line"),
        ("name,image_size,top1\na,224,100.5\n", "table.csv:2: 'a,224,100.5' is not"),
        ("name,image_size,top1\na,224,nan\n", "table.csv:2: 'a,224,nan' is not"),
        ("name,image_size,top1\na,0,50\n", "table.csv:2: 'a,0,50' is not"),
        ("name,image_size,top1\na,224,50\na,224,51\n", "table.csv:3: a at 224 pixels appears twice"),
        (b"name,image_size,top1\n\xff,224,50\n", "not a CSV file in UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_by_its_line(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said):
        published_top1("a", table=path)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table of accuracies at .*none.csv"):
        published_top1("a", table=tmp_path / "none.csv")
