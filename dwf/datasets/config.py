"""Settings of a dataset."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dwf.checked import Checked
from dwf.plain import Json
from dwf.settings import Bounds, Count, Fraction, Whole

Label = int | str
"""A class as it stands in its source: a number or a word."""
Scaling = Literal["unit", "symmetric", "standard"]

TEST_SHARE = 0.2
"""Share of the rows that becomes the test part where a dataset has none of its own."""


@dataclass(frozen=True)
class DataSettings(Checked):
    """How any dataset is cut, and how it is prepared for a network."""

    kind: str
    """Kind of the dataset."""
    validation: Fraction = 0.1
    """Share of the training images that is held out for choices; below 1."""
    seed: Whole = 0
    """Seed of that cut (and, where there is no test part, of the cut into training and test)."""
    scaling: Scaling = "unit"
    """`unit`: into [0, 1] (ToTensor; tables by the training rows' minimum and maximum);
    `symmetric`: into [-1, 1] likewise; `standard`: mean 0, deviation 1 over the training part, per
    channel or feature."""
    grey: bool = False
    """Colour images become one channel, their luminance (ITU-R BT.601)."""
    size: Count | None = None
    """Pixels of a side that images are made smaller to, by the mean over the area that each new
    pixel covers (14 for MNIST: blocks of 2 x 2); default: as published."""
    train_images: Count | None = None
    """Train on so many of the training images, drawn by the seed; default: all."""
    test_images: Count | None = None
    """Test on so many of the test images, drawn by the seed; default: all."""
    classes: tuple[Label, ...] | None = None
    """Labels whose images are kept in every part; they become 0, 1, ... in the order given here;
    default: all."""

    def __post_init__(self) -> None:
        """Refuse classes that are no choice of classes."""
        if self.classes is None:
            return
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(
                f"classes = {list(self.classes)}: give at least two labels, each once, or leave "
                "classes out to keep all"
            )

    @property
    def published(self) -> str | None:
        """Key of a published dataset among `sources.published`; None of the user's own."""
        return None

    @property
    def source(self) -> str:
        """The dataset in a word or two, whole and unprepared."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The dataset in words, with size of images and classes where these are not all of it."""
        size = f" at {self.size} x {self.size}" if self.size else ""
        some = f", classes {' '.join(map(str, self.classes))}" if self.classes else ""
        return f"{self.source}{size}{some}"


@dataclass(frozen=True)
class DataConfig(DataSettings):
    """Published data that any machine gets, also from package mirrors."""

    kind: Literal["mnist", "fashion_mnist", "cifar10", "iris", "digits"]
    """Dataset."""

    @property
    def published(self) -> str:
        """The dataset's key."""
        return self.kind

    @property
    def source(self) -> str:
        """The dataset's name."""
        return self.kind


@dataclass(frozen=True)
class TorchvisionConfig(DataSettings):
    """Published data in the official files that torchvision knows; and Tiny-ImageNet."""

    kind: Literal["torchvision"] = "torchvision"
    """Published data in the official files that torchvision knows."""
    name: Literal["cifar100", "svhn", "stl10", "emnist", "kmnist", "tiny_imagenet"] = (
        dataclasses.field(kw_only=True)
    )
    """Dataset."""
    split: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] | None = None
    """Split of EMNIST, which has six; other datasets have none."""

    def __post_init__(self) -> None:
        """Refuse a split of what has none, and EMNIST without one."""
        super().__post_init__()
        if (self.name == "emnist") != (self.split is not None):
            raise ValueError(
                f"split = {self.split}: emnist has the splits balanced, byclass, bymerge, digits, "
                "letters and mnist: give one of them; other datasets have none: leave it out"
            )

    @property
    def published(self) -> str:
        """The dataset's key, which is also its folder's name in the cache."""
        return f"{self.name}_{self.split}" if self.split else self.name

    @property
    def source(self) -> str:
        """The dataset's name, with its split."""
        return f"{self.name} {self.split}" if self.split else self.name


@dataclass(frozen=True)
class OwnSettings(DataSettings):
    """How data of the user's own are found again: by the digest of their bytes."""

    name: str | None = None
    """Name that zoos record, and by which a path is given later; default: the file's."""
    path: Path | None = None
    """File or folder of the data, from where the command is given or from `$DWF_DATA`; zoos do not
    record it."""
    sha256: str | None = None
    """Digest that the data must have; zoos record it; default: whatever is there."""

    def __post_init__(self) -> None:
        """Refuse data that nothing names, and names that are none."""
        super().__post_init__()
        if not self.source:
            raise ValueError("path is missing: give the file or folder of the data")
        if Path(self.source).name != self.source:
            raise ValueError(f"name = {self.source!r}: give a name without folders")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 = {self.sha256!r}: expected 64 hexadecimal digits")

    @property
    def source(self) -> str:
        """The data's name."""
        return self.name or (self.path.name if self.path else "")

    @property
    def has_file(self) -> bool:
        """Whether the data lie in a file or folder."""
        return True

    @property
    def largest_value(self) -> int:
        """The largest value that a pixel can have, which becomes 1 in [0, 1]."""
        return 255

    @property
    def reading(self) -> dict[str, Json]:
        """The settings beside the bytes that decide what is decoded from them."""
        return {"kind": self.kind, "size": self.size}


@dataclass(frozen=True)
class ArraysConfig(OwnSettings):
    """Own images or tables in an `.npz` file."""

    kind: Literal["arrays"] = "arrays"
    """Own images or tables in an `.npz` file: x_train, y_train and, if you like, x_test, y_test."""
    largest: Annotated[int, Bounds(1, 255)] = 255
    """Largest value that a pixel can have, which becomes 1 in [0, 1]."""

    @property
    def largest_value(self) -> int:
        """The settings' own."""
        return self.largest


@dataclass(frozen=True)
class FolderConfig(OwnSettings):
    """Own images in a folder for each class."""

    kind: Literal["folder"] = "folder"
    """Own images in a folder for each class, or a zip or tar file of such folders."""


@dataclass(frozen=True)
class TableConfig(OwnSettings):
    """Own rows of numbers, or a table of scikit-learn's."""

    kind: Literal["table"] = "table"
    """Own rows of numbers, in a CSV or Parquet file; or a table of scikit-learn's."""
    loader: str | None = None
    """Table of scikit-learn's in place of a path: `wine` is `load_wine`, `covtype`
    `fetch_covtype`."""
    target: str | None = None
    """Column of the labels; default: the last."""
    test: str | None = None
    """Column that is true, or 1, in the rows of the test part; default: none."""
    features: tuple[str, ...] | None = None
    """Columns that networks see; default: all others."""

    def __post_init__(self) -> None:
        """Refuse two sources, and columns of what has none."""
        super().__post_init__()
        if self.loader is None:
            return
        if self.path is not None:
            raise ValueError(f"path and loader = {self.loader!r}: give one of them")
        columns = (self.target, self.test, self.features)
        if any(column is not None for column in columns):
            raise ValueError(
                f"loader = {self.loader!r} says itself which numbers are labels: leave target, "
                "test and features out"
            )

    @property
    def source(self) -> str:
        """The data's name."""
        return self.name or self.loader or super().source

    @property
    def has_file(self) -> bool:
        """Whether the data lie in a file: those of a loader do not."""
        return self.loader is None

    @property
    def reading(self) -> dict[str, Json]:
        """The columns, beside the size, which a table refuses."""
        features = list(self.features) if self.features is not None else None
        columns = {"target": self.target, "test": self.test, "features": features}
        return super().reading | {"loader": self.loader} | columns


AnyDataConfig = DataConfig | TorchvisionConfig | ArraysConfig | FolderConfig | TableConfig

OWN = {
    "arrays": "dwf.datasets.arrays:read_arrays",
    "folder": "dwf.datasets.folder:read_folder",
    "table": "dwf.datasets.table:read_table",
}
"""Kind of the user's own data -> what reads them: (settings, path) -> `own.Decoded`."""
