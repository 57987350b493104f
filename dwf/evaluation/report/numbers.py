"""A report's numbers as columns, for tables in Python: of its sets, or of every network.

Shape suffixes: S networks of a set.
"""

from collections.abc import Mapping, Sequence

from dwf.evaluation.report.sets import NetworkSet
from dwf.plain import Json
from dwf.settings import flatten


def columns_of_sets(sets: Sequence[NetworkSet]) -> dict[str, list[Json]]:
    """Return one value for each set: its title, its family, and all of its summary.

    Inner numbers are called by dotted names, as `test_accuracy.mean`. What a set has none of is
    None.
    """
    rows = [{"set": one.title, "family": one.family} | flatten(one.summary) for one in sets]
    return _columns(rows)


def columns_of_networks(sets: Sequence[NetworkSet]) -> dict[str, list[Json]]:
    """Return one value for each network of each set: set, family, mark, and every measure.

    A measure of several numbers is as many columns: `map_1`, `map_2`.
    """
    rows: list[dict[str, Json]] = []
    for one in sets:
        told = {"set": one.title, "family": one.family, "mark": one.mark}
        rows += [told | _measures(one.networks, number) for number in range(one.n)]
    return _columns(rows)


def _measures(networks: Mapping[str, Sequence[Json]], number: int) -> dict[str, Json]:
    """Return name -> number of one network."""
    found: dict[str, Json] = {}
    for name, values_S in networks.items():
        value = values_S[number]
        if isinstance(value, (list, tuple)):
            found |= {f"{name}_{place}": part for place, part in enumerate(value, start=1)}
        else:
            found[name] = value
    return found


def _columns(rows: Sequence[Mapping[str, Json]]) -> dict[str, list[Json]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
