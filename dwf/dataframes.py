"""Tables as pandas DataFrames; pandas is imported when one is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dwf.plain import Json

if TYPE_CHECKING:
    import pandas


def dataframe(
    columns: Mapping[str, np.ndarray | Sequence[Json]], index: str | None = None
) -> "pandas.DataFrame":
    """Return columns as a DataFrame.

    Args:
        columns: name -> one value for each row.
        index: name of the rows' numbers, from 0.
    """
    import pandas

    made = pandas.DataFrame(dict(columns))
    made.index.name = index
    return made
