"""Maps of networks in memory against pytorch-grad-cam's own, layers found, targets of any kind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
from pytorch_grad_cam.utils import model_targets
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from timm.models.mlp_mixer import MlpMixer
from torch import nn

from lib.maps import targets as our_targets
from lib.maps.combined import smoothed
from lib.maps.feature_concepts import factorised
from lib.maps.forward import head_pass
from lib.maps.live import LiveModel, live_maps
from lib.maps.methods import METHODS
from lib.networks.layers import found_layer

CLASSES = [1, 3]
CLASS_TARGETS = [ClassifierOutputTarget(number) for number in CLASSES]


class Net(nn.Module):
    """Three convolutions; something goes around the last one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.b = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.c = nn.Conv2d(12, 12, 3, padding=1)
        self.end = nn.Linear(12, 5)
        with torch.no_grad():
            self.end.weight *= 30
            self.end.bias += 50

    def forward(self, x):
        x = self.b(self.a(x).relu()).relu()
        return self.end((x + self.c(x).relu()).mean((2, 3)))


class Segmenting(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.end = nn.Conv2d(3, 8, 3, padding=1, stride=4), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        scores = self.end(self.body(x).tanh())
        return {"out": nn.functional.interpolate(scores, x.shape[-2:])}


class Only(nn.Module):
    """One entry of a network's answer, as users of pytorch-grad-cam wrap it."""

    def __init__(self, network, part):
        super().__init__()
        self.network, self.part = network, part

    def forward(self, x):
        return self.part(self.network(x))


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, embed_dim=48, num_classes=5
    ).eval()


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(0)
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=16, depths=(1, 1),
        num_heads=(2, 2), num_classes=5,
    ).eval()  # fmt: skip


def unit(maps) -> np.ndarray:
    maps = np.asarray(maps, dtype=np.float64)
    maps = maps - maps.min((1, 2), keepdims=True)
    most = maps.max((1, 2), keepdims=True)
    return maps / np.where(most > 0, most, 1)


def theirs(name, network, layers, x, targets, reshape=None, **call) -> np.ndarray:
    cam = getattr(pytorch_grad_cam, name)(network, [network.get_submodule(n) for n in layers],
                                          reshape)  # fmt: skip
    try:
        return unit(cam(x.clone().requires_grad_(), list(targets), **call))
    finally:
        if hasattr(cam, "activations_and_grads"):
            cam.activations_and_grads.activations = cam.activations_and_grads.gradients = []
            cam.activations_and_grads.release()


ONE_PASS = {
    "grad_cam": "GradCAM", "grad_cam_plus_plus": "GradCAMPlusPlus", "x_grad_cam": "XGradCAM",
    "layer_cam": "LayerCAM", "hires_cam": "HiResCAM", "element_wise": "GradCAMElementWise",
    "seg_eigen_cam": "SegEigenCAM", "fem": "FEM",
}  # fmt: skip


def after_the_class_token(tokens):
    return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)


def channels_first(maps):
    return maps.permute(0, 3, 1, 2)


@pytest.mark.parametrize("ours", ONE_PASS)
def test_a_layer_that_something_goes_around(ours, x):
    network = Net().eval()
    found = live_maps(network, x, ours, layer="c", targets=CLASSES)
    expected = theirs(ONE_PASS[ours], network, ["c"], x, CLASS_TARGETS)
    assert found.shape == (2, 64, 48)
    np.testing.assert_allclose(unit(found), expected, atol=1e-5)


@pytest.mark.parametrize("ours", ["grad_cam", "layer_cam", "fem", "score_cam"])
@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_transformers_without_being_told_how_their_tokens_lie(ours, kind, request, x):
    network = request.getfixturevalue(kind)
    layer, reshape = {
        "vit": ("blocks.2.norm1", after_the_class_token),
        "swin": ("layers.1.blocks.0.norm1", channels_first),
    }[kind]
    x = torch.cat([x, x], dim=3)[..., :64]
    found = live_maps(network, x, ours, layer=layer, targets=CLASSES)
    assert torch.equal(
        found, live_maps(network, x, ours, layer=layer, targets=CLASSES, reshape=reshape)
    )
    name = {**ONE_PASS, "score_cam": "ScoreCAM"}[ours]
    expected = theirs(name, network, [layer], x, CLASS_TARGETS, reshape)
    np.testing.assert_allclose(unit(found), expected, atol=1e-4)


def test_ablation_puts_tokens_back_where_they_were(vit, x):
    """Against a loop that sets one channel of the image's tokens to 0 by a hook of its own."""
    x = torch.cat([x, x], dim=3)[:1, :, :, :64]
    found = live_maps(vit, x, "ablation_cam", layer="blocks.2.norm1", targets=[3], size=4)[0]
    layer, gone, seen = vit.blocks[2].norm1, [], []

    def change(_module, _given, output):
        seen.append(output.detach().clone())
        for channel in gone:
            output = output.clone()
            output[:, 1:, channel] = 0
        return output

    handle = layer.register_forward_hook(change)
    with torch.no_grad():
        whole = vit(x)[0, 3]
        weights = []
        for channel in range(48):
            gone[:] = [channel]
            weights.append((whole - vit(x)[0, 3]) / whole.abs())
    handle.remove()
    features = after_the_class_token(seen[0])[0]
    expected = (torch.stack(weights)[:, None, None] * features).sum(0).relu()
    np.testing.assert_allclose(found, unit(expected[None])[0], atol=1e-4)


@pytest.mark.parametrize("ours", ["grad_cam", "layer_cam", "hires_cam", "x_grad_cam"])
def test_smoothing(ours, x, monkeypatch):
    network = Net().eval()
    name = ONE_PASS[ours]
    found = live_maps(network, x, ours, layer="c", targets=CLASSES, aug_smooth=True)
    cam = getattr(pytorch_grad_cam, name)(network, [network.c])
    expected = cam(x.clone(), CLASS_TARGETS, aug_smooth=True)  # a mean, which is not scaled again
    np.testing.assert_allclose(found, expected, atol=1e-5)
    row = smoothed(ours, aug=True)
    model = LiveModel(network, "c")
    as_row = row.maps(model, x, head_pass(model, x, torch.tensor(CLASSES)))
    np.testing.assert_allclose(as_row, expected, atol=1e-5)
    # The package leaves the component's sign to chance; with the sign rule that it has elsewhere:
    for module in ("base_cam", "layer_cam", "hirescam"):
        monkeypatch.setattr(
            f"pytorch_grad_cam.{module}.get_2d_projection", get_2d_projection_with_sign_correction
        )
    found = live_maps(network, x, ours, layer="c", targets=CLASSES, eigen_smooth=True)
    expected = theirs(name, network, ["c"], x, CLASS_TARGETS, eigen_smooth=True)
    np.testing.assert_allclose(unit(found), expected, atol=1e-4)


def test_shapley_cam_of_a_transformer(vit, x):
    """pytorch-grad-cam's cannot: the fast attention has no second derivative. By differences: what
    the gradient changes by, once the layer's output is a little larger."""
    x = torch.cat([x, x], dim=3)[:1, :, :, :64].double()
    vit = copy.deepcopy(vit).double()
    found = live_maps(vit, x, "shapley_cam", layer="blocks.2.norm1", targets=[3], size=4)[0]

    def gradient(larger: float) -> tuple[torch.Tensor, torch.Tensor]:
        seen = []

        def change(_module, _given, output):
            seen.append((output.detach() * (1 + larger)).requires_grad_())
            return seen[0]

        handle = vit.blocks[2].norm1.register_forward_hook(change)
        try:
            return torch.autograd.grad(vit(x)[0, 3], seen[0])[0], seen[0].detach()
        finally:
            handle.remove()

    curved = (gradient(1e-5)[0] - gradient(-1e-5)[0]) / 2e-5
    first, features = gradient(0.0)
    weights = after_the_class_token(first - curved / 2).mean((2, 3), keepdim=True)
    expected = (weights * after_the_class_token(features)).sum(1).relu()
    np.testing.assert_allclose(found, unit(expected)[0], atol=1e-5)


def test_what_cannot_be_smoothed_says_so():
    for method in ("eigen_cam", "threshold_grad_cam", "fem"):
        with pytest.raises(ValueError, match="does not sum products over channels"):
            smoothed(method, eigen=True)
    assert smoothed("score_cam", aug=True).forwards == "channels"


def test_several_layers_are_averaged(x):
    network, layers = Net().eval(), ["a", "b", "c"]
    found = live_maps(network, x, "layer_cam", layer=layers, targets=CLASSES)
    expected = theirs("LayerCAM", network, layers, x, CLASS_TARGETS)
    np.testing.assert_allclose(unit(found), expected, atol=1e-4)


def test_refine_cam_multiplies_layers(x):
    network, layers = Net().eval(), ["a", "b", "c"]
    found = live_maps(network, x, "refine_cam", layer=layers, targets=CLASSES)
    package = pytorch_grad_cam.RefineCAM(network, [network.a, network.b, network.c])
    np.testing.assert_allclose(unit(found), unit(package(x, CLASS_TARGETS)), atol=1e-5)
    with pytest.raises(ValueError, match="name two or more"):
        live_maps(network, x, "refine_cam", layer="c")


def test_sess_puts_windows_together(x):
    network = Net().eval()
    x = x[..., :32, :40]
    found = live_maps(network, x, "sess", layer="b", targets=CLASSES)
    package = pytorch_grad_cam.SESS(network, [network.b])
    np.testing.assert_allclose(unit(found), unit(package(x, CLASS_TARGETS)), atol=1e-5)


# --- concepts ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_concepts_are_the_packages(x):
    network = Net().eval()
    found = factorised(LiveModel(network, "b"), x, 3)
    package = pytorch_grad_cam.DeepFeatureFactorization(
        network, network.b, computation_on_concepts=network.end
    )
    concepts, maps, answers = package(x, 3)
    np.testing.assert_allclose(found.directions.T, concepts, atol=1e-5)
    np.testing.assert_allclose(found.maps, np.stack(maps), atol=1e-5)
    # Here as there: what follows the layer, of features that are everywhere the concept's.
    everywhere = torch.from_numpy(np.float32(concepts.T))[:, :, None, None].expand(-1, -1, 16, 12)
    with torch.no_grad():
        literal = network.end(
            (everywhere.relu() + network.c(everywhere.relu()).relu()).mean((2, 3))
        )
    torch.testing.assert_close(found.answers, literal, atol=1e-3, rtol=1e-4)
    assert answers.shape == literal.shape
    for count in (0, 13):
        with pytest.raises(ValueError, match="choose from 1 to 12"):
            factorised(LiveModel(network, "b"), x, count)


# --- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "package"),
    [("class_score", "ClassifierOutputTarget"), ("class_rest", "ClassifierOutputReST"),
     ("class_probability", "ClassifierOutputSoftmaxTarget")],
)  # fmt: skip
def test_targets_of_a_class(ours, package, x):
    network = Net().eval()
    with torch.no_grad():  # a probability of 1 has no gradient
        network.end.weight /= 300
    made = getattr(model_targets, package)
    expected = theirs("GradCAM", network, ["b"], x, [made(n) for n in CLASSES])
    for kind in (getattr(our_targets, ours), made):
        found = live_maps(network, x, "grad_cam", layer="b", targets=[kind(n) for n in CLASSES])
        np.testing.assert_allclose(unit(found), expected, atol=1e-5)


def test_a_region_of_a_segmentation(x):
    network = Segmenting().eval()
    region = np.zeros((64, 48), np.float32)
    region[10:30, 5:20] = 1
    asked = our_targets.class_in_region(2, region)
    found = live_maps(network, x, "grad_cam", layer="body", targets=asked)
    package = [model_targets.SemanticSegmentationTarget(2, region)] * 2
    wrapped = Only(network, lambda answer: answer["out"])
    expected = theirs("GradCAM", wrapped, ["network.body"], x, package)
    np.testing.assert_allclose(unit(found), expected, atol=1e-5)
    with pytest.raises(ValueError, match="no predicted class"):
        live_maps(network, x, "grad_cam", layer="body")


@pytest.mark.parametrize("positive", [True, False])
def test_one_number_an_image(positive, x):
    network = Only(Net(), lambda logits: logits[:, 2]).eval()
    for ours, package in (
        (our_targets.binary(positive), model_targets.BinaryClassifierOutputTarget(int(positive))),
        (our_targets.whole_answer(), model_targets.RawScoresOutputTarget()),
    ):
        expected = theirs("LayerCAM", network, ["network.b"], x, [package] * 2)
        found = live_maps(network, x, "layer_cam", layer="network.b", targets=ours)
        np.testing.assert_allclose(unit(found), expected, atol=1e-5)


def test_likeness_to_an_embedding_and_the_sum(x):
    network = Net().eval()
    other = torch.linspace(-1, 1, 5)
    for ours, literal in (
        (our_targets.likeness(other), lambda y: (y @ other) / (y.norm() * other.norm())),
        (our_targets.unlikeness(other), lambda y: 1 - (y @ other) / (y.norm() * other.norm())),
        (our_targets.sum_of_answer(), lambda y: y[0] + y[1] + y[2] + y[3] + y[4]),
    ):
        expected = theirs("GradCAM", network, ["b"], x, [literal] * 2)
        found = live_maps(network, x, "grad_cam", layer="b", targets=ours)
        np.testing.assert_allclose(unit(found), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "why"),
    [
        (lambda answer: answer, "returned a tensor of shape"),
        (lambda answer: 3.0, "returned a float"),
        (our_targets.whole_answer(), r"the target whole_answer\(\)"),
        ([0], "2 images, 1 targets"),
        ([lambda answer: answer.sum()] * 3, "2 images, 3 targets"),
        ([0, 5], "class indices 0 … 4"),
        (torch.tensor([0.5, 1.0]), "class indices"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets, why, x):
    with pytest.raises(ValueError, match=why):
        live_maps(Net().eval(), x, "grad_cam", layer="b", targets=targets)


def test_methods_that_need_a_class_say_so(x):
    for method in ("finer_cam", "smooth_grad"):
        with pytest.raises(ValueError, match="explains classes only"):
            live_maps(Net().eval(), x, method, layer="b", targets=our_targets.sum_of_answer())


# --- layers -----------------------------------------------------------------------------------


def test_layers_are_found(vit, swin, x):
    square = torch.cat([x, x], dim=3)[:1, :, :, :64]
    assert found_layer(vit, square) == "blocks.2.norm1"  # the last that the class token reads
    assert found_layer(swin, square) == "norm"
    assert found_layer(Segmenting(), x[:1]) == "body"
    mixer = MlpMixer(num_classes=5, img_size=64, num_blocks=2, embed_dim=16)
    assert found_layer(mixer, square) == "norm"
    squeezed = nn.Sequential(  # SqueezeNet's end: a channel per class, and their mean
        nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    assert found_layer(squeezed, x[:1]) == "1"
    unborn = Net()
    nn.init.zeros_(unborn.end.weight)
    assert found_layer(unborn, x[:1]) in ("a", "b")
    with pytest.raises(ValueError, match="no layer is suitable"):
        found_layer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 48, 5)), x[:1])


def test_layers_that_cannot_be_are_refused(x):
    class Twice(Net):
        def forward(self, x):
            x = self.b(self.a(x))
            return self.end(self.c(self.c(x)).mean((2, 3)))

    network = Net().eval()
    for layer, of, why in (
        ("d", network, "no layer 'd'; its parts are a, b, c, end"),
        (nn.Conv2d(3, 3, 1), network, "is not a module of the network"),
        ("end", network, "not maps"),
        ("c", Twice().eval(), "more than once"),
        ([], network, "give a layer"),
    ):
        with pytest.raises(ValueError, match=why):
            live_maps(of, x, "grad_cam", layer=layer)
    with pytest.raises(ValueError, match="must return maps"):
        live_maps(network, x, "grad_cam", layer="c", reshape=lambda raw: raw.flatten(1))
    with pytest.raises(ValueError, match="more than arrange"):
        live_maps(network, x, "ablation_cam", layer="c", reshape=lambda raw: raw.float() * 2)
    module = live_maps(network, x, "grad_cam", layer=network.c)
    assert torch.equal(module, live_maps(network, x, "grad_cam", layer="c"))


# --- what a call leaves behind ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["grad_cam", "shapley_cam", "ablation_cam", "full_grad", "sess"])
def test_a_live_network_stays_as_it_was(method, x):
    network = Net().train()
    network.b.eval()
    network.a.weight.requires_grad_(False)
    network.end.bias.grad = torch.ones(5)
    before = [(m.training, len(m._forward_hooks)) for m in network.modules()]
    grads = [(p.requires_grad, p.grad) for p in network.parameters()]
    weights = [p.detach().clone() for p in network.parameters()]
    with torch.inference_mode():  # and it works there
        found = live_maps(network, x[..., :32, :32], method, layer="c")
    assert found.isfinite().all()
    assert [(m.training, len(m._forward_hooks)) for m in network.modules()] == before
    after = [(p.requires_grad, p.grad) for p in network.parameters()]
    assert all(a[0] == b[0] and a[1] is b[1] for a, b in zip(after, grads, strict=True))
    assert all(torch.equal(p, w) for p, w in zip(network.parameters(), weights, strict=True))


def test_batches_half_precision_and_layers_that_change_in_place(x):
    class InPlace(Net):
        def forward(self, x):
            x = self.b(self.a(x).relu_())
            return self.end(x.relu_().mean((2, 3)))

    network = InPlace().eval()
    whole = live_maps(network, x, "grad_cam", layer="b", targets=CLASSES)
    parts = live_maps(network, x, "grad_cam", layer="b", targets=CLASSES, batch_size=1)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)
    half = live_maps(network.bfloat16(), x, "grad_cam", layer="b", targets=CLASSES)
    assert half.dtype == torch.float32
    assert (half - whole).abs().mean() < 0.05
    for wrong in (x[0], x[:0], x.to(torch.uint8)):
        with pytest.raises(ValueError, match="x must be normalised images"):
            live_maps(network, wrong)


def test_halves_that_are_another_function_are_not_used(x):
    """What a forward asks of its inputs' types is answered otherwise while it is cut in two."""

    class Asking(Net):
        def forward(self, x):
            x = self.b(self.a(x).relu()).relu()
            logits = self.end(x.mean((2, 3)))
            return logits * -20 if isinstance(logits, torch.Tensor) else logits

    network = Asking().eval()
    found = live_maps(network, x, "ablation_cam", layer="b", targets=CLASSES, size=(16, 12))
    with torch.no_grad():
        features = network.b(network.a(x).relu())
        for image, number in enumerate(CLASSES):
            whole = network(x)[image, number]
            weights = []
            for channel in range(12):
                without = features[image].clone()
                without[channel] = 0
                left = network.end(without.relu().mean((1, 2))[None])[0, number] * -20
                weights.append((whole - left) / whole.abs())
            expected = (torch.stack(weights)[:, None, None] * features[image]).sum(0).relu()
            np.testing.assert_allclose(found[image], unit(expected[None])[0], atol=1e-4)


def test_gradients_that_the_network_ends_are_told_not_shown_as_nothing(x):
    class Ended(Net):
        def forward(self, x):
            with torch.no_grad():
                x = self.b(self.a(x).relu()).relu()
            return self.end(x.mean((2, 3)))

    with pytest.raises(ValueError, match="the network ends gradients there"):
        live_maps(Ended().eval(), x, "grad_cam", layer="b", targets=CLASSES)


def test_channels_that_are_as_many_as_rows_and_columns(x):
    """Told by what the layer is made of; where that does not tell, the user must."""

    class Last(nn.Module):
        def __init__(self, normalises):
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Conv2d(3, 8, 3, stride=8)
            self.b = nn.Sequential(nn.LayerNorm(8)) if normalises else nn.Identity()
            self.end = nn.Linear(8, 5)

        def forward(self, x):
            x = self.b(self.a(x).permute(0, 2, 3, 1))
            return self.end((x * x).mean((1, 2)))

    x = torch.randn(2, 3, 66, 66, generator=torch.Generator().manual_seed(0))
    network = Last(True).eval()
    found = live_maps(network, x, "grad_cam", layer="b", targets=CLASSES)
    expected = theirs("GradCAM", network, ["b"], x, CLASS_TARGETS, channels_first)
    np.testing.assert_allclose(unit(found), expected, atol=1e-5)
    with pytest.raises(ValueError, match="channels first or channels last"):
        live_maps(Last(False).eval(), x, "grad_cam", layer="b", targets=CLASSES)


def test_what_a_network_does_in_place_changes_no_features(x):
    class InPlace(Net):
        def forward(self, x):
            return self.end(self.b(self.a(x)).relu_().mean((2, 3)))

    network = InPlace().eval()
    with torch.no_grad():
        raw = network.b(network.a(x))
    for model in (LiveModel(network, "b"), LiveModel(network, "b", reshape=lambda maps: maps)):
        features = model.features(x)
        torch.testing.assert_close(features, raw)
        before = features.clone()
        model.answered(x, features)
        assert torch.equal(features, before)
    for method in ("fem", "kpca_cam", "ablation_cam"):
        assert live_maps(network, x, method, layer="b").isfinite().all()
    assert factorised(LiveModel(network, "b"), x, 2).maps.isfinite().all()


def test_of_several_answers_the_first_is_explained(x):
    class Several(Net):
        def forward(self, x):
            logits = super().forward(x)
            return [logits, logits.flip(1)]

    found = live_maps(Several().eval(), x, "grad_cam", layer="b", targets=CLASSES)
    expected = live_maps(Net().eval(), x, "grad_cam", layer="b", targets=CLASSES)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="a LiveModel has its layer"):
        live_maps(LiveModel(Net(), "b"), x, layer="c")
    for wrong in (2.9, True, -1, 5):
        with pytest.raises(ValueError, match="or a class 0 … 4"):
            live_maps(Net(), x, layer="b", targets=[our_targets.sum_of_answer(), wrong])
    torch.testing.assert_close(
        live_maps(Net().eval(), x, layer="b", targets=np.int64(3)),
        live_maps(Net().eval(), x, layer="b", targets=[3, 3]),
    )


def test_every_untrained_method_runs_on_a_network_in_memory(x):
    network = Net().eval()
    model = LiveModel(network, ["b", "c"])
    for key, row in METHODS.items():
        if row.learned or (isinstance(row.forwards, int) and row.forwards > 100):
            continue  # seconds
        maps = live_maps(model if key == "refine_cam" else network, x[:1, :, :32, :32], key)
        assert maps.shape == (1, 32, 32), key
        assert maps.isfinite().all(), key
