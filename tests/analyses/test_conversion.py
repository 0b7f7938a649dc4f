"""Parameter tables and learned kernels."""

from __future__ import annotations

from stand_ins import mini

from lib.analyses.conversion import learned_kernels, parameter_table
from lib.study.study import Study


def test_parameter_table_holds_full_size_and_miniatures():
    table = parameter_table(
        Study.from_profile("demo", models=["convnext_tiny", "resnet50"]).choices
    )
    assert table["full size"].tolist() == [25_557_032, 28_589_128]
    assert table["full size, DCLS"].tolist() == [24_008_744, 28_587_688]
    assert table["replaced layers"].tolist() == [16, 18]
    assert (table["here"] < 1e6).all()


def test_learned_kernels_take_the_first_layer_of_each_stage():
    kernels = learned_kernels(mini("convnext_tiny", dcls=True), count=4)
    assert [name.split("\n")[0] for name in kernels] == [
        f"stages.{i}.blocks.0.conv_dw" for i in range(4)
    ]
    assert all(k.shape == (4, 17, 17) for k in kernels.values())
