"""Reader of the user's own images: a folder for each class, or an archive of such folders.

Shape suffixes: A images of an array, C channels, H height, W width, S side of smaller images.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dwf.datasets.config import FolderConfig
from dwf.datasets.labels import relabelled
from dwf.datasets.own import Decoded
from dwf.datasets.resize import resize
from dwf.datasets.tree import Tree, open_tree
from dwf.errors import ConfigError
from dwf.files import refuse_inflation
from dwf.metrics import Progress
from dwf.plain import as_text

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("dwf")

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_GREY = ("1", "L", "LA")
_COLOURED = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class _Looks:
    """Looks that all images of the data share."""

    channels: int
    height: int
    width: int


def read_folder(config: FolderConfig, path: Path) -> Decoded:
    """Read images of a folder for each class; below `train/` and `test/`, if there is a test part.

    Classes are numbered by the alphabet of their folders, and images ordered by their names. Images
    are grey where all are, else of three colours; `size` makes each smaller as it is read.

    Raises:
        ConfigError: there are no class folders, one is empty, an image is damaged, or images are of
            mixed size and the settings give none.
    """
    with open_tree(path) as tree:
        tree = _below_single(tree)
        parts = _parts(tree)
        files = {part: _files_of(below, path) for part, below in parts.items()}
        looks = _looks(parts, files, config)
        arrays = {}
        for part, below in parts.items():
            names = [name for name, _ in files[part]]
            arrays[f"x_{part}"] = _decode(below, names, looks=looks, size=config.size)
    of_class = {part: np.array([label for _, label in found]) for part, found in files.items()}
    train, test, labels = relabelled(of_class["train"], of_class.get("test"), what=str(path))
    arrays |= {"y_train": train} | ({} if test is None else {"y_test": test})
    return Decoded(arrays, labels)


def _below_single(tree: Tree) -> Tree:
    """Go down where all files lie in one folder, as archives often have it."""
    while len(tree.folders) == 1 and all("/" in name for name in tree.names):
        (folder,) = tree.folders
        if folder == "train":
            return tree
        tree = tree.below(folder)
    return tree


def _parts(tree: Tree) -> dict[str, Tree]:
    if "train" not in tree.folders:
        return {"train": tree}
    return {part: tree.below(part) for part in ("train", "test") if part in tree.folders}


def _files_of(tree: Tree, path: Path) -> list[tuple[str, str]]:
    """Return (file, class) of every image, classes in the order of the alphabet."""
    found, others = [], 0
    for folder in sorted(tree.folders):
        images = [n for n in tree.below(folder).names if n.lower().endswith(ENDINGS)]
        others += len(tree.below(folder).names) - len(images)
        if not images:
            raise ConfigError(
                f"{path}: class {folder} has no images: remove its folder, or fill it"
            )
        found += [(f"{folder}/{name}", as_text(folder)) for name in images]
    if not found:
        raise ConfigError(
            f"{path} has no class folders: put the images of each class into a folder of its own"
        )
    if others:
        logger.info("%s: %d files that are no images are left out", path, others)
    return found


def _looks(
    parts: dict[str, Tree], files: dict[str, list[tuple[str, str]]], config: FolderConfig
) -> _Looks:
    """Return what images have in common, from their headers alone."""
    every = [(parts[part], name) for part, found in files.items() for name, _ in found]
    sizes: dict[tuple[int, int], str] = {}
    is_grey = True
    for tree, name in every:
        image = _open(tree, name)
        sizes.setdefault((image.height, image.width), name)
        is_grey &= image.mode in _GREY
    if len(sizes) > 1 and not config.size:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise ConfigError(
            f"{tree.path}: images are of {len(sizes)} sizes, {first} of {one[0]} x {one[1]} and "
            f"{second} of {other[0]} x {other[1]}: give data.size, the side of the smaller images"
        )
    smallest, name = min((min(size), name) for size, name in sizes.items())
    if config.size and smallest < config.size:
        raise ConfigError(
            f"data.size = {config.size}: {tree.path / name} has a side of {smallest} pixels, and "
            f"images become only smaller: give at most {smallest}"
        )
    height, width = (config.size, config.size) if config.size else next(iter(sizes))
    return _Looks(1 if is_grey else 3, height, width)


def _open(tree: Tree, name: str) -> "Image":
    from PIL import Image

    content = tree.read(name)
    try:
        image = Image.open(io.BytesIO(content))
        num_bytes = image.width * image.height * len(image.getbands())
        refuse_inflation(len(content), num_bytes, what="pixels")
    except Exception as error:  # what altered bytes raise depends on where they lie
        why = str(error).partition(" <_io")[0]  # without the place in memory
        raise ConfigError(f"{tree.path}: {name} is no image that can be read ({why})") from None
    if image.mode not in (*_GREY, *_COLOURED):
        raise ConfigError(
            f"{tree.path}: {name} has pixels of mode {image.mode}: give images of bytes, grey or "
            "of three colours"
        )
    return image


def _decode(tree: Tree, names: Sequence[str], *, looks: _Looks, size: int | None) -> np.ndarray:
    """Return images as uint8 [A, C, H, W]."""
    images_ACHW = np.empty((len(names), looks.channels, looks.height, looks.width), np.uint8)
    with Progress(f"decode {tree.path.name}", len(names), unit="images") as progress:
        for i, name in enumerate(names):
            pixels_CHW = _pixels(tree, name, channels=looks.channels)
            images_ACHW[i] = resize(pixels_CHW[None], size)[0] if size else pixels_CHW
            progress.update(i + 1)
    return images_ACHW


def _pixels(tree: Tree, name: str, *, channels: int) -> np.ndarray:
    image = _open(tree, name)
    try:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # as above
        raise ConfigError(f"{tree.path}: {name} is damaged ({error})") from None
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
