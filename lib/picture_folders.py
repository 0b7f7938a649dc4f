"""Folders of pictures to train on: ImageNet's usual layouts, and any folder of class folders.

Pictures are read when they are asked for, by several processes if wanted; the crop and the flip
of each follow from the seed, the epoch and the picture's place in the list alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lib.paths import shown

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_RESIZE = 256 / 224  # the shorter side, of the crop's


class PictureFolderError(ValueError):
    """A folder or list without pictures, or a picture that cannot be read."""


def listed_pictures(folder: Path, annotations: Path | None = None, limit: int = 0) -> list[Path]:
    """The pictures of a folder, by name; folders in it may be one level or more deep.

    annotations : a text file whose lines begin with a picture's path below `folder`, with or
                  without its suffix, and may go on with a class: these, in this order
    limit       : so many at most, drawn from all by a fixed seed; 0 for all
    Raises PictureFolderError naming what is not there.
    """
    if limit < 0:
        raise PictureFolderError(f"the limit must be 0 or more, got {limit}")
    if not folder.is_dir():
        raise PictureFolderError(f"{folder} is no folder of pictures")
    if annotations is None:
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    else:
        found = _annotated(folder, annotations)
    if not found:
        raise PictureFolderError(f"no pictures ({', '.join(sorted(_SUFFIXES))}) in {folder}")
    if 0 < limit < len(found):
        chosen = np.random.default_rng(0).choice(len(found), limit, replace=False)
        found = [found[i] for i in sorted(chosen)]
    return found


def _annotated(folder: Path, annotations: Path) -> list[Path]:
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PictureFolderError(f"the list {annotations} cannot be read: {error}") from error
    root, found, missing = folder.resolve(), [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = line.split()[0]
        words = line.strip()
        path = next(
            (
                p
                for said in dict.fromkeys((name, words, words.rpartition(" ")[0] or words))
                for end in ("", ".JPEG", ".jpg", ".png")
                if (p := folder / (said + end)).is_file()
            ),
            None,
        )
        if path is None:
            missing.append(f"line {number}: {name}")
        elif not path.resolve().is_relative_to(root):
            raise PictureFolderError(f"{annotations}, line {number}: {name} is not below {folder}")
        else:
            found.append(path)
    if missing:
        some = "; ".join(missing[:3])
        raise PictureFolderError(
            f"{len(missing)} of the pictures that {shown(annotations)} lists are not below "
            f"{folder}: {some}"
        )
    return found


class FolderPictures(Dataset):
    """Pictures of files, the shorter side resized to 8/7 of the crop's: for
    `lib.attention_training` a crop drawn by lot, and a flip, for evaluation the centre.

    side    : of the crop
    workers : processes that read; 0 reads in this one
    folder  : above all of them; where it lies does not tell pictures from others
    """

    def __init__(self, paths: Sequence[Path], side: int, workers: int = 0, folder: Path = Path()):
        self.paths, self.side, self.workers, self.folder = list(paths), side, workers, folder

    def __len__(self) -> int:
        return len(self.paths)

    def centre(self, index: int) -> Tensor:
        """(3, side, side) in 0-1. Raises PictureFolderError."""
        picture = np.asarray(_resized(self.paths[index], round(self.side * _RESIZE)))
        top, left = ((n - self.side) // 2 for n in picture.shape[:2])
        crop = picture[top : top + self.side, left : left + self.side]
        return torch.from_numpy(crop.copy()).permute(2, 0, 1).float().div_(255)

    def __getitem__(self, asked: tuple[int, int, int]) -> Tensor:
        index, seed, epoch = asked
        rng = np.random.default_rng([seed, epoch, index])
        picture = np.asarray(_resized(self.paths[index], round(self.side * _RESIZE)))
        top, left = (rng.integers(0, n - self.side + 1) for n in picture.shape[:2])
        crop = picture[top : top + self.side, left : left + self.side]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)

    def batches(self, indices: Sequence[np.ndarray], seed: int, epoch: int) -> Iterator[Tensor]:
        asked = [[(int(i), seed, epoch) for i in some] for some in indices]
        loader = DataLoader(self, batch_sampler=asked, num_workers=self.workers)
        try:
            for batch in loader:
                yield batch.float().div_(255)
        except PictureFolderError as error:  # a reading process's comes with its whole traceback
            raise PictureFolderError(
                str(error).strip().splitlines()[-1].split("Error: ")[-1]
            ) from None

    def first(self, count: int) -> Tensor:
        return torch.stack([self.centre(i) for i in range(min(count, len(self)))])

    def facts(self) -> dict:
        names = "\n".join(
            f"{os.path.relpath(p, self.folder)} {p.stat().st_size}" for p in self.paths
        )
        return {"pictures": len(self), "names": hashlib.sha256(names.encode()).hexdigest()[:16]}


def _resized(path: Path, shorter: int) -> Image.Image:
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (shorter, shorter))  # decodes large JPEGs at a half or less
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureFolderError(f"{path} cannot be read: {error}") from error
    scale = shorter / min(picture.size)
    size = tuple(max(shorter, round(n * scale)) for n in picture.size)
    return picture.resize(size, Image.Resampling.BILINEAR)


class ArrayPictures:
    """Pictures in memory, of the crop's size already, flipped by lot.

    pictures : (image, side, side, 3) uint8
    name     : told with what was trained on them
    """

    def __init__(self, pictures: np.ndarray, name: str):
        self.pictures, self.name = torch.from_numpy(pictures).permute(0, 3, 1, 2), name

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, indices: Sequence[np.ndarray], seed: int, epoch: int) -> Iterator[Tensor]:
        flips = np.random.default_rng([seed, epoch, 1]).random(len(self)) < 0.5
        for some in indices:
            batch = self.pictures[torch.from_numpy(some)].float().div_(255)
            flipped = torch.from_numpy(flips[some])[:, None, None, None]
            yield torch.where(flipped, batch.flip(-1), batch)

    def first(self, count: int) -> Tensor:
        return self.pictures[:count].float().div_(255)

    def facts(self) -> dict:
        digest = hashlib.sha256(self.pictures.numpy().tobytes()).hexdigest()[:16]
        return {"pictures": len(self), "name": self.name, "digest": digest}
