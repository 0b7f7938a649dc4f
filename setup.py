"""What pyproject.toml cannot say: in a checkout the package is `lib`, in a wheel `dcls_alignment`.

A wheel never brings a top-level `lib`, which would be in everybody's way. It carries the example
of gaze (8 MB), so that a first score needs neither a checkout nor a download.
"""

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

HERE = find_packages(include=["lib", "lib.*"])
EXAMPLE = {
    "dcls_alignment.gaze_example": "data/gaze",
    "dcls_alignment.gaze_example.pictures": "data/gaze/pictures",
    "dcls_alignment.gaze_example.checkpoints": "data/gaze/checkpoints",
}


class Editable(editable_wheel):
    """`lib` as it lies here, and `dcls_alignment.py`, its other name."""

    def finalize_options(self):
        self.distribution.packages = HERE
        self.distribution.package_dir = {}
        self.distribution.py_modules = ["dcls_alignment"]
        super().finalize_options()


setup(
    packages=["dcls_alignment" + name.removeprefix("lib") for name in HERE] + [*EXAMPLE],
    package_dir={"dcls_alignment": "lib"} | EXAMPLE,
    package_data={"": ["*.mplstyle", "*.j2", "*.csv"]} | {name: ["*"] for name in EXAMPLE},
    cmdclass={"editable_wheel": Editable},
)
