"""Folders of images: ImageNet's usual layouts, and any folder of class folders.

`lib.people.labels` finds their classes. Training images are read on demand, by several processes
if wanted. The crop and the flip of an image depend only on the seed, the epoch and the image's
position in the list.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..base.geometry import Preprocessing
from ..base.paths import shown
from .images import read_image
from .stored.part import refuse_unprintable

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_RESIZE = 256 / 224  # the shorter side, relative to the crop's
_LONGEST = 50  # times the shorter side
_AHEAD = 3  # batches that each reading process prepares in advance
_CPU = torch.device("cpu")


class ImageFolderError(ValueError):
    """The error for a folder or list without images, or for an image that cannot be read."""


def listed_images(folder: Path, annotations: Path | None = None, limit: int = 0) -> list[Path]:
    """Return the images of a folder, sorted by name.

    The folder may have subfolders of any depth, and links to folders; each is read once.

    annotations : a text file in which each line begins with an image's path below `folder`, with
                  or without its suffix, and may continue with a class; only these images are
                  returned, in this order
    limit       : at most this many images, drawn from all with a fixed seed; 0 for all

    Images may be links, too; the names in a list must lie below the folder.
    Raises ImageFolderError, which names what is missing.
    """
    if limit < 0:
        raise ImageFolderError(f"the limit must be 0 or more, got {limit}")
    if not folder.is_dir():
        raise ImageFolderError(f"{folder} is not a folder of images")
    if annotations is None:
        found = sorted(_below(folder))
    else:
        found = list(annotated_images(folder, annotations))
    if not found:
        raise ImageFolderError(f"{folder} contains no images ({', '.join(sorted(_SUFFIXES))})")
    try:
        refuse_unprintable(found)
    except ValueError as error:
        raise ImageFolderError(str(error)) from None
    if 0 < limit < len(found):
        chosen = np.random.default_rng(0).choice(len(found), limit, replace=False)
        found = [found[i] for i in sorted(chosen)]
    return found


def _below(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        raise ImageFolderError(f"{error.filename} cannot be read: {error.strerror}") from error

    seen = set()
    for root, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link back, or a second link
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        paths = (Path(root, name) for name in files if not name.startswith("."))
        yield from (p for p in paths if p.suffix.lower() in _SUFFIXES and _is_file(p))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, for example
        return False


def annotated_images(folder: Path, annotations: Path) -> dict[Path, str]:
    """Return {image: the text after it in its line of the list, "" for none}.

    Raises ImageFolderError, which names the images that are missing.
    """
    try:
        lines = annotations.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageFolderError(f"the list {annotations} cannot be read: {error}") from error
    # Names are compared, wherever links lead; paths are absolute, so that "." and ".." work.
    root, missing = Path(os.path.normpath(folder.absolute())), []
    found: dict[Path, tuple[Path, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name = line.split()[0]
        words = line.strip()
        path, rest = next(
            (
                (p, words[len(said) :].strip())
                for said in dict.fromkeys((name, words, words.rpartition(" ")[0] or words))
                for end in ("", ".JPEG", ".jpg", ".png")
                if _is_file(p := Path(os.path.normpath(root / (said + end))))
            ),
            (None, ""),
        )
        if path is None:
            missing.append(f"line {number}: {name}")
        elif not path.is_relative_to(root):
            raise ImageFolderError(f"{annotations}, line {number}: {name} is not below {folder}")
        elif path in found:
            raise ImageFolderError(f"{annotations}, line {number}: {name} is listed twice")
        else:
            found[path] = folder / path.relative_to(root), rest
    if missing:
        some = "; ".join(missing[:3])
        raise ImageFolderError(
            f"{len(missing)} of the images that {shown(annotations)} lists are not below "
            f"{folder}: {some}"
        )
    return dict(found.values())


class FolderImages(Dataset):
    """Images from files, with the shorter side resized to 8/7 of the crop's.

    `lib.maps.learned.training` receives a random crop, possibly flipped; evaluation receives the
    centre.

    side    : the crop's side in pixels
    workers : processes that read images, each up to `_AHEAD` batches ahead; 0 reads in this
              process. Their number changes no pixel
    folder  : the folder that contains all images; its location does not identify them
    """

    def __init__(self, paths: Sequence[Path], side: int, workers: int = 0, folder: Path = Path()):
        self.paths, self.side, self.workers, self.folder = list(paths), side, workers, folder
        self._facts: dict = {}

    def __len__(self) -> int:
        return len(self.paths)

    def centre(self, index: int) -> Tensor:
        """Return (3, side, side) in 0-1. Raises ImageFolderError if the image cannot be read."""
        return self[index, 0, None].float().div_(255)

    def __getitem__(self, asked: tuple[int, int, int | None]) -> Tensor:
        """Return (3, side, side) uint8; the epoch None asks for the centre."""
        index, seed, epoch = asked
        if epoch is None:
            image = _resized(self.paths[index], round(self.side * _RESIZE), quick=False)
            return torch.from_numpy(_centre(image, self.side).copy()).permute(2, 0, 1)
        rng = np.random.default_rng([seed, epoch, index])
        image = np.asarray(_resized(self.paths[index], round(self.side * _RESIZE), quick=True))
        top, left = (rng.integers(0, n - self.side + 1) for n in image.shape[:2])
        crop = image[top : top + self.side, left : left + self.side]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)

    def batches(
        self,
        indices: Sequence[np.ndarray],
        seed: int,
        epoch: int | None,
        device: torch.device = _CPU,
    ) -> Iterator[Tensor]:
        """Yield (image, 3, side, side) in 0-1 on a device for each list of indices.

        epoch : with seed and index, it determines crops and flips; None for centres
        Raises ImageFolderError, which names an image that cannot be read, whoever read it.
        """
        asked = [[(int(i), seed, epoch) for i in some] for some in indices]
        loader = DataLoader(
            self, batch_sampler=asked, num_workers=self.workers,
            prefetch_factor=_AHEAD if self.workers else None,
            pin_memory=device.type == "cuda",
        )  # fmt: skip
        try:
            for batch in loader:
                # A copy of bytes is a quarter as long, and from pinned memory nobody waits for it.
                yield batch.to(device, non_blocking=True).float().div_(255)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ImageFolderError(
                f"a process that reads images was ended, perhaps for lack of memory ({error}): "
                "use fewer of them (--readers)"
            ) from error
        except ImageFolderError as error:  # a worker's error contains its whole traceback
            raise ImageFolderError(
                str(error).strip().splitlines()[-1].split("Error: ")[-1]
            ) from None

    def spread(self, count: int) -> np.ndarray:
        """Return evenly spaced positions, because a list is often sorted by class."""
        return np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)

    def some(self, count: int) -> Tensor:
        return torch.stack([self.centre(i) for i in self.spread(count)])

    def apart(self, count: int) -> tuple[FolderImages, FolderImages]:
        """Return all images except `count`, and these, drawn with a fixed seed."""
        return tuple(
            FolderImages([self.paths[i] for i in some], self.side, self.workers, self.folder)
            for some in _apart(len(self), count)
        )

    def facts(self) -> dict:
        if not self._facts:
            # Sizes are omitted: an unreadable file may be repaired before training continues.
            names = "\n".join(os.path.relpath(p, self.folder) for p in self.paths)
            digest = hashlib.sha256(names.encode()).hexdigest()[:16]
            self._facts = {"images": len(self), "names": digest}
        return self._facts


def centre_crop(path: Path, geometry: Preprocessing) -> np.ndarray:
    """Return the centre of an image as a model expects it: (crop, crop, 3) uint8.

    The shorter side is resized (bicubic) and the centre cut out. Raises ImageFolderError.
    """
    resized = _resized(path, geometry.resize, quick=False, by=Image.Resampling.BICUBIC)
    return _centre(resized, geometry.crop)


def _centre(image: Image.Image, side: int) -> np.ndarray:
    pixels = np.asarray(image)
    top, left = ((n - side) // 2 for n in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _resized(
    path: Path, shorter: int, quick: bool, by: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    try:
        image = read_image(path, at_least=(shorter, shorter) if quick else None)
    except ValueError as error:
        raise ImageFolderError(str(error)) from error
    if max(image.size) > _LONGEST * min(image.size):  # resized, it would fill the memory
        raise ImageFolderError(
            f"{path} is too elongated: {image.width} x {image.height} pixels; crop it"
        )
    scale = shorter / min(image.size)
    size = tuple(max(shorter, round(n * scale)) for n in image.size)
    return image.resize(size, by)


def _apart(total: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all positions except `count`, and these, each in order."""
    if not 0 < count <= total - 2:
        raise ValueError(
            f"{count} of {total} images cannot be held out for validation: training needs at "
            "least two others"
        )
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(0).choice(total, count, replace=False)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


class ArrayImages:
    """Images in memory, already of the crop's size, and randomly flipped.

    images : (image, side, side, 3) uint8
    name   : what the record of a training calls them
    """

    def __init__(self, images: np.ndarray, name: str):
        self.images, self.name = torch.from_numpy(images).permute(0, 3, 1, 2), name

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self,
        indices: Sequence[np.ndarray],
        seed: int,
        epoch: int | None,
        device: torch.device = _CPU,
    ) -> Iterator[Tensor]:
        """As for `FolderImages`."""
        flips = np.zeros(len(self), bool)
        if epoch is not None:
            flips = np.random.default_rng([seed, epoch, 1]).random(len(self)) < 0.5
        for some in indices:
            batch = self.images[torch.from_numpy(some)].to(device).float().div_(255)
            flipped = torch.from_numpy(flips[some])[:, None, None, None].to(device)
            yield torch.where(flipped, batch.flip(-1), batch)

    def spread(self, count: int) -> np.ndarray:
        """Return the first images; they are in no particular order."""
        return np.arange(min(count, len(self)))

    def some(self, count: int) -> Tensor:
        return self.images[self.spread(count)].float().div_(255)

    def apart(self, count: int) -> tuple[ArrayImages, ArrayImages]:
        """As for `FolderImages`."""
        return tuple(
            ArrayImages(self.images[some].permute(0, 2, 3, 1).numpy(), self.name)
            for some in _apart(len(self), count)
        )

    def facts(self) -> dict:
        digest = hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]
        return {"images": len(self), "name": self.name, "digest": digest}
