"""What tests of figures share."""

import matplotlib.pyplot as plt
import pytest

from lib.figures.style import use_study_style


@pytest.fixture
def study_style():
    """The study's style meanwhile; figures are closed."""
    with plt.rc_context():
        use_study_style()
        yield
    plt.close("all")
