"""Reader of the user's own tables, in CSV or Parquet files, and of scikit-learn's.

Shape suffixes: A rows of a table, F features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dwf.datasets.config import TableConfig
from dwf.datasets.labels import relabelled
from dwf.datasets.own import Decoded
from dwf.errors import ConfigError, DataUnavailable
from dwf.files import refuse_irregular

if TYPE_CHECKING:
    from pandas import DataFrame, Series

_ENDINGS = {".csv": "read_csv", ".parquet": "read_parquet"}


def read_table(config: TableConfig, path: Path | None) -> Decoded:
    """Read rows of numbers and a column of labels.

    A test part is the rows that the column `test` marks; or, where `path` is a folder that holds
    `train` and `test` tables, the second file.

    Args:
        config: the columns.
        path: a CSV or Parquet file, or such a folder; None where scikit-learn has the table.

    Raises:
        ConfigError: a column is missing, holds no numbers or none in some rows; labels are missing
            or measurements; scikit-learn has no such table.
        DataUnavailable: scikit-learn could not fetch it.
    """
    if path is None:
        x_AF, y_A = _load(config.loader)
        y_A, _, labels = relabelled(y_A, None, what=config.loader)
        return Decoded({"x_train": x_AF, "y_train": y_A}, labels)
    parts = _tables(config, path)
    target = config.target or str(parts["train"].columns[-1])
    features = config.features or _all_but(target, parts, path)
    arrays, words = {}, {}
    for part, table in parts.items():
        what = f"{path}" if len(parts) == 1 or path.is_file() else f"{path}/{part}"
        words[part] = _labels(_column(table, target, what), f"{what}: {target}")
        arrays[f"x_{part}"] = _features(table, features, target=target, what=what)
    train, test, labels = relabelled(words["train"], words.get("test"), what=f"{path}: {target}")
    arrays |= {"y_train": train} | ({} if test is None else {"y_test": test})
    return Decoded(arrays, labels)


def _all_but(target: str, parts: dict[str, "DataFrame"], path: Path) -> list[str]:
    """Return the columns beside the labels, in the order of the training table."""
    every = list(parts["train"].columns)
    if any(set(table.columns) != set(every) for table in parts.values()):
        raise ConfigError(f"{path}: train and test tables have different columns: make them alike")
    unnamed = [name for name in every if name.startswith("Unnamed: ") and name != target]
    if unnamed:
        raise ConfigError(
            f"{path}: column {every.index(unnamed[0]) + 1} has no name, as numbers of rows have "
            "none: remove it, or name the columns that networks see in data.features"
        )
    return [name for name in every if name != target]


def _tables(config: TableConfig, path: Path) -> dict[str, "DataFrame"]:
    if path.is_dir():
        if config.test is not None:
            raise ConfigError(
                f"data.test = {config.test!r}: the test part of {path} is a file of its own: leave "
                "test out"
            )
        return {part: _read_file(_file_of(path, part)) for part in ("train", "test")}
    table = _read_file(path)
    if config.test is None:
        return {"train": table}
    marks = _column(table, config.test, str(path))
    if not marks.isin([0, 1]).all():
        raise ConfigError(
            f"data.test = {config.test!r}: the column has other values than 0 and 1 (or false and "
            "true): give 1 in the rows of the test part"
        )
    is_test, rest = marks.astype(bool), table.drop(columns=config.test)
    if is_test.all() or not is_test.any():
        raise ConfigError(f"data.test = {config.test!r}: the column cuts no row from the others")
    return {"train": rest[~is_test], "test": rest[is_test]}


def _file_of(folder: Path, part: str) -> Path:
    for ending in _ENDINGS:
        if (folder / f"{part}{ending}").exists():
            return folder / f"{part}{ending}"
    raise ConfigError(f"{folder} has no {part}.csv or {part}.parquet: give both parts, or one file")


def _read_file(path: Path) -> "DataFrame":
    import pandas

    if path.suffix not in _ENDINGS:
        raise ConfigError(f"{path}: expected a file .csv or .parquet")
    refuse_irregular(path)
    try:
        table = getattr(pandas, _ENDINGS[path.suffix])(path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    except ImportError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not len(table):
        raise ConfigError(f"{path} has no rows")
    table.columns = [str(name) for name in table.columns]
    _refuse_no_header(table, path)
    return table


def _refuse_no_header(table: "DataFrame", path: Path) -> None:
    """Raise where the names of columns are none: a row of numbers, or cut at the wrong sign."""
    names = list(table.columns)
    counted = [[str(i + first) for i in range(len(names) - 1)] for first in (0, 1)]
    if names[:-1] and names[:-1] not in counted and all(map(_is_number, names[:-1])):
        raise ConfigError(
            f"{path} begins with the numbers {', '.join(names[:3])}: give it a first line with the "
            "names of the columns"
        )
    sign = next((sign for sign in ";\t|" if sign in names[0]), None)
    if len(names) == 1 and sign:
        raise ConfigError(
            f"{path} has a single column, {names[0]!r}: part the columns by commas, not {sign!r}"
        )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _column(table: "DataFrame", name: str, what: str) -> "Series":
    if name not in table.columns:
        raise ConfigError(f"{what} has no column {name!r}; it has {', '.join(table.columns)}")
    return table[name]


def _labels(column: "Series", what: str) -> np.ndarray:
    missing = int(column.isna().sum())
    if missing:
        raise ConfigError(f"{what} is missing in {missing} of {len(column)} rows: leave them out")
    values = column.to_numpy()
    is_number = values.dtype.kind in "iubf"
    return values if is_number else column.astype(str).to_numpy(dtype=str)


def _features(table: "DataFrame", names: Sequence[str], *, target: str, what: str) -> np.ndarray:
    """Return the columns that networks see, in this order: float32 [A, F]."""
    if target in names or not len(names):
        raise ConfigError(
            f"{what}: features are {', '.join(names) or 'none'}, labels are {target!r}"
        )
    for name in names:
        column = _column(table, name, what)
        if column.to_numpy().dtype.kind not in "iubf":
            raise ConfigError(
                f"{what}: column {name!r} holds {column.dtype}, such as {column.iloc[0]!r}: give "
                "numbers, or name the other columns in data.features"
            )
        broken = int((~np.isfinite(column.to_numpy(dtype=np.float64))).sum())
        if broken:
            raise ConfigError(
                f"{what}: column {name!r} is missing or not finite in {broken} of {len(column)} "
                "rows: fill or leave them out"
            )
    return np.ascontiguousarray(table[list(names)].to_numpy(dtype=np.float32))


# --- scikit-learn's ----------------------------------------------------------------------------


def _load(loader: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what scikit-learn's loader or fetcher of that name gives: float32 [A, F], labels."""
    from sklearn import datasets

    ways = [name for name in (f"load_{loader}", f"fetch_{loader}") if name in datasets.__all__]
    if not ways:
        known = ", ".join(n.partition("_")[2] for n in datasets.__all__ if n.startswith("load_"))
        raise ConfigError(
            f"data.loader = {loader!r}: scikit-learn has no load_{loader} or fetch_{loader}; it "
            f"has {known}, and its fetchers"
        )
    try:
        x, y = vars(datasets)[ways[0]](return_X_y=True)
    except TypeError:
        raise ConfigError(f"data.loader = {loader!r}: {ways[0]} gives no table by itself") from None
    except OSError as error:
        raise DataUnavailable(f"{loader}: scikit-learn cannot fetch it here ({error})") from None
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind not in "iubf":
        raise ConfigError(f"data.loader = {loader!r}: {ways[0]} gives no table of numbers")
    if not np.isfinite(x).all():
        raise ConfigError(f"data.loader = {loader!r}: the table has values that are not finite")
    return x.astype(np.float32), np.asarray(y)
