"""The table of mutants fits the project; `run.py` tries them."""

from __future__ import annotations

import ast
import re

import pytest
from mutants.mutants import MUTANTS

from lib.base.paths import ROOT


def test_keys_are_unique():
    assert len({mutant.key for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.key)
def test_a_mutant_changes_one_place_and_names_tests_that_are_there(mutant):
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    changed = text.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert re.search(rf"^def {name or 'test_.*'}\(", (ROOT / file).read_text(), re.M), test
