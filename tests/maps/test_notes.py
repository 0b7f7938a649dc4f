"""What stands beside methods wherever they are listed, and whether it is so."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel

import run_all
from lib.commands import lcam, one_image
from lib.maps.methods import LEARNED_METHODS, METHODS


@pytest.mark.parametrize("key", METHODS)
def test_a_note_is_one_sentence(key):
    note = METHODS[key].note
    if note:
        assert note[0].isupper() or note[0].isdigit()
        assert note.endswith(".")
        assert "\n" not in note
        assert ". " not in note
        assert "  " not in note


def test_what_a_reader_must_know_is_noted():
    for key in ("threshold_grad_cam", "eigen_cam", "eigen_grad_cam", "kpca_cam", "finer_cam",
                "ablation_cam", "full_grad", "score_cam", "random_cam", "integrated_gradients",
                "integrated_gradients_legendre", "guided_ig", "guided_backprop", "lime", "rise"):  # fmt: skip
        assert METHODS[key].note, key
    helped = lcam.build_parser().format_help()
    for key in LEARNED_METHODS:
        command = f"`dcls-lcam --models KEY --methods {key} --images FOLDER`"
        assert command in METHODS[key].note
        assert METHODS[key].note in helped


def test_notes_stand_beside_their_methods(capsys):
    assert run_all.main(["--list", "--profile", "demo"]) == 0
    listed = capsys.readouterr().out
    helped = one_image.build_parser().format_help()
    for row in METHODS.values():
        if row.note:
            assert f"{row.label}\n    {row.note}\n" in listed
            assert f"  {row.key}: {row.note}\n" in helped


def test_the_side_of_a_component_that_reaches_further_is_positive_in_kpca_too():
    features = np.random.default_rng(0).normal(size=(6, 20, 5, 5)).astype(np.float32)
    for maps in (get_2d_projection_kernel(features), get_2d_projection_kernel(-features)):
        assert (maps.max(axis=(1, 2)) >= -maps.min(axis=(1, 2))).all()
