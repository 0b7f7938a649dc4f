"""Photographs that packages ship, and a user's own folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import mini

from lib.figures.heatmaps import plot_heatmap_rows
from lib.maps.placed import heatmaps
from lib.people.image_folders import FolderImages
from lib.people.images import read_image
from lib.people.photographs import folder_photographs, load_square, photographs, shipped_photographs
from lib.people.stored.folders import read_grey
from lib.study.exhibits import exhibit
from lib.study.study import Study


def test_ten_photographs_are_shipped_each_with_an_attribution(tmp_path):
    found = shipped_photographs()
    assert len(found) == len({p.name for p in found}) == 10
    for photograph in found:
        assert photograph.pixels.shape == (224, 224, 3)
        assert photograph.pixels.dtype == np.uint8
        assert photograph.pixels.std() > 10
        assert photograph.attribution
    assert [p.name for p in photographs(tmp_path / "absent")] == [p.name for p in found]


def test_a_users_folder_takes_their_place(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "b.jpg")
    Image.new("L", (64, 64), 128).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "attributions.csv").write_text("file,attribution\nb.jpg,me\n")
    found = photographs(tmp_path)
    assert [(p.name, p.attribution) for p in found] == [
        ("a", "no attribution given"), ("b", "me")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("attributions", "message"),
    [("name,text\n", "needs the columns file,attribution"),
     ("file,attribution\nz.jpg,me\n", "do not exist: z.jpg")],
)  # fmt: skip
def test_a_wrong_attribution_list_is_refused(tmp_path, attributions, message):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "attributions.csv").write_text(attributions)
    with pytest.raises(ValueError, match=message):
        folder_photographs(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(ValueError, match=r"broken.jpg is not a readable image"):
        folder_photographs(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="contains no images"):
        photographs(tmp_path)


def test_images_are_upright_in_colour_and_on_white(tmp_path):
    tall = Image.new("RGB", (40, 80), "blue")
    tall.paste("red", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    tall.save(tmp_path / "turned.png", exif=exif)
    pixels = load_square(tmp_path / "turned.png")
    assert pixels[200, 112].tolist() == [255, 0, 0]

    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_square(tmp_path / "clear.png").min() == 255
    Image.new("L", (50, 90), 7).save(tmp_path / "grey.png")
    assert load_square(tmp_path / "grey.png").tolist()[0][0] == [7, 7, 7]


def test_the_paper_profile_shows_photographs_for_the_predicted_class():
    shown = exhibit(Study.from_profile("paper"))
    assert shown.images.shape == (10, 224, 224, 3)
    assert shown.targets is None
    assert "CC BY 2.0" in shown.credits
    model = mini("resnet50").for_inference()
    study = Study.from_profile("paper")
    maps = heatmaps(model, shown.images, shown.targets, study.choices.methods)
    assert list(maps) == ["Grad-CAM", "Threshold-Grad-CAM"]
    plot_heatmap_rows(shown.images, maps, shown.titles)


@pytest.mark.parametrize(
    ("key", "first", "end"),
    # 32 of 256 cropped; 11 of 235, whose half rounds to 6 as in torchvision; none
    [("convnext_tiny", 14, 210), ("resnet50", 6, 219), ("caformer_s18", 0, 224)],
)
def test_drawn_maps_lie_where_the_network_looked(key, first, end, images):
    study = Study.from_profile("demo")
    (maps, *_) = heatmaps(mini(key).for_inference(), images, None, study.choices.methods).values()
    assert np.isfinite(maps[:, first:end, first:end]).all()
    assert np.isfinite(maps).sum() == 4 * (end - first) ** 2


def test_the_demo_shows_its_own_held_out_images():
    shown = exhibit(Study.from_profile("demo"))
    assert len(shown.images) == len(shown.titles) == 10
    assert shown.credits == ""
    assert isinstance(shown.targets, torch.Tensor)


def test_postscript_is_no_image_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started"))
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for read in (read_image, read_grey, lambda p: FolderImages([p], 4).centre(0)):
        with pytest.raises(ValueError, match="a.png is not a readable"):
            read(path)


def test_a_large_jpeg_is_decoded_no_smaller_than_is_asked_for(tmp_path):
    Image.new("RGB", (1000, 1200)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").size == (1000, 1200)
    for least, size in ((500, (500, 600)), (501, (1000, 1200)), (256, (500, 600))):
        assert read_image(tmp_path / "a.jpg", at_least=(least, least)).size == size
