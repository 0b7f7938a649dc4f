"""Makes the files beside it with pysaliency itself, of which the project's reader must say the same.

    python tests/people/stored/golden/make.py

Runs in an environment of its own (pysaliency 0.2.22 and a setuptools that still has
pkg_resources); the project never imports pysaliency. `trains/` holds scanpaths with durations,
`single/` fixations without scanpaths at whole pixels, `arrays/` images kept in the HDF5 file;
`test_layouts.py` says by hand what is in them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIZES = {"a.png": (21, 13), "b.png": (9, 17)}  # width, height


def main() -> None:
    vars(np)["string_"] = np.bytes_  # its name before NumPy 2, which pysaliency still uses
    import pysaliency

    for name in ("trains", "single"):
        images = HERE / name / "pictures"
        images.mkdir(parents=True, exist_ok=True)
        for file, (width, height) in SIZES.items():
            Image.new("RGB", (width, height), (90, 120, 30)).save(images / file)
        files = [str(images / file) for file in SIZES]
        pysaliency.FileStimuli(files).to_hdf5(str(HERE / name / "stimuli.hdf5"))
    pysaliency.FixationTrains.from_fixation_trains(
        xs=[[10.5, 2.25, 30.0], [4.0], [8.5, 1.5]],
        ys=[[6.5, 1.75, 5.0], [12.5], [16.5, 0.5]],
        ts=[[0, 1, 2], [0], [0, 1]],
        ns=[0, 0, 1],
        subjects=[0, 3, 3],
        scanpath_fixation_attributes={"durations": [[0.2, 0.3, 0.1], [0.4], [0.25, 0.15]]},
        scanpath_attribute_mapping={"durations": "duration"},
    ).to_hdf5(str(HERE / "trains" / "fixations.hdf5"))
    pysaliency.Fixations.create_without_history(
        x=[3, 20, 0], y=[4, 12, 16], n=[0, 0, 1], subjects=[0, 0, 0]
    ).to_hdf5(str(HERE / "single" / "fixations.hdf5"))
    (HERE / "arrays").mkdir(exist_ok=True)
    pysaliency.Stimuli([np.zeros((13, 21, 3), np.uint8)]).to_hdf5(
        str(HERE / "arrays" / "stimuli.hdf5")
    )


if __name__ == "__main__":
    main()
