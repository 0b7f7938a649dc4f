"""Data sets of gaze as their authors distribute them, on small copies of their exact layouts.

What is expected is written out by hand. None of these files is a real one.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat
from scipy.io.matlab import MatlabObject

from lib.base.paths import ROOT
from lib.people.stored import StoredError, open_parts
from lib.people.stored.layouts import LAYOUTS, Note
from lib.people.stored.layouts.matlab import read_mat
from lib.people.stored.layouts.mit1003 import fixations_of

GOLDEN = Path(__file__).with_name("golden")
NAN = float("nan")


def photograph(path: Path, width: int = 21, height: int = 13) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def mat(path: Path, **variables: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables, long_field_names=True)


def cells(values: list, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A cell array, a column unless its shape is said."""
    made = np.empty(len(values), object)
    made[:] = values
    return made.reshape(shape or (-1, 1))


def write_json(path: Path, said: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said))


def seen(looked) -> list[tuple]:
    """Of each fixation: observer, place in the scanpath, x, y, duration."""
    who = looked.who.tolist() or [""] * len(looked.points)
    rows = zip(who, looked.order.tolist(), looked.points.tolist(), strict=True)
    return [(name, place, *point) for name, place, point in rows]


def read(key: str, folder: Path) -> dict[str, list[tuple]]:
    """Where nothing is wrong: each image's fixations."""
    found, problems = LAYOUTS[key].read(folder)
    assert problems == []
    for each in found:
        assert each.image == folder / each.name
        assert each.image.is_file()
        assert each.label == -1
        assert each.points.dtype == np.float64
    return {each.name: seen(each) for each in found}


# --- small copies -------------------------------------------------------------------------


def subject(x: list, y: list, lasted: list) -> dict:
    return {"fix_x": np.array([x]), "fix_y": np.array([y]), "fix_duration": np.array([lasted])}


def write_osie(folder: Path) -> None:
    photograph(folder / "data/stimuli/1001.jpg")
    photograph(folder / "data/stimuli/1002.jpg", 9, 17)
    one = {
        "img": "1001.jpg",
        "subjects": cells(
            [
                subject([10.5, NAN, 22.0], [6.25, NAN, 5.0], [246.0, 100.0, 136.0]),
                subject([4.5], [2.5], [180.0]),
            ]
        ),
    }
    two = {"img": "1002.jpg", "subjects": cells([np.zeros((0, 0)), subject([1.5], [16.5], [99.0])])}
    mat(folder / "data/eye/fixations.mat", fixations=cells([one, two]))


OSIE = {
    "data/stimuli/1001.jpg": [
        ("01", 0, 10.5, 6.25, 246),
        ("01", 2, 22.0, 5.0, 136),  # beside the image; the place before it was lost
        ("02", 0, 4.5, 2.5, 180),
    ],
    "data/stimuli/1002.jpg": [("02", 0, 1.5, 16.5, 99)],
}

LONG = "i" + 70 * "a"


def write_mit1003(folder: Path) -> None:
    """The eye rests for 120 samples, jumps in five, and rests again."""
    photograph(folder / "ALLSTIMULI/istatic_1.jpeg", 210, 130)
    photograph(folder / f"ALLSTIMULI/{LONG}.jpeg", 90, 170)
    jump = [[100 + 10 * k, 50 + 4 * k] for k in range(1, 6)]
    first = np.array([[100, 50]] * 120 + jump + [[160, 74]] * 120 + [[NAN, NAN]] * 2, float)
    still = np.array([[-5, -5]] * 240, float)  # closed eyes
    for observer, samples in {"CNG": first, "ajs": still}.items():
        for stem in ("istatic_1", LONG):
            data = {"eyeData": samples, "quality": 1.0}
            mat(
                folder / f"DATA/{observer}/{stem}.mat",
                **{stem[:63]: {"imgName": stem, "DATA": data}},
            )
    mat(folder / "DATA/CNG/shuff_stimnames.mat", names=cells(["b", "a"]))


def write_cat2000(folder: Path) -> None:
    photograph(folder / "trainSet/Stimuli/Action/001.jpg")
    photograph(folder / "trainSet/Stimuli/Action/Output/001_SaliencyMap.jpg")
    photograph(folder / "trainSet/Stimuli/Art/001.jpg", 9, 17)
    marks = np.zeros((13, 21), bool)
    marks[0, 20] = marks[12, 3] = True
    mat(folder / "trainSet/FIXATIONLOCS/Action/001.mat", fixLocs=marks)
    mat(folder / "trainSet/FIXATIONLOCS/Art/001.mat", fixLocs=np.eye(17, 9) > 2)  # nobody looked


CAT2000 = {"trainSet/Stimuli/Action/001.jpg": [("", 0, 20.5, 0.5, 1), ("", 1, 3.5, 12.5, 1)]}

SALICON_A, SALICON_B = (f"COCO_train2014_00000000000{number}" for number in (9, 25))


def write_salicon(folder: Path) -> None:
    kinds = [("location", object), ("timestamp", object), ("fixations", object)]
    samples, times = np.array([[1, 1], [2, 2]]), np.array([[0], [16]])
    both = np.zeros((2, 1), kinds)
    both[0, 0] = samples, times, np.array([[1, 1], [21, 13], [24, 5]])
    both[1, 0] = samples, times, np.zeros((0, 0))
    other = np.zeros((1, 1), kinds)
    other[0, 0] = samples, times, np.array([[9, 17]], np.uint16)
    for stem, gaze, size in ((SALICON_A, both, (21, 13)), (SALICON_B, other, (9, 17))):
        photograph(folder / f"images/train/{stem}.jpg", *size)
        mat(
            folder / f"fixations/train/{stem}.mat",
            image=stem,
            resolution=np.array([size[::-1]]),
            gaze=gaze,
        )


SALICON = {
    f"images/train/{SALICON_A}.jpg": [
        ("001", 0, 0.5, 0.5, 1),
        ("001", 1, 20.5, 12.5, 1),
        ("001", 2, 23.5, 4.5, 1),
    ],
    f"images/train/{SALICON_B}.jpg": [("001", 0, 8.5, 16.5, 1)],
}


def write_salicon_json(folder: Path, pairs: dict[tuple[int, int], list]) -> None:
    images = []
    for number, (stem, (width, height)) in enumerate(
        {SALICON_A: (21, 13), SALICON_B: (9, 17)}.items()
    ):
        photograph(folder / f"images/train/{stem}.jpg", width, height)
        images.append({"id": number, "file_name": f"{stem}.jpg", "width": width, "height": height})
    annotations = [
        {"id": number, "image_id": image, "worker_id": worker, "fixations": fixations}
        for number, ((image, worker), fixations) in enumerate(pairs.items())
    ]
    said = {"info": {}, "images": images, "type": "fixations", "annotations": annotations}
    write_json(folder / "annotations/fixations_train2014.json", said)


ROWS = {(0, 307): [[1, 1], [13, 21]], (0, 9): [[None, None], [5, 24]], (1, 307): [[17, 9]]}


def trial(name: str, subject: int, x: list, y: list, lasted: list, **more: object) -> dict:
    said = {"name": name, "subject": subject, "X": x, "Y": y, "T": lasted, "length": len(x)}
    return said | {"split": "train"} | more


def write_search(folder: Path) -> None:
    for place in ("images/bottle", "images/potted plant"):
        photograph(folder / place / "000000000009.jpg", 1680, 1050)
    photograph(folder / "coco_search18_images_TA/clock/000000000025.jpg", 640, 480)
    present = {"condition": "present", "correct": 1, "RT": 800, "bbox": [1, 2, 3, 4]}
    first = trial(
        "000000000009.jpg", 2, [841.5, 300, NAN], [525, 1051, NAN], [186, 200, 90],
        task="bottle", **present,
    )  # fmt: skip
    plant = trial("000000000009.jpg", 2, [840], [500.5], [200], task="potted plant", **present)
    absent = trial(
        "000000000025.jpg", 10, [840.5, -1], [525.5, -1], [199, 88],
        task="clock", condition="absent", correct=0,
    )  # fmt: skip
    fixed = "coco_search18_fixations"
    write_json(folder / f"{fixed}_TP_train_split1.json", [first])
    write_json(folder / f"{fixed}_TP_train_split2.json", [plant, first | {"split": "valid"}])
    write_json(folder / f"{fixed}_TA/{fixed}_TA_trainval.json", [absent])


SEARCH = {
    "coco_search18_images_TA/clock/000000000025.jpg": [("10", 0, 840.5, 525.5, 199)],
    "images/bottle/000000000009.jpg": [("2", 0, 841.5, 525, 186), ("2", 1, 300, 1051, 200)],
    "images/potted plant/000000000009.jpg": [("2", 0, 840, 500.5, 200)],
}


def write_free(folder: Path) -> None:
    for place in ("images/bottle", "images/cup"):
        photograph(folder / place / "000000000009.jpg", 1680, 1050)
    photograph(folder / "coco_search18_images_TA/clock/000000000025.jpg", 640, 480)
    trials = [
        trial("000000000009.jpg", 1, [840, 31.5], [525, 77], [150, 250]),
        trial("000000000009.jpg", 2, [840, 1700], [525, 10], [151, 251]),
        trial("000000000025.jpg", 1, [840, None], [525, None], [152, 252]),
    ]
    write_json(folder / "COCOFreeView_fixations_trainval.json", trials)


FREE = {
    "coco_search18_images_TA/clock/000000000025.jpg": [("1", 0, 840, 525, 152)],
    "images/bottle/000000000009.jpg": [
        ("1", 0, 840, 525, 150),
        ("1", 1, 31.5, 77, 250),
        ("2", 0, 840, 525, 151),
        ("2", 1, 1700, 10, 251),
    ],
}


def write_toronto(folder: Path) -> None:
    place = folder / "eyetrackingdata/fixdens"
    photograph(place / "Original Image Set/1.jpg")
    photograph(place / "Original Image Set/2.jpg", 9, 17)
    one, two = np.zeros((13, 21), np.uint8), np.zeros((17, 9), np.uint8)
    one[2, 3] = one[12, 20] = two[16, 0] = 1
    mat(place / "origfixdata.mat", white=cells([one, two], (1, 2)))


TORONTO = {
    "eyetrackingdata/fixdens/Original Image Set/1.jpg": [
        ("", 0, 3.5, 2.5, 1),
        ("", 1, 20.5, 12.5, 1),
    ],
    "eyetrackingdata/fixdens/Original Image Set/2.jpg": [("", 0, 0.5, 16.5, 1)],
}


def write_pysaliency(folder: Path) -> None:
    shutil.copytree(GOLDEN / "trains", folder, dirs_exist_ok=True)


# By hand from golden/make.py, whose files pysaliency itself wrote.
PYSALIENCY = {
    "pictures/a.png": [
        ("0", 0, 10.5, 6.5, 0.2),
        ("0", 1, 2.25, 1.75, 0.3),
        ("0", 2, 30, 5, 0.1),
        ("3", 0, 4, 12.5, 0.4),
    ],
    "pictures/b.png": [("3", 0, 8.5, 16.5, 0.25), ("3", 1, 1.5, 0.5, 0.15)],
}

WRITERS = {
    "osie": write_osie,
    "mit1003": write_mit1003,
    "cat2000": write_cat2000,
    "salicon": write_salicon,
    "coco-search18": write_search,
    "coco-freeview": write_free,
    "toronto": write_toronto,
    "pysaliency": write_pysaliency,
}
READ = {
    "osie": OSIE,
    "cat2000": CAT2000,
    "salicon": SALICON,
    "coco-search18": SEARCH,
    "coco-freeview": FREE,
    "toronto": TORONTO,
    "pysaliency": PYSALIENCY,
}


@pytest.mark.parametrize("key", READ)
def test_a_data_set_is_read_as_recorded(key, tmp_path):
    WRITERS[key](tmp_path)
    assert read(key, tmp_path) == READ[key]


def test_every_layout_has_a_test():
    assert list(WRITERS) == list(LAYOUTS)


@pytest.mark.parametrize("key", WRITERS)
def test_a_layout_is_told_from_every_other(key, tmp_path):
    assert not any(layout.holds(tmp_path) for layout in LAYOUTS.values())
    WRITERS[key](tmp_path)
    assert [other for other, layout in LAYOUTS.items() if layout.holds(tmp_path)] == [key]
    assert not any(layout.holds(tmp_path / "nowhere") for layout in LAYOUTS.values())


@pytest.mark.parametrize(
    ("key", "sigma"),
    [
        ("osie", (24, 24)), ("mit1003", (35, 35)), ("cat2000", (42, 42)), ("salicon", (19, 19)),
        ("coco-search18", (31, 31)), ("coco-freeview", (31, 31)),
    ],
)  # fmt: skip
def test_the_blur_on_an_image_as_it_was_shown(key, sigma):
    viewing = LAYOUTS[key].viewing
    viewing.require_sigma(key)
    assert tuple(viewing.sigma(1680, 1050)) == sigma
    first = {"mit1003": 1, "coco-search18": 1, "coco-freeview": 1}
    assert viewing.skip_first == first.get(key, 0)
    assert (viewing.weigh, viewing.outside) == ("counts", "leave out")


@pytest.mark.parametrize("key", ["toronto", "pysaliency"])
def test_where_no_blur_is_published_none_is_made_up(key):
    with pytest.raises(StoredError, match="must give the blur of gaze points"):
        LAYOUTS[key].viewing.require_sigma(key)


def test_an_image_of_cocos_own_size_lay_on_the_screen_as_large_as_fits():
    """640 x 480 is enlarged 2.1875 times, to 1400 x 1050, between bars of 140 pixels."""
    times, plus = LAYOUTS["coco-freeview"].viewing.placement(640, 480)
    np.testing.assert_allclose(np.array([[140, 0], [1540, 1050]]) * times + plus, [[0, 0], [640, 480]], atol=1e-9)  # fmt: skip


def test_a_searched_things_folder_may_be_spelled_without_a_space(tmp_path):
    write_search(tmp_path)
    (tmp_path / "images/potted plant").rename(tmp_path / "images/potted_plant")
    name = "images/potted_plant/000000000009.jpg"
    assert read("coco-search18", tmp_path)[name] == SEARCH[name.replace("_", " ")]


def test_the_page_names_every_layout_and_its_blur():
    page = (ROOT / "docs/data-sets.md").read_text()
    for layout in LAYOUTS.values():
        assert f"| `{layout.key}` |" in page
        ((sigma, weights, first),) = re.findall(
            rf"^\| {layout.label} \| ([^|]+) \| ([^|]+) \| (\d) \|", page, re.M
        )
        viewing = layout.viewing
        size = viewing.pixels_per_degree or viewing.sigma_pixels
        assert f"{size:g} pixels" in sigma or sigma.startswith(("none", "as COCO-Search18"))
        assert sigma.startswith("none") == (size == 0)
        assert "alike" in weights
        assert int(first) == viewing.skip_first


# --- MIT1003: fixations of samples --------------------------------------------------------


def test_fixations_of_an_eye_that_rests_and_jumps(tmp_path):
    write_mit1003(tmp_path)
    found = read("mit1003", tmp_path)
    assert list(found) == [f"ALLSTIMULI/{LONG}.jpeg", "ALLSTIMULI/istatic_1.jpeg"]
    first, second, closed = found["ALLSTIMULI/istatic_1.jpeg"]
    assert first[:4] == ("CNG", 0, 100, 50)
    assert second[:4] == ("CNG", 1, 160, 74)
    assert closed == ("ajs", 0, -5, -5, 1000)  # beside the image
    # 247 samples, 1000/240 ms each, of which the jump takes few
    assert 480 <= first[4] <= 500
    assert 470 <= second[4] <= 508


def test_a_drift_is_no_saccade_and_a_short_rest_no_fixation():
    drift = np.column_stack([np.linspace(0, 200, 240), np.zeros(240)])
    np.testing.assert_array_equal(fixations_of(drift), [[100, 0, 1000]])
    rests = [(0, 100), (100, 8), (200, 100)]  # eight samples are 33 ms
    path: list[float] = []
    for at, samples in rests:
        path += [] if not path else list(np.linspace(path[-1], at, 6)[1:-1])
        path += [at] * samples
    x = np.array(path, float)
    found = fixations_of(np.column_stack([x, 0 * x]))
    np.testing.assert_array_equal(found[:, 0], [0, 200])


def test_a_rise_of_less_than_three_samples_is_no_saccade():
    x = np.repeat([0.0, 100.0], [4, 236])  # so near the start that it can rise for two only
    np.testing.assert_array_equal(fixations_of(np.column_stack([x, 0 * x])), [[100, 0, 1000]])


def test_blinks_without_numbers_do_not_end_a_fixation():
    still = np.full((240, 2), 40.0)
    still[100:110] = NAN
    np.testing.assert_array_equal(fixations_of(still), [[40, 40, 1000]])


# --- SALICON's JSON -----------------------------------------------------------------------


def test_salicons_json_of_2015_has_rows_and_columns_from_1(tmp_path):
    write_salicon_json(tmp_path, ROWS)
    assert LAYOUTS["salicon"].holds(tmp_path)
    expected = {
        f"images/train/{SALICON_A}.jpg": [
            ("307", 0, 0.5, 0.5, 1),
            ("307", 1, 20.5, 12.5, 1),
            ("9", 1, 23.5, 4.5, 1),
        ],
        f"images/train/{SALICON_B}.jpg": [("307", 0, 8.5, 16.5, 1)],
    }
    assert read("salicon", tmp_path) == expected


def test_salicons_json_of_2014_has_x_and_y_from_0(tmp_path):
    write_salicon_json(tmp_path, {(0, 307): [[20, 12], [15.5, 3]], (1, 9): [[0, 16]]})
    expected = {
        f"images/train/{SALICON_A}.jpg": [("307", 0, 20.5, 12.5, 1), ("307", 1, 16.0, 3.5, 1)],
        f"images/train/{SALICON_B}.jpg": [("9", 0, 0.5, 16.5, 1)],
    }
    assert read("salicon", tmp_path) == expected


# --- pysaliency ---------------------------------------------------------------------------


def test_fixations_without_scanpaths_at_whole_pixels(tmp_path):
    shutil.copytree(GOLDEN / "single", tmp_path, dirs_exist_ok=True)
    assert read("pysaliency", tmp_path) == {
        "pictures/a.png": [("0", 0, 3.5, 4.5, 1), ("0", 0, 20.5, 12.5, 1)],
        "pictures/b.png": [("0", 0, 0.5, 16.5, 1)],
    }


def rewrite(path: Path, **arrays: object) -> None:
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            del file[name]
            file[name] = values


def write_scanpaths(path: Path, within: str = "") -> None:
    """As pysaliency's repository writes them after 0.2.22: written here without pysaliency."""
    rows = {"xs": [[10.5, 2.25], [8.5, 7.0]], "ys": [[6.5, 1.75], [16.5, 9.0]]}
    with h5py.File(path, "w") as file:
        group = file
        if within:
            file.attrs["type"], file.attrs["version"] = np.bytes_("ScanpathFixations"), b"1.0"
            group = file.create_group(within)
        group.attrs["type"], group.attrs["version"] = np.bytes_("Scanpaths"), np.bytes_("1.0")
        for name, values in rows.items():
            group[name] = np.array(values)
        group["n"], group["lengths"] = [0, 1], [2, 1]
        group["scanpath_attributes/subject"] = [4, 2]
        group["fixation_attributes/durations"] = [[0.2, 0.3], [0.5, 0.0]]


@pytest.mark.parametrize("within", ["", "scanpaths"])
def test_the_newer_forms_of_scanpaths(within, tmp_path):
    write_pysaliency(tmp_path)
    write_scanpaths(tmp_path / "fixations.hdf5", within)
    assert read("pysaliency", tmp_path) == {
        "pictures/a.png": [("4", 0, 10.5, 6.5, 0.2), ("4", 1, 2.25, 1.75, 0.3)],
        "pictures/b.png": [("2", 0, 8.5, 16.5, 0.5)],
    }


def test_paths_saved_on_windows(tmp_path):
    write_pysaliency(tmp_path)
    names = np.array(["pictures\\a.png", "pictures\\b.png"], object)
    rewrite(tmp_path / "stimuli.hdf5", filenames=names)
    assert read("pysaliency", tmp_path) == PYSALIENCY


def test_pairs_with_the_same_ending(tmp_path):
    write_pysaliency(tmp_path)
    for name in ("stimuli", "fixations"):
        (tmp_path / f"{name}.hdf5").rename(tmp_path / f"{name}_train.hdf5")
    assert LAYOUTS["pysaliency"].holds(tmp_path)
    assert read("pysaliency", tmp_path) == PYSALIENCY
    (tmp_path / "fixations_train.hdf5").rename(tmp_path / "fixations_val.hdf5")
    assert not LAYOUTS["pysaliency"].holds(tmp_path)


# --- MATLAB's newer files -----------------------------------------------------------------


def write_newer_osie(path: Path) -> None:
    """OSIE's variable as MATLAB saves it with -v7.3: arrays transposed, cells by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        names = iter("abcdefghijklmnop")

        def put(values: object, kind: str) -> h5py.Reference:
            made = file.create_dataset(f"#refs#/{next(names)}", data=values)
            made.attrs["MATLAB_class"] = np.bytes_(kind)
            return made.ref

        def struct(kinds: dict[str, tuple[object, str]]) -> h5py.Reference:
            group = file.create_group(f"#refs#/{next(names)}")
            group.attrs["MATLAB_class"] = np.bytes_("struct")
            for name, (values, kind) in kinds.items():
                group.create_dataset(name, data=values).attrs["MATLAB_class"] = np.bytes_(kind)
            return group.ref

        def pointing(references: list) -> np.ndarray:
            return np.array([references], h5py.ref_dtype)

        one = struct(
            {
                "fix_x": ([[10.5], [22.0]], "double"),
                "fix_y": ([[6.25], [5.0]], "double"),
                "fix_duration": ([[246.0], [136.0]], "double"),
            }
        )
        nobody = put(np.array([0, 0], np.uint64), "double")
        file[nobody].attrs["MATLAB_empty"] = np.uint8(1)
        name = np.array([[ord(c)] for c in "1001.jpg"], np.uint16)
        image = struct({"img": (name, "char"), "subjects": (pointing([nobody, one]), "cell")})
        file.create_dataset("fixations", data=pointing([image])).attrs["MATLAB_class"] = np.bytes_("cell")  # fmt: skip
    head = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(128) + head[128:])


def test_matlabs_newer_files_are_read_alike(tmp_path):
    write_osie(tmp_path)
    write_newer_osie(tmp_path / "data/eye/fixations.mat")
    assert read("osie", tmp_path) == {
        "data/stimuli/1001.jpg": [("02", 0, 10.5, 6.25, 246), ("02", 1, 22.0, 5.0, 136)]
    }


def test_matlabs_matrices_keep_their_shape_and_cells_are_read_column_by_column(tmp_path):
    mat(tmp_path / "old.mat", white=cells(["a", "c", "b", "d"], (2, 2)))
    assert read_mat(tmp_path, tmp_path / "old.mat", "white") == ["a", "b", "c", "d"]
    write_cat2000(tmp_path)
    with h5py.File(tmp_path / MAIN["cat2000"], "w", userblock_size=512) as file:
        marks = np.zeros((13, 21), np.uint8)
        marks[0, 20] = marks[12, 3] = 1
        file["fixLocs"] = marks.T  # as MATLAB writes it
        file["fixLocs"].attrs["MATLAB_class"] = np.bytes_("logical")
    assert read("cat2000", tmp_path) == CAT2000


@pytest.mark.parametrize("newer", [False, True])
def test_an_object_of_a_matlab_class_is_refused(newer, tmp_path):
    write_osie(tmp_path)
    path = tmp_path / MAIN["osie"]
    if newer:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["fixations"] = [1, 2]
            file["fixations"].attrs["MATLAB_object_decode"] = 3
    else:
        savemat(path, {"fixations": MatlabObject(np.zeros((1, 1), [("a", object)]), "table")})
    (said,) = wrong("osie", tmp_path)
    assert str(path) in said
    assert "which only MATLAB can read" in said


# --- damage -------------------------------------------------------------------------------

MAIN = {
    "osie": "data/eye/fixations.mat",
    "mit1003": "DATA/CNG/istatic_1.mat",
    "cat2000": "trainSet/FIXATIONLOCS/Action/001.mat",
    "salicon": f"fixations/train/{SALICON_A}.mat",
    "coco-search18": "coco_search18_fixations_TP_train_split1.json",
    "coco-freeview": "COCOFreeView_fixations_trainval.json",
    "toronto": "eyetrackingdata/fixdens/origfixdata.mat",
    "pysaliency": "fixations.hdf5",
}


def wrong(key: str, folder: Path) -> list[str]:
    """What is said of a folder, whether of all of it or of an image."""
    try:
        return LAYOUTS[key].read(folder)[1]
    except StoredError as error:
        return [str(error)]


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("key", MAIN)
@pytest.mark.parametrize("damage", ["truncated", "empty", "pickle"])
def test_a_damaged_file_is_named_with_what_to_do(key, damage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WRITERS[key](tmp_path)
    path = tmp_path / MAIN[key]
    whole = path.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) * 2 // 3],
        "empty": b"",
        "pickle": pickle.dumps(Payload()),
    }
    path.write_bytes(damaged[damage])
    (said,) = wrong(key, tmp_path)
    assert str(path) in said
    assert "fetch it again" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["osie", "cat2000", "salicon", "toronto"])
def test_another_variable_is_told_with_those_that_are_there(key, tmp_path):
    WRITERS[key](tmp_path)
    mat(tmp_path / MAIN[key], other=1.0)
    (said,) = wrong(key, tmp_path)
    assert f"{tmp_path / MAIN[key]}: needs the variable" in said
    assert "has other" in said


def test_other_fields_are_told_with_those_that_are_there(tmp_path):
    write_osie(tmp_path)
    mat(tmp_path / MAIN["osie"], fixations=cells([{"img": "1001.jpg", "people": 1.0}]))
    assert wrong("osie", tmp_path) == [
        f"{tmp_path / MAIN['osie']}, fixations{{1}}: lacks the field subjects; has img, people"
    ]
    write_mit1003(tmp_path)
    mat(tmp_path / MAIN["mit1003"], istatic_1={"DATA": {"eye": 1.0}})
    assert wrong("mit1003", tmp_path) == [
        f"{tmp_path / MAIN['mit1003']}: lacks the field eyeData; has eye"
    ]


def test_arrays_that_do_not_fit_together_leave_out_that_image_alone(tmp_path):
    write_osie(tmp_path)
    people = cells([subject([1.0, 2.0], [3.0], [4.0, 5.0])])
    good = {"img": "1002.jpg", "subjects": cells([subject([1.5], [16.5], [99.0])])}
    bad = {"img": "1001.jpg", "subjects": people}
    mat(tmp_path / MAIN["osie"], fixations=cells([bad, good]))
    found, problems = LAYOUTS["osie"].read(tmp_path)
    assert [each.name for each in found] == ["data/stimuli/1002.jpg"]
    assert problems == [
        f"{tmp_path / MAIN['osie']}, fixations{{1}}: subject 1 has 2 fix_x and 1 fix_y"
    ]


@pytest.mark.parametrize("key", ["cat2000", "toronto"])
def test_a_matrix_of_another_size_than_the_images(key, tmp_path):
    WRITERS[key](tmp_path)
    first = next(iter(READ[key]))
    photograph(tmp_path / first, 22, 13)
    found, (said,) = LAYOUTS[key].read(tmp_path)
    assert first not in [each.name for each in found]
    assert "21 wide and 13 high, the image 22 and 13" in said
    assert str(tmp_path / MAIN[key]) in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"length": 3}, "X, Y, T and length say 2, 2, 2 and 3 fixations"),
        ({"X": ["a", 1]}, "X is not a list of numbers"),
        ({"subject": None}, "subject is None"),
        ({"T": [-1, 5]}, "has a duration below 0"),
    ],
)
def test_a_trial_that_is_wrong_leaves_out_its_image(change, says, tmp_path):
    write_free(tmp_path)
    path = tmp_path / MAIN["coco-freeview"]
    trials = json.loads(path.read_text())
    trials[1] |= change
    write_json(path, trials)
    found, (said,) = LAYOUTS["coco-freeview"].read(tmp_path)
    assert [each.name for each in found] == ["coco_search18_images_TA/clock/000000000025.jpg"]
    assert says in said


def test_annotations_of_images_that_nobody_lists(tmp_path):
    write_salicon_json(tmp_path, ROWS | {(7, 1): [[1, 1]], (1, 2): [[1, 2, 3]]})
    found, problems = LAYOUTS["salicon"].read(tmp_path)
    path = tmp_path / "annotations/fixations_train2014.json"
    assert problems == [
        f"{path}, annotation 4: image_id 7 is not one of its images",
        f"{path}, annotation 5: fixations is not a list of pairs of numbers",
    ]
    assert [each.name for each in found] == [f"images/train/{SALICON_A}.jpg"]


@pytest.mark.parametrize("key", READ)
def test_an_absent_image_is_told_and_the_others_are_read(key, tmp_path):
    WRITERS[key](tmp_path)
    if key == "cat2000":
        marks = np.zeros((17, 9), bool)
        marks[1, 1] = True
        mat(tmp_path / "trainSet/FIXATIONLOCS/Art/001.mat", fixLocs=marks)
    names = [each.name for each in LAYOUTS[key].read(tmp_path)[0]]
    gone = names[0]
    (tmp_path / gone).unlink()
    if key == "coco-freeview":
        assert gone.endswith("25.jpg")
    found, (note,) = LAYOUTS[key].read(tmp_path)
    assert [each.name for each in found] == names[1:]
    assert isinstance(note, Note)
    assert f"1 of {len(names)} images with fixations: " in note
    assert Path(gone).name in note


@pytest.mark.parametrize("key", WRITERS)
def test_no_image_at_all_is_an_error(key, tmp_path):
    WRITERS[key](tmp_path)
    for suffix in ("jpg", "jpeg", "png"):
        for path in tmp_path.rglob(f"*.{suffix}"):
            path.unlink()
    with pytest.raises(StoredError, match="none of which exist, such as"):
        LAYOUTS[key].read(tmp_path)


# --- paths that lead out ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/passwd", "..", "..\\secret.jpg", "c:x.jpg", "\x1b[2J"]
)
@pytest.mark.parametrize("key", ["osie", "salicon", "coco-search18", "coco-freeview", "pysaliency"])
def test_names_lead_nowhere(key, name, tmp_path):
    folder = tmp_path / "set"
    photograph(tmp_path / "secret.jpg")
    WRITERS[key](folder)
    if key == "osie":
        mat(folder / MAIN[key], fixations=cells([{"img": name, "subjects": cells([subject([1.0], [1.0], [1.0])])}]))  # fmt: skip
    elif key == "salicon":
        shutil.rmtree(folder / "fixations")
        said = {"images": [{"id": 1, "file_name": name, "width": 1, "height": 1}], "annotations": [{"image_id": 1, "fixations": [[1, 1]]}]}  # fmt: skip
        write_json(folder / "annotations/fixations_train2014.json", said)
    elif key == "pysaliency":
        rewrite(folder / "stimuli.hdf5", filenames=np.array([name, "pictures/b.png"], object))
    else:
        more = {"task": "bottle", "condition": "present"}
        write_json(folder / MAIN[key], [trial(name, 1, [1], [1], [1], **more)])
    problems = wrong(key, folder)
    assert any(
        "not the name of a file" in said or "leads out of the folder" in said for said in problems
    )
    assert all(said.isprintable() for said in problems)


def test_a_searched_things_name_leads_nowhere(tmp_path):
    write_search(tmp_path)
    said = [
        trial("000000000009.jpg", 1, [1], [1], [1], task="../images/bottle", condition="present")
    ]
    write_json(tmp_path / MAIN["coco-search18"], said)
    assert any("not the name of a file" in problem for problem in wrong("coco-search18", tmp_path))


@pytest.mark.parametrize("key", WRITERS)
def test_links_out_of_the_folder_are_refused(key, tmp_path):
    folder = tmp_path / "set"
    WRITERS[key](folder)
    away = tmp_path / "away"
    (folder / MAIN[key]).rename(away)
    (folder / MAIN[key]).symlink_to(away)
    assert any("leads out of the folder" in said for said in wrong(key, folder))
    (folder / MAIN[key]).unlink()
    away.rename(folder / MAIN[key])
    image = LAYOUTS[key].read(folder)[0][0].image
    image.rename(tmp_path / "image")
    image.symlink_to(tmp_path / "image")
    assert any("leads out of the folder" in said for said in wrong(key, folder))


@pytest.mark.parametrize("way", ["link", "storage", "virtual"])
def test_an_hdf5_file_reads_no_other(way, tmp_path):
    write_pysaliency(tmp_path)
    (tmp_path / "other").write_bytes(bytes(64))
    path = tmp_path / "fixations.hdf5"
    with h5py.File(path, "r+") as file:
        shape = file["train_ns"].shape
        del file["train_ns"]
        if way == "link":
            file["train_ns"] = h5py.ExternalLink(str(GOLDEN / "trains/fixations.hdf5"), "train_ns")
        elif way == "storage":
            file.create_dataset(
                "train_ns", shape, "i8", external=[(str(tmp_path / "other"), 0, 64)]
            )
        else:
            layout = h5py.VirtualLayout(shape, "f8")
            layout[:] = h5py.VirtualSource(
                str(GOLDEN / "trains/fixations.hdf5"), "train_subjects", shape
            )
            file.create_virtual_dataset("train_ns", layout)
    (said,) = wrong("pysaliency", tmp_path)
    assert str(path) in said
    assert "another file" in said


def test_images_kept_as_arrays_are_refused_with_advice(tmp_path):
    write_pysaliency(tmp_path)
    shutil.copy(GOLDEN / "arrays/stimuli.hdf5", tmp_path)
    (said,) = wrong("pysaliency", tmp_path)
    assert said.startswith(f"{tmp_path / 'stimuli.hdf5'}: contains images as arrays")
    assert "FileStimuli" in said


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"train_ns": [0, 2, 1]}, "do not belong together"),
        ({"train_ns": [0, 1]}, "train_ns has 2 entries, expected 3"),
        ({"train_ys": np.ones((3, 2))}, "expected rows alike"),
    ],
)
def test_arrays_of_pysaliency_that_do_not_fit(arrays, says, tmp_path):
    write_pysaliency(tmp_path)
    rewrite(tmp_path / "fixations.hdf5", **arrays)
    (said,) = wrong("pysaliency", tmp_path)
    assert str(tmp_path / "fixations.hdf5") in said
    assert says in said


def test_a_version_of_tomorrow_is_refused(tmp_path):
    write_pysaliency(tmp_path)
    with h5py.File(tmp_path / "fixations.hdf5", "r+") as file:
        file.attrs["version"] = np.bytes_("9.0")
    (said,) = wrong("pysaliency", tmp_path)
    assert "FixationTrains 9.0" in said


def test_a_file_that_kills_its_reader_is_refused_and_the_others_are_read(tmp_path):
    """scipy's reader ends the process on an element of an unknown type."""
    write_cat2000(tmp_path)
    path = tmp_path / "trainSet/FIXATIONLOCS/Art/001.mat"
    content = bytearray(path.read_bytes())
    content[content.index(b"fixLocs") + 8] = 0
    path.write_bytes(content)
    found, problems = LAYOUTS["cat2000"].read(tmp_path)
    assert found
    assert any(
        str(path) in text and "crashes the program that reads it" in text for text in problems
    )


def test_the_same_fixations_twice_are_refused(tmp_path):
    write_osie(tmp_path)
    path = tmp_path / "data" / "eye" / "fixations.mat"
    held = loadmat(path)["fixations"]
    savemat(path, {"fixations": np.concatenate([held, held], axis=1 if held.shape[0] == 1 else 0)})
    with pytest.raises(StoredError, match="contains the fixations of .* twice"):
        open_parts([tmp_path])
