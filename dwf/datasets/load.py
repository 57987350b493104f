"""Load a dataset, cut and scaled as its settings say.

Fetches them first where this machine has not got them; `dwf data mnist` does that beforehand.

Shape suffixes: A images of a stored array, M images of a part, F features, C channels.
"""

import typing

import torch

from dwf.datasets.cache import open_arrays, open_resized
from dwf.datasets.config import (
    TEST_SHARE,
    AnyDataConfig,
    DataConfig,
    DataSettings,
    OwnSettings,
    TorchvisionConfig,
)
from dwf.datasets.dataset import LUMINANCE, Dataset, Part, luminance
from dwf.datasets.formats import Arrays
from dwf.datasets.own import facts_of_arrays, open_own
from dwf.datasets.sources import Known, published
from dwf.errors import ConfigError
from dwf.randomness import numpy_stream

_ROWS_AT_ONCE = 4096
_LABELS_SHOWN = 12


def load_dataset(config: AnyDataConfig) -> Dataset:
    """Return a dataset; fetch or decode it first where this machine has not got it.

    The test part is the published one, or that of the user's own data. Where there is none, as of
    Iris and digits, 20 % of the rows, in proportion to the classes, are cut for it (scikit-learn's
    `train_test_split` with `random_state=seed`, so seed 42 is the published cut of Iris). Val is
    cut at random from what is left. The same settings give the same cut anywhere. Where the
    settings name classes, images of others are left out before all this, and labels are the places
    of the classes in that list.

    `unit` scales images by 1 / their largest value and tables by the minimum and maximum of the
    training rows; `symmetric` stretches that to [-1, 1]; `standard` takes mean and deviation of the
    training part, without val and test, per channel of images and per feature of tables. Images are
    resized (see resize.py) before all that.

    Raises:
        DataUnavailable: no source has it, or its bytes are others than they must be.
        ConfigError: own data are not what their kind must be (see `own`); nothing is left to train
            on; a part has fewer images than are asked for; a class that the dataset has not got;
            grey images of what has no colours; or another size of what has no images, or smaller
            ones.
    """
    arrays, facts = _stored(config)
    images = arrays["x_train"]
    labels, rest = _picked(arrays["y_train"], config, facts=facts)
    if "x_test" in arrays:
        test_labels, test_rows = _picked(arrays["y_test"], config, facts=facts)
        test = Part(arrays["x_test"], test_labels, index=test_rows)
    else:
        rest, test_rows = _cut_test(labels, rest, config=config)
        test = Part(images, labels, index=test_rows)
    train_rows, val_rows = _cut_val(rest, config)
    train = _some(Part(images, labels, index=train_rows), "train", config.train_images, config)
    test = _some(test, "test", config.test_images, config)
    if config.grey and images.shape[1:2] != (len(LUMINANCE),):
        raise ConfigError(f"grey = true: {config.source} has no colour images; leave it out")
    scale, shift = _scaling(train, facts.largest, config)
    val = Part(images, labels, index=val_rows)
    return Dataset(
        train,
        val,
        test=test,
        num_classes=len(config.classes or facts.labels),
        scale=scale,
        shift=shift,
        grey=config.grey,
    )


def _stored(config: AnyDataConfig) -> tuple[dict[str, torch.Tensor], Known]:
    """Return the stored arrays, mapped, and what is known of them."""
    if isinstance(config, OwnSettings):
        stored = open_own(config)
        facts = facts_of_arrays(config, stored)
    else:
        key, facts = config.published, published(config.published)
        stored = open_resized(key, config.size) if config.size else open_arrays(key)
    return _tensors(stored), facts


def _tensors(stored: Arrays) -> dict[str, torch.Tensor]:
    return {n: torch.from_numpy(array) for n, array in stored.items() if n[:2] in ("x_", "y_")}


def _picked(
    labels_A: torch.Tensor, config: DataSettings, *, facts: Known
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (labels of the classes picked, -1 of others; rows to keep, ascending): int64."""
    if config.classes is None:
        return labels_A, torch.arange(len(labels_A))
    unknown = [label for label in config.classes if label not in facts.labels]
    if unknown:
        few = ", ".join(map(str, facts.labels[:_LABELS_SHOWN]))
        more = f" and {rest} more" if (rest := len(facts.labels) - _LABELS_SHOWN) > 0 else ""
        raise ConfigError(
            f"classes: {unknown[0]!r} is no label of {config.source}, which has {few}{more}"
        )
    place = torch.full((len(facts.labels),), -1)
    picked = [facts.labels.index(label) for label in config.classes]
    place[torch.tensor(picked)] = torch.arange(len(picked))
    placed_A = place[labels_A]
    return placed_A, (placed_A >= 0).nonzero().flatten()


def _some(part: Part, name: str, count: int | None, config: DataSettings) -> Part:
    """Return as many images of a part as the settings ask for, in ascending order."""
    if count is None:
        return part
    if count > len(part):
        raise ConfigError(
            f"{name}_images = {count}: the {name} part of {config.source} has {len(part)} "
            f"(validation = {config.validation:g} is cut off first): give at most so many, "
            "or leave it out"
        )
    order = torch.from_numpy(numpy_stream(config.seed, f"{name} images").permutation(len(part)))
    return Part(part.images, part.labels, index=part.index[order[:count]].sort().values)


def _cut_test(
    labels: torch.Tensor, rows: torch.Tensor, *, config: DataSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.model_selection import train_test_split

    try:
        rest, test = train_test_split(
            rows.numpy(),
            test_size=TEST_SHARE,
            stratify=labels[rows].numpy(),
            random_state=config.seed % 2**32,
        )
    except ValueError as error:  # fewer rows than classes, in the data or in the part
        raise ConfigError(
            f"{config.source}: no test part can be cut from {len(rows)} rows ({error}): give more "
            "rows, or a test part"
        ) from None
    return torch.from_numpy(rest), torch.from_numpy(test).sort().values


def _cut_val(rest: torch.Tensor, config: DataSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut rows of a stored array into training and val, each in ascending order."""
    num_val = round(config.validation * len(rest))
    if num_val == len(rest):
        raise ConfigError(
            f"validation = {config.validation} leaves none of the {len(rest)} training images of "
            f"{config.source} to train on: give a smaller share, 0.1 for example"
        )
    order = torch.from_numpy(numpy_stream(config.seed, "validation").permutation(len(rest)))
    return rest[order[num_val:]].sort().values, rest[order[:num_val]].sort().values


def _scaling(
    train: Part, largest: float | None, config: DataSettings
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (scale, shift) with prepared = stored * scale + shift, float32."""
    if largest is None:
        centre, spread = _statistics_of_table(train, config.scaling)
    elif config.scaling == "unit":
        return torch.tensor(1 / largest), None
    elif config.scaling == "symmetric":
        return torch.tensor(2 / largest), torch.tensor(-1.0)
    else:
        centre, spread = _statistics_of_images(train, config.grey)
    scale = 1 / torch.where(spread > 0, spread, 1.0)  # a constant feature is only centred
    return scale.float(), (-centre * scale).float()


def _statistics_of_table(train: Part, scaling: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what becomes 0, and the distance from there that becomes 1: float64, shape [F]."""
    rows_MF = train.images[train.index].double()
    if scaling == "standard":
        return rows_MF.mean(0), rows_MF.std(0, correction=0)
    low_F, high_F = rows_MF.aminmax(dim=0)
    if scaling == "unit":
        return low_F, high_F - low_F
    return (low_F + high_F) / 2, (high_F - low_F) / 2


def _statistics_of_images(train: Part, grey: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation per channel: float64, shape [C, 1, 1]."""
    if grey:
        return _statistics_of_grey(train)
    values = torch.arange(256, dtype=torch.float64)
    means, deviations = [], []
    for channel in range(train.images.shape[1]):  # exact, from counts
        stored = train.images[:, channel].index_select(0, train.index)
        share = torch.bincount(stored.flatten(), minlength=256).double() / stored.numel()
        mean = share @ values
        means.append(mean)
        deviations.append((share @ (values - mean) ** 2).sqrt())
    return torch.stack(means)[:, None, None], torch.stack(deviations)[:, None, None]


def _statistics_of_grey(train: Part) -> tuple[torch.Tensor, torch.Tensor]:
    total = squares = torch.zeros((), dtype=torch.float64)
    for rows in train.index.split(_ROWS_AT_ONCE):
        values = luminance(train.images.index_select(0, rows)).double()
        total, squares = total + values.sum(), squares + values.square().sum()
    count = len(train) * train.images[0, 0].numel()
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.view(1, 1, 1), deviation.view(1, 1, 1)


def by_name() -> dict[str, AnyDataConfig]:
    """Return every published dataset as it is published, by its name."""
    hints = typing.get_type_hints(TorchvisionConfig)
    split = typing.get_args(typing.get_args(hints["split"])[0])
    every = [
        DataConfig(kind) for kind in typing.get_args(typing.get_type_hints(DataConfig)["kind"])
    ]
    for name in typing.get_args(hints["name"]):
        splits = split if name == "emnist" else (None,)
        every += [TorchvisionConfig(name=name, split=one) for one in splits]
    return {config.published: config for config in every}
