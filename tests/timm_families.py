"""One small member of each of timm's families: where its maps are made, and whether they lie where
the image does.

`python tests/timm_families.py [FAMILY …]` tries them and writes docs/timm-families.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

from lib.maps.combined import large_maps
from lib.maps.forward import head_pass
from lib.maps.methods import METHODS
from lib.networks import timm_names
from lib.networks.backbones import Backbone
from lib.networks.building import build_network, draw_zeros
from lib.networks.checked import at_its_layer, found_of
from lib.networks.models import Provenance, StudyModel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "timm-families.md"
ROW = re.compile(
    r"\| (\w+) \| (\w+) \| (.+?) \| (\d+) x (\d+) x (\d+) \| (cut|watched) \| (.*?) \|"
)
TOP = """# timm's families

This page lists the layer that is found for each family of timm's models.

```
python run_all.py --list --models timm:resnet18        # the layer of one model
```

`timm:NAME` and `untrained:NAME` take any architecture of timm's ([own models](own-models.md)). The
slow tests try the smallest member of every family with random weights. They check that the layer
is found, that Grad-CAM and Threshold-Grad-CAM give finite heatmaps of more than one cell, and that
the cells correspond to positions in the image. "cut": only the part after the layer is run again.
"watched": a hook watches the layer, because a connection bypasses it or torch.fx cannot follow the
forward pass (see [own models](own-models.md)).

`python tests/timm_families.py` writes this table.

| family | member tried | layer | channels x cells | | cells that change |
|---|---|---|---|---|---|
"""
END = """
Not tried, because no member is small: {}. All other families give heatmaps.

"at that position": after a change to one square of the image, the cells at that position
change most. "everywhere": the model mixes all positions so strongly that other cells change more.
"""
TOO_LARGE = ("deepseek_vit", "gemma4_vit", "qwen3_vit")


def row_of(name: str) -> Backbone:
    row = Backbone(
        "tried", name, timm_names.family_of(name), name, None, timm_names.preprocessing_of(name),
        "#000000", origin="tried", named=f"untrained:{name}",
    )  # fmt: skip
    return at_its_layer(row, found_of(row))


def model_of(row: Backbone) -> StudyModel:
    torch.manual_seed(1)
    network = draw_zeros(build_network(row, False)).eval()
    return StudyModel(network, row, Provenance("tried", "random", "full")).eval()


def images(side: int) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(3))


def maps_of(model: StudyModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    passed = head_pass(model, x, None)
    methods = [METHODS[key] for key in ("grad_cam", "threshold_grad_cam")]
    return {m.key: large_maps(m, model, x, passed, (56, 56)) for m in methods}


def changed_place(model: StudyModel, x: torch.Tensor) -> str:
    """Whether cells change most where the image changes: a ninth of it, off its centre."""
    side = x.shape[-1]
    with torch.no_grad():
        plain = model.features(x)
        for down, right in ((0, 2), (2, 0)):
            other = x.clone()
            rows, columns = (slice(n * side // 3, (n + 1) * side // 3) for n in (down, right))
            other[..., rows, columns] = other[..., rows, columns].flip(-1) + 2
            change = (model.features(other) - plain).abs().mean((0, 1))
            height, width = change.shape
            top = change.flatten().argmax().item()
            place = (top // width + 0.5) / height * 3, (top % width + 0.5) / width * 3
            if max(abs(place[0] - down - 0.5), abs(place[1] - right - 0.5)) > 1:
                return "everywhere"
    return "at that position"


def tried(family: str, name: str) -> str:
    """A line of the table. Raises AssertionError for maps that are no maps."""
    row = row_of(name)
    model = model_of(row)
    x = images(row.preprocessing.crop)
    features = model.features(x)
    for key, maps in maps_of(model, x).items():
        # Of an image whose every cell speaks against its class, a map is 0 everywhere.
        whole = bool(maps.isfinite().all()) and bool((maps.flatten(1).std(1) > 0).any())
        assert whole, f"{name}: {key} is no map"
    sizes = " x ".join(map(str, features.shape[1:]))
    how = "watched" if row.around else "cut"
    layer = f"`{row.layer}`" if row.layer else "end of `forward_features`"
    return f"| {family} | {name} | {layer} | {sizes} | {how} | {changed_place(model, x)} |"


def listed() -> dict[str, tuple[str, str]]:
    """{family: (member, its line)} of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = [(match, line) for line in lines if (match := ROW.match(line))]
    return {match[1]: (match[2], line) for match, line in found}


if __name__ == "__main__":
    table = listed()
    for family in sys.argv[1:] or table:
        table[family] = table[family][0], tried(family, table[family][0])
        print(table[family][1], flush=True)
        body = "\n".join(line for _, line in table.values())
        PAGE.write_text(TOP + body + "\n" + END.format(", ".join(TOO_LARGE)), encoding="utf-8")
