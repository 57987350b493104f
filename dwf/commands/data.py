"""Data sets, fetched before they are needed."""

import time
from typing import Annotated

from dwf.arguments import Argument

Kinds = Annotated[tuple[str, ...], Argument(is_positional=True, metavar="KIND")]


def data(kinds: Kinds) -> None:
    """Fetch and verify data sets, or say that they are there; after that nothing needs a network.

    They go into `$DWF_DATA`, by default `dwf` in the user's cache folder.

    Args:
        kinds: names of data sets, as mnist; a wrong one lists all.
    """
    from dwf.datasets.cache import data_folder
    from dwf.datasets.load import by_name, load_dataset
    from dwf.errors import ConfigError

    known = by_name()
    wrong = [kind for kind in kinds if kind not in known]
    if wrong or not kinds:
        told = f"{wrong[0]}: no such data set" if wrong else "no data set was named"
        raise ConfigError(f"{told}; there are {', '.join(known)}")
    for kind in kinds:
        started = time.monotonic()
        found = load_dataset(known[kind])
        print(
            f"{kind}: {len(found.train)} + {len(found.val)} + {len(found.test)} of shape "
            f"{list(found.shape)}, verified, in {data_folder() / kind} "
            f"({time.monotonic() - started:.2f} s)"
        )
