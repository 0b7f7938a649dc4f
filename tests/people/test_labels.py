"""Classes of a folder's images, against torchvision's ImageFolder and timm's ImageNetInfo."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo
from torchvision.datasets import ImageFolder

from lib.base.geometry import Preprocessing
from lib.base.tables import UnknownName
from lib.people.image_folders import ImageFolderError, centre_crop
from lib.people.labels import labelled_images


def write(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return folder


def told(found) -> dict:
    return {image.name: image.label for image in found.images}


def test_class_folders_are_numbered_as_torchvision_numbers_them(tmp_path):
    names = ("b/2.png", "Z/1.jpg", "a 1/deep/3.png", "a 1/1.PNG", "b/1.bmp")
    write(tmp_path, *names)
    theirs = ImageFolder(str(tmp_path))
    found = labelled_images(tmp_path)
    expected = {str(path)[len(str(tmp_path)) + 1 :]: label for path, label in theirs.samples}
    assert (found.layout, list(found.names)) == ("folders", theirs.classes)
    assert told(found) == expected
    assert found.classes == 3
    (tmp_path / "c").mkdir()  # a class without images has its number all the same
    assert labelled_images(tmp_path, classes=4).names[-1] == "c"


def test_imagenets_folders_and_lists(tmp_path):
    info = ImageNetInfo()
    folder = write(tmp_path / "val", "n02123045/x.png", "n01440764/y.png")
    found = labelled_images(folder, classes=1000)
    assert found.layout == "imagenet"
    assert told(found) == {"n02123045/x.png": 281, "n01440764/y.png": 0}
    assert info.index_to_label_name(281) == "n02123045"
    # Of a network of other classes, two folders are two classes.
    assert told(labelled_images(folder, classes=2)) == {
        "n01440764/y.png": 0,
        "n02123045/x.png": 1,
    }
    flat = write(tmp_path / "flat", "a b.png", "c.png", "d.png")
    annotations = tmp_path / "val.txt"
    annotations.write_text("c.png 65\na b.png n02123045\n")
    found = labelled_images(flat, annotations=annotations)
    assert (found.layout, told(found)) == ("list", {"c.png": 65, "a b.png": 281})
    assert [image.place for image in found.images] == [0, 1]  # in the list's order
    # A list may also name images alone: the folders tell their classes.
    annotations.write_text("n02123045/x.png\n")
    assert told(labelled_images(folder, annotations=annotations)) == {"n02123045/x.png": 281}


def test_a_csv_and_nothing_at_all(tmp_path):
    write(tmp_path, "p/a.png", "p/b.png", "c.png")
    found = labelled_images(write(tmp_path / "flat", "a.png", "b.png"))
    assert (found.layout, told(found)) == ("none", {"a.png": None, "b.png": None})
    (tmp_path / "labels.csv").write_text("image,label\np/a.png,7\nc.png,0\n")
    found = labelled_images(tmp_path, classes=8)
    assert (found.layout, told(found), found.classes) == ("csv", {"p/a.png": 7, "c.png": 0}, 8)


def test_a_smaller_limits_images_are_among_a_larger_ones_at_their_places(tmp_path):
    write(tmp_path, *(f"{number}.png" for number in range(9)))
    whole = {image.name: image.place for image in labelled_images(tmp_path).images}
    few, more = (labelled_images(tmp_path, limit=n).images for n in (3, 6))
    assert (len(few), len(more)) == (3, 6)
    assert set(few) < set(more)
    assert all(whole[image.name] == image.place for image in more)


@pytest.mark.parametrize(
    ("files", "text", "words", "why"),
    [
        ((), "", {}, "no images"),
        (("a/1.png", "b/1.png"), "", {"classes": 3}, "has 2 classes .a, b., but the model has 3"),
        (("a/1.png", "1.png"), "", {}, "1.png lies beside the class folders"),
        (("a/1.png",), "", {"layout": "imagenet"}, "its folder a is not a synset of ImageNet"),
        (("a/1.png",), "", {"layout": "list"}, "needs a list"),
        (("a/1.png",), "", {"layout": "folder"}, "Did you mean 'folders'"),
        (("a/1.png",), "", {"limit": -1}, "must be 0 or more"),
        (("1.png",), "1.png 5", {"classes": 5}, "1.png: label 5 is outside 0 … 4"),
        (("1.png",), "1.png -1", {}, "label -1 is outside"),
        (("1.png",), "1.png cat", {}, "followed by 'cat', which is not a class"),
        (("1.png",), "1.png n00000000", {}, "followed by 'n00000000'"),
        (("1.png",), "1.png 1\n1.png 1", {}, "line 2: 1.png is listed twice"),
        (("1.png",), "2.png 1", {}, "line 1: 2.png"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(files, text, words, why, tmp_path):
    folder = write(tmp_path / "f", *files)
    folder.mkdir(exist_ok=True)
    annotations = None
    if text:
        annotations = tmp_path / "list.txt"
        annotations.write_text(text)
    with pytest.raises((ImageFolderError, UnknownName), match=why):
        labelled_images(folder, annotations=annotations, **words)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("image,class\na.png,1", "needs the columns image,label"),
        ("image,label\na.png,x\nb.png,1", "line 2: the label 'x' is not a class index"),
        ("image,label\na.png,1\na.png,1", "line 3: repeats a.png of line 2"),
        ("image,label\n../a.png,1", "leads out of the folder"),
        ("image,label\na.png,9", "a.png: label 9 is outside 0 … 4"),
    ],
)
def test_a_wrong_csv_is_refused_by_line(rows, why, tmp_path):
    write(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(ImageFolderError, match=why):
        labelled_images(tmp_path, classes=5)


def test_the_centre_is_cut_out_of_what_a_network_resizes(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), "u1"))
    small.resize((120, 90)).save(tmp_path / "a.png")
    found = centre_crop(tmp_path / "a.png", Preprocessing(36, 32))
    resized = Image.open(tmp_path / "a.png").resize((48, 36), Image.Resampling.BICUBIC)
    assert (found == np.asarray(resized.crop((8, 2, 40, 34)))).all()
