"""The command line for single images, on odd images and odd wishes."""

from __future__ import annotations

import re
import shlex
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from lib.commands import lcam
from lib.commands.asked_models import AskedModel
from lib.commands.class_words import class_meant, class_names, read_class_names
from lib.commands.one_image import MOST_MAPS, main
from lib.networks.backbones import DclsRecipe
from lib.networks.dcls import convert_to_dcls
from lib.networks.loading import load_model
from lib.people.photographs import load_square


def image(path, size=(300, 200), mode="RGB", **options):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return str(path)


def test_overlay_raw_map_and_classes(tmp_path, capsys):
    out = tmp_path / "map.png"
    status = main([image(tmp_path / "a.jpg"), "--dcls", "--out", str(out)])
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


def literal_grad_cam(key, dcls, pixels):
    """Grad-CAM of the predicted class where the network looks, its number and probability, by a
    backward through the whole network and the formula."""
    model = load_model(key, dcls, "demo")
    window = model.backbone.preprocessing.window(224)
    features = model.network.forward_features(model.prepare(pixels[None]))
    logits = model.network.forward_head(features)[0]
    (gradient,) = torch.autograd.grad(logits.max(), features)
    small = (gradient.mean((2, 3), keepdim=True) * features).mean(1).relu()
    size = window.stop - window.start
    large = F.interpolate(small[None], (size, size), mode="bilinear")[0, 0]
    share, number = logits.detach().softmax(0).max(0)
    return window, large.detach().numpy(), int(number), float(share)


def test_a_grid_holds_each_images_maps_by_each_model_and_method(tmp_path, capsys):
    first, second = image(tmp_path / "a.png"), image(tmp_path / "b.jpg", (90, 120), quality=40)
    out = tmp_path / "grid.png"
    # An image behind an option that takes several names is an image all the same.
    status = main([first, "--out", str(out), "--model", "resnet50", "convnext_tiny_dcls",
                   "--method", "layer_cam", "grad_cam", second])  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0
    made = np.load(out.with_suffix(".npz"))
    assert made["images"].tolist() == [first, second]
    assert made["models"].tolist() == ["resnet50", "convnext_tiny_dcls"]
    assert made["methods"].tolist() == ["layer_cam", "grad_cam"]
    assert made["maps"].shape == (2, 2, 2, 224, 224)
    assert made["maps"].dtype == np.float32
    names = class_names(12, demo=True)
    for p, path in enumerate((first, second)):
        for m, variant in enumerate((("resnet50", False), ("convnext_tiny", True))):
            window, expected, number, share = literal_grad_cam(*variant, load_square(path))
            found = made["maps"][p, m, 1].copy()
            error = np.abs(found[window, window] - expected).max()
            assert error <= 1e-4 * max(expected.max(), 1e-6)
            found[window, window] = np.nan
            assert np.isnan(found).all()
            assert made["classes"][p, m] == number
            assert made["class_names"][p, m] == names[number]
            assert made["probabilities"][p, m] == pytest.approx(share, rel=1e-4)
            assert f"{path}: {names[number]!r} ({number}), {100 * share:.1f} %" in said
    assert said.count("No evidence about DCLS") == 1
    with Image.open(out) as shown:
        assert shown.size[0] > 2 * 224


def test_a_call_makes_its_output_and_nothing_else(tmp_path, monkeypatch, capsys, tables):
    image(tmp_path / "a.png")
    (tmp_path / "beside.py").write_text("X = 1")
    (tmp_path / "rows.py").write_text(
        "import beside\nfrom lib.extension import add_method\n"
        "add_method('mine', lambda features, gradient: features.sum(1))"
    )
    before = {p.name for p in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    assert main(["a.png", "--extend", "rows.py", "--method", "mine"]) == 0
    assert main(["a.png", "--method", "grad_cam,layer_cam", "--both"]) == 0
    assert {p.name for p in tmp_path.iterdir()} - before == {
        "a_convnext_tiny_mine.png", "a_convnext_tiny_mine.npy",
        "a_2_models_2_methods.png", "a_2_models_2_methods.npz",
    }  # fmt: skip


def test_images_that_cannot_be_read_are_all_named_before_a_model_is_loaded(
    tmp_path, monkeypatch, capsys
):
    good = image(tmp_path / "a.png")
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_text("no image")
    monkeypatch.setattr(AskedModel, "load", lambda *_: pytest.fail("loaded"))
    assert main([good, str(tmp_path / "b.png"), str(tmp_path / "c.png")]) == 2
    said = capsys.readouterr().err
    assert "b.png is not a readable image" in said
    assert "c.png is not a readable image" in said
    many = [good] + [image(tmp_path / f"{n}.png", (8, 8)) for n in range(MOST_MAPS // 8)]
    assert main([*many, "--model", "resnet50", "convnext_tiny", "--both", "--method", "grad_cam",
                 "layer_cam"]) == 2  # fmt: skip
    assert (
        f"61 images, 4 models and 2 methods give 488 heatmaps, but one call makes at most {MOST_MAPS}"
        in (capsys.readouterr().err)
    )


def test_maps_that_are_constant_or_not_finite_are_told(tmp_path, capsys, tables):
    good, out = image(tmp_path / "a.png"), tmp_path / "m.png"
    (tmp_path / "rows.py").write_text(
        textwrap.dedent("""
        from lib.extension import add_method
        add_method("flat", lambda features, gradient: 0 * features.sum(1))
        add_method("half", lambda features, gradient:
                   features.sum(1) / (features.sum(1) > features.sum(1).mean()))
        add_method("none", lambda features, gradient: features.sum(1) / 0 * 0)
    """)
    )
    options = [good, "--extend", str(tmp_path / "rows.py"), "--out", str(out), "--method"]
    assert main([*options, "flat", "half", "none", "grad_cam"]) == 0
    said = capsys.readouterr().out
    assert "flat is constant" in said
    assert re.search(r"half is not finite in \d\d\.\d %", said)
    assert "none is not finite in 100.0 %" in said
    assert "Grad-CAM is" not in said
    for name in ("flat", "none"):
        assert main([*options, name]) == 0
    said = capsys.readouterr().out
    assert "the heatmap is constant" in said
    assert "the heatmap is not finite" in said


class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()
        )
        self.classes = nn.Linear(8, classes)

    def forward(self, x):
        return self.classes(self.body(x).mean((2, 3)))


RECIPE = DclsRecipe(3, 5, "v1", lambda conv: conv.groups > 1)


@pytest.fixture
def own(tmp_path, tables, monkeypatch):
    """Networks of one's own, of 5, 7, 12 and 1000 classes, called by these numbers."""
    for count in (5, 7, 12, 1000):
        torch.save({"model": Small(count).state_dict()}, tmp_path / f"w{count}.pth")
    torch.save(convert_to_dcls(Small(5), RECIPE).state_dict(), tmp_path / "w5_dcls.pth")
    monkeypatch.setattr("sys.own_for_tests", (Small, RECIPE), raising=False)
    path = tmp_path / "rows.py"
    path.write_text(
        textwrap.dedent("""
        import sys
        from lib.backbones import Preprocessing
        from lib.extension import add_model
        Small, recipe = sys.own_for_tests
        side = Preprocessing(72, 64)
        add_model("n5", build=Small, weights="w5.pth", weights_dcls="w5_dcls.pth", dcls=recipe,
                  preprocessing=side)
        add_model("n7", build=lambda classes: Small(7), weights="w7.pth", preprocessing=side)
        add_model("n12", build=Small, weights="w12.pth", preprocessing=side)
        add_model("n1000", build=Small, weights="w1000.pth", preprocessing=side)
        add_model("gone", build=Small, weights="gone.pth", preprocessing=side)
        add_model("tagged", timm="resnet10t.c3_in1k", preprocessing=side)
    """)
    )
    return [image(tmp_path / "a.png", (64, 64)), "--extend", str(path),
            "--out", str(tmp_path / "m.png")]  # fmt: skip


def predicted(tmp_path, file, count):
    """The class of the image, by the network itself."""
    network = Small(count)
    network.load_state_dict(torch.load(tmp_path / file, weights_only=True)["model"])
    with Image.open(tmp_path / "a.png") as stored:
        large = stored.resize((224, 224), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.asarray(large.resize((72, 72), Image.Resampling.BICUBIC)) / 255.0)
    x = (x.float() - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        return int(network(x[4:68, 4:68].permute(2, 0, 1)[None]).argmax())


def test_own_models_take_their_own_files_of_any_number_of_classes(own, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\nelk\n")
    for model, count, more, called in (
        ("n5", 5, [], lambda n: f"class {n}"),
        ("n5", 5, ["--class-names", str(names)], lambda n: names.read_text().split()[n]),
        ("n7", 7, [], lambda n: f"class {n}"),
        ("n12", 12, [], lambda n: f"class {n}"),
        ("n12", 12, ["--weights", "demo"], lambda n: class_names(12, demo=True)[n]),
        ("n12", 5, ["--weights", str(tmp_path / "w5.pth")], lambda n: f"class {n}"),
        ("n1000", 1000, [], lambda n: class_names(1000, demo=False)[n]),
    ):
        assert main([*own, "--model", model, *more]) == 0
        said = capsys.readouterr().out.splitlines()
        found = called(predicted(tmp_path, f"w{count}.pth", count))
        assert re.search(rf" for '?{re.escape(found)}'?( \(\d+\))?, ", said[0]), (model, said[0])
        assert len([line for line in said if " %  " in line]) == 5
        assert "No evidence" not in "".join(said)
    assert main([*own, "--model", "n5", "n12", "--both"]) == 2
    assert "n12 has no DCLS form: add_model was given no recipe" in capsys.readouterr().err
    assert main([*own, "--model", "n5", "--both"]) == 0
    made = np.load(tmp_path / "m.npz")
    assert made["models"].tolist() == ["n5", "n5_dcls"]
    assert np.nanmax(np.abs(np.diff(made["maps"][0, :, 0], axis=0))) > 0


def test_what_an_own_model_lacks_is_said_with_what_to_do(own, tmp_path, no_real_data, capsys):
    rows, names = own[2], tmp_path / "names.txt"
    names.write_text("ant\n\nbee")
    for more, words in (
        (["--model", "gone"], f"gone.pth does not exist, but {rows} names it for gone: put the file there"),
        (["--model", "tagged"],
         "resnet10t.c3_in1k.safetensors does not exist: fetch it, with the images for scoring, by "
         f"`python run_all.py --download-only --models tagged --extend {rows}`"),
        (["--model", "tagged", "--data-dir", str(tmp_path)], f"--data-dir {tmp_path}`"),
        (["--model", "n12", "--weights", "timm"], "a function builds it"),
        (["--model", "n5", "--weights", str(tmp_path / "w5_dcls.pth")], "does not fit the model"),
        (["--model", "n5", "--class-names", str(names)], "names.txt, line 2 is empty"),
        (["--model", "n5", "--class-names", str(tmp_path / "none")], "cannot be read"),
        (["--model", "n5", "--class-names", own[0]], "not UTF-8"),
        (["--model", "n5", "--method", "tame"], "with ImageNet's 1000"),
        (["--model", "n5", "--target", "5"], "--target of n5: class 5 is outside 0 … 4"),
        (["--model", "n5", "--target", "ant"], "There are 5, from class 0 to class 4"),
    ):  # fmt: skip
        assert main([*own, *more]) == 2, more
        assert words in capsys.readouterr().err
    names.write_text("\ufeffant\nbee\n", encoding="utf-8")
    assert read_class_names(names) == ["ant", "bee"]
    assert main([*own, "--model", "n5", "--class-names", str(names)]) == 2
    assert "names 2 classes, but n5 has 5" in capsys.readouterr().err


def test_an_untrained_method_is_said_with_the_command_that_trains_it(
    own, tmp_path, no_real_data, capsys
):
    for key, command, more in (
        ("n12", "python -m lib.demo.attention", ["--extend", own[2]]),
        ("resnet50", "python -m lib.demo.attention", []),
        ("n1000", "dcls-lcam", ["--extend", own[2]]),
    ):
        assert main([*own, "--model", key, "--method", "tame"]) == 2
        said = capsys.readouterr().err
        typed = re.search(rf"Train with `{re.escape(command)} (.*?)`", said)[1]
        options = lcam.build_parser().parse_args(shlex.split(typed))
        assert (options.models, options.methods) == ([key], ["tame"])
        assert options.extend == "".join(more[1:])
        assert (options.images is not None) == (command == "dcls-lcam")


def test_a_class_is_meant_by_its_number_its_name_or_a_part_of_it():
    names = class_names(1000, demo=False)
    for text, number in (
        ("281", 281), ("tabby", 281), ("Tabby cat", 281), ("tabby, tabby cat", 281),
        ("tiger", 292), ("tiger cat", 282), ("studio", 831), ("hammerh", 4),
    ):  # fmt: skip
        assert class_meant(text, names) == number
    for text, words in (
        ("crane", ["2 classes", "'crane' (134)", "'crane' (517)", "by its number"]),
        ("retriever", ["'golden retriever' (207)"]),
        ("terrier", ["'Border terrier' (182)", "more. Choose one"]),
        ("tabbi", ["unknown class 'tabbi'. Did you mean", "'tabby, tabby cat' (281)"]),
        ("1000", ["outside 0 … 999"]),
        ("-1", ["outside 0 … 999"]),
        ("qqqqqqqq", ["unknown class", "There are 1000"]),
    ):
        with pytest.raises(ValueError, match="class") as error:
            class_meant(text, names)
        for word in words:
            assert word in str(error.value)
        assert str(error.value).count("(") <= 9


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "1"])
def test_odd_images_are_shown(tmp_path, mode, capsys):
    path = image(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode)
    assert main([path, "--out", str(tmp_path / "m.png"), "--method", "eigen_cam"]) == 0


def test_a_turned_image_is_upright(tmp_path, capsys):
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
    tiny = image(tmp_path / "tiny.png", (1, 3))
    wide = image(tmp_path / "wide.png", (4000, 20))
    for path in (tiny, wide):
        assert main([path, "--out", str(tmp_path / "m.png")]) == 0


def test_wishes_that_cannot_be_met_are_named(tmp_path, capsys):
    good = image(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no image")
    for arguments, words in (
        ([str(tmp_path / "none.png")], "does not exist"),
        ([str(tmp_path / "text.png")], "not a readable image"),
        ([good, "--method", "gradcam"], "Did you mean 'grad_cam'"),
        ([good, "--model", "resnet5"], "Did you mean 'resnet50'"),
        ([good, "--target", "99"], "outside 0 … 11"),
        ([good, "--target", "no such class"], "unknown class"),
        ([good, "--weights", "nowhere.pth"], "unknown weights"),
        ([good, "--weights", "paper", "--dcls"], "convnext_dcls_tiny"),
        ([good, "--out", str(tmp_path / "m.gif")], "must end in .png"),
        ([], "no image is given"),
        ([str(tmp_path)], "is a folder"),
        ([good, "--out", str(tmp_path / "new" / "m.png")], "does not exist; create it first"),
        ([good, "--model", "vgg16", "--dcls"], "vgg16 has no DCLS form"),
        ([good, "--model", "resnet50", "vgg16_dcls"], "vgg16 has no DCLS form"),
        ([good, "--model", "resnet50", "vgg16", "--both"], "vgg16 has no DCLS form"),
        ([good, "--model", "resnet50", "convnext_tiny", "--weights", good], "file of one model"),
        ([good, "--method", "lcam_img", "--weights", "random"], "lcam_img is trained"),
    ):
        assert main(arguments) == 2, arguments
        assert words in capsys.readouterr().err
    assert not (tmp_path / "m.png").exists()
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = capsys.readouterr().out
    assert "score_cam" in help_text
    assert "fastvit_sa36" in help_text
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_the_image_itself_is_never_replaced(tmp_path, capsys):
    image = tmp_path / "in.png"
    Image.fromarray(np.full((50, 50, 3), 99, np.uint8)).save(image)
    before = image.read_bytes()
    assert main([str(image), "--out", str(tmp_path / "." / "in.png")]) == 2
    assert "would replace the image" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_a_image_damaged_within_is_refused_by_name(tmp_path, capsys):
    image = tmp_path / "broken.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(image)
    data = bytearray(image.read_bytes())
    second = data.index(b"IDAT", data.index(b"IDAT") + 4)
    data[second] ^= 1  # the type of a chunk
    image.write_bytes(bytes(data))
    assert main([str(image)]) == 2
    assert "broken.png is not a readable image" in capsys.readouterr().err
