"""The space of a sweep: from dotted settings to points, and from a point to the stages' settings.

A point is `{"generator.density.backbone.hidden": 128, "align": True}`: one value for each axis.
"""

import contextlib
import copy
import difflib
import itertools
import json
from collections.abc import Iterator

from dwf.errors import ConfigError
from dwf.pipeline import STAGES
from dwf.plain import Json, Settings
from dwf.randomness import numpy_stream
from dwf.settings import Overlay, assigned, build, flatten, read_yaml
from dwf.sweeps.config import AxisConfig, SweepConfig
from dwf.trust import code_in, trust_code

SWEPT = tuple(stage for stage in STAGES if stage in SweepConfig.__dataclass_fields__)
"""The stages that sweeps have: those from a zoo to its report."""
FILLED = {stage: (*STAGES[stage].reads, *STAGES[stage].reads_all) for stage in SWEPT}
"""Settings that link the stages; the sweep fills them in."""
FILLED["evaluate"] += ("split",)

Point = dict[str, Json]
Bases = dict[str, dict[str, dict[str, Json]]]
"""Stage -> settings file -> what it says; the first file of a stage is the sweep's own."""


def read_bases(config: SweepConfig) -> Bases:
    """Read the settings files that the sweep and its space name.

    Raises:
        ConfigError: a file is missing or not YAML; or the space names no stage that there is.
    """
    bases: Bases = {}
    for stage in SWEPT:
        own = getattr(config, stage)
        files = [own] if own is not None else []
        if stage in config.axes:
            files += [v for v in config.axes[stage].values if not isinstance(v, bool)]
        bases[stage] = {str(file): read_yaml(str(file), stage) for file in files}
    for key in config.axes:
        _refuse_unknown(key, config)
    return _with_set(bases, config.set)


def _with_set(bases: Bases, texts: tuple[str, ...]) -> Bases:
    """Return what the settings files say, with what the sweep sets in its place."""
    overlays = {
        stage: {file: Overlay(STAGES[stage].config, data) for file, data in files.items()}
        for stage, files in bases.items()
    }
    return assigned(texts, overlays, filled=FILLED)


def trust_named(config: SweepConfig) -> None:
    """Trust the code that a sweep which the user named, or a zoo's settings file of it, names."""
    bases = read_bases(config)
    for point in [{}, *extreme_points(config)]:
        data = settings_of(bases, "zoo", point=point)
        with contextlib.suppress(ConfigError):  # told where the trials are listed
            trust_code(*code_in(build_stage("zoo", data or {}, point=point)))


def _refuse_unknown(key: str, config: SweepConfig) -> None:
    stage, _, rest = key.partition(".")
    if stage not in SWEPT:
        close = difflib.get_close_matches(stage, SWEPT, n=1, cutoff=0.5)
        meant = f"; did you mean {'.'.join(filter(None, [close[0], rest]))!r}?" if close else ""
        raise ConfigError(f"space.{key}: no such stage; there are {', '.join(SWEPT)}{meant}")
    if rest.split(".")[0] in FILLED[stage]:
        raise ConfigError(f"space.{key}: the sweep fills this in; leave it out of the space")
    if key == "zoo.data.path":
        raise ConfigError(
            f"space.{key}: records hold no path: give settings files, one a dataset, as space.zoo"
        )
    if not rest and not config.axes[key].is_list:
        raise ConfigError(f"space.{key}: give a list of settings files, as grid or choice")
    for value in config.axes[key].values if not rest else ():
        if isinstance(value, bool) and (stage != "align" or config.align is None):
            raise ConfigError(
                f"space.{key} has {value}: true and false are for align, where the sweep names a "
                "settings file of it"
            )


def settings_of(bases: Bases, stage: str, *, point: Point) -> dict[str, Json] | None:
    """Return a stage's plain settings at a point, links left out; None: it is left out."""
    chosen = point.get(stage, True)
    if chosen is False or not bases[stage]:
        return None
    file = next(iter(bases[stage])) if chosen is True else str(chosen)
    data = copy.deepcopy(bases[stage][file])
    for key in FILLED[stage]:
        data.pop(key, None)
    for key, value in point.items():
        first, _, rest = key.partition(".")
        if first == stage and rest:
            _put(data, rest, value)
    return data


def _put(data: dict[str, Json], key: str, value: Json) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[last] = value


def build_stage(
    stage: str, data: dict[str, Json], *, point: Point, **links: str | tuple[str, ...]
) -> Settings:
    """Return a stage's settings, held to their ranges.

    Args:
        stage: which.
        data: its settings at the point, see `settings_of`.
        point: gives some of them, which may leave others of them without effect.
        links: what links it to the stages before it.

    Raises:
        ConfigError: as in `settings.build`; names the stage and the setting.
    """
    over = {key.partition(".")[2] for key in point if key.startswith(f"{stage}.")}
    source = f"sweep, stage {stage}"
    return build(STAGES[stage].config, data | links, source=source, over=over)


def listed_points(config: SweepConfig) -> list[Point]:
    """Return the points of `grid` and `random`, in order of their trials, equal ones once."""
    points: dict[str, Point] = {}
    for point in _listed(config):
        points.setdefault(as_text(point), point)
    return list(points.values())


def as_text(point: Point) -> str:
    """Return a text that tells points apart: the same number is so however it is written."""
    return json.dumps({key: _as_number(value) for key, value in point.items()}, sort_keys=True)


def _as_number(value: Json) -> Json:
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _listed(config: SweepConfig) -> list[Point]:
    if config.search == "grid":
        return list(_crossed(config.axes))
    grids = {key: axis for key, axis in config.axes.items() if axis.is_grid}
    drawn = [_draw(config, number) for number in range(config.trials)]
    return [
        {key: (draw | point)[key] for key in config.axes}
        for draw in drawn
        for point in _crossed(grids)
    ]


def extreme_points(config: SweepConfig) -> list[Point]:
    """Return points that together show every listed value and both ends of every range."""
    first = {key: axis.values[0] for key, axis in config.axes.items()}
    return [first | {key: v} for key, axis in config.axes.items() for v in axis.values]


def _crossed(axes: dict[str, AxisConfig]) -> Iterator[Point]:
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))


def _draw(config: SweepConfig, number: int) -> Point:
    point = {}
    for key, axis in config.axes.items():
        stream = numpy_stream(config.seed, "sweep", key, number)
        if not axis.is_grid:
            point[key] = axis.draw(stream)
    return point


def describe_bases(bases: Bases) -> str:
    """Return what the stages' settings files say, a line for each setting."""
    lines = []
    for stage, files in bases.items():
        for file, data in files.items():
            rows = flatten(data)
            width = max(map(len, rows), default=0)
            lines += [f"{stage}: {file}"]
            lines += [f"  {key:<{width}}  {value}" for key, value in rows.items()]
    return "\n".join(lines)
