"""The command line for one picture, on odd pictures and odd wishes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib.commands.one_picture import main


def picture(path, size=(300, 200), mode="RGB", **options):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return str(path)


def test_overlay_raw_map_and_classes(tmp_path, capsys):
    out = tmp_path / "map.png"
    status = main([picture(tmp_path / "a.jpg"), "--dcls", "--out", str(out)])
    said = capsys.readouterr().out
    assert status == 0
    with Image.open(out) as shown:
        assert shown.size == (224, 224)
    raw = np.load(tmp_path / "map.npy")
    assert raw.shape == (224, 224)
    assert raw.dtype == np.float32
    assert said.count("%") >= 5
    assert "Threshold-Grad-CAM of convnext_tiny_dcls" in said
    assert "No evidence about DCLS" in said


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "1"])
def test_odd_pictures_are_shown(tmp_path, mode, capsys):
    path = picture(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode)
    assert main([path, "--out", str(tmp_path / "m.png"), "--method", "eigen_cam"]) == 0


def test_a_turned_picture_is_upright(tmp_path, capsys):
    """Overlay and map are those of the same pixels stored upright."""
    stored = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    stored[:, :30] //= 4  # dark at the left, which is shown above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(stored, -1)).save(tmp_path / "upright.png")
    shown, raw = {}, {}
    for name in ("turned", "upright"):
        out = tmp_path / f"{name}_map.png"
        assert main([str(tmp_path / f"{name}.png"), "--out", str(out)]) == 0
        shown[name] = np.asarray(Image.open(out)).astype(int)
        raw[name] = np.load(out.with_suffix(".npy"))
    np.testing.assert_array_equal(shown["turned"], shown["upright"])
    np.testing.assert_array_equal(raw["turned"], raw["upright"])
    above, below = np.split(shown["turned"], 2)
    left, right = np.split(shown["turned"], 2, axis=1)
    assert below.mean() - above.mean() > 20
    assert abs(left.mean() - right.mean()) < 10


def test_strips_are_shown(tmp_path, capsys):
    tiny = picture(tmp_path / "tiny.png", (1, 3))
    wide = picture(tmp_path / "wide.png", (4000, 20))
    for path in (tiny, wide):
        assert main([path, "--out", str(tmp_path / "m.png")]) == 0


def test_wishes_that_cannot_be_met_are_named(tmp_path, capsys):
    good = picture(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no picture")
    for arguments, words in (
        ([str(tmp_path / "none.png")], "there is no file"),
        ([str(tmp_path / "text.png")], "no readable picture"),
        ([good, "--method", "gradcam"], "Did you mean 'grad_cam'"),
        ([good, "--model", "resnet5"], "Did you mean 'resnet50'"),
        ([good, "--target", "99"], "outside 0 … 11"),
        ([good, "--target", "no such class"], "unknown class"),
        ([good, "--weights", "nowhere.pth"], "unknown weights"),
        ([good, "--weights", "paper", "--dcls"], "convnext_dcls_tiny"),
        ([good, "--out", str(tmp_path / "m.gif")], "must end in .png"),
    ):
        assert main(arguments) == 2, arguments
        assert words in capsys.readouterr().err
    assert not (tmp_path / "m.png").exists()
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = capsys.readouterr().out
    assert "score_cam" in help_text
    assert "fastvit_sa36" in help_text


def test_the_picture_itself_is_never_replaced(tmp_path, capsys):
    picture = tmp_path / "in.png"
    Image.fromarray(np.full((50, 50, 3), 99, np.uint8)).save(picture)
    before = picture.read_bytes()
    assert main([str(picture), "--out", str(tmp_path / "." / "in.png")]) == 2
    assert "would replace the picture" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_a_picture_damaged_within_is_refused_by_name(tmp_path, capsys):
    picture = tmp_path / "broken.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(picture)
    data = bytearray(picture.read_bytes())
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[second] ^= 1  # the type of a chunk
    picture.write_bytes(bytes(data))
    assert main([str(picture)]) == 2
    assert "broken.png is no readable picture" in capsys.readouterr().err
