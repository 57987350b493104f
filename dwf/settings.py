"""Settings: frozen dataclasses <- a strict YAML file <- flags. The only parser.

Precedence: defaults < the file that a file extends < the file < flags. A field's type is its
contract: `Literal` and `Bounds` say what is allowed, a union of dataclasses is chosen by `kind:`.
No torch is imported here.
"""

import contextlib
import dataclasses
import importlib
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

from tyro.conf import UseAppendAction

from dwf.data_paths import give_data
from dwf.errors import ConfigError
from dwf.flags import flag_of, without
from dwf.plain import Json
from dwf.trackers import NONE, TrackerName, by_default, recorded_in, track_with
from dwf.trust import code_in, trust_code
from dwf.yaml_files import laid_over, nearest, read_chain

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """The range of a number: `low <= value <= high`, or `low < value` where `open` is set."""

    low: float
    high: float = float("inf")
    open: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open else self.low <= value
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        lower = f"{'above' if self.open else 'at least'} {self.low:g}"
        return lower if self.high == float("inf") else f"{lower}, at most {self.high:g}"


Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, open=True)]
NonNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
PositiveFraction = Annotated[float, Bounds(0, 1, open=True)]


@dataclass(frozen=True)
class Launch:
    """Flags that every command has."""

    config: Path
    """YAML file of the settings (the science)."""
    name: str | None = None
    """Name of the folder written; default: the configuration file's stem."""
    root: Path = Path()
    """Folder that holds zoos/, runs/ and reports/."""
    dry_run: bool = False
    """Print the plan and the merged settings with the origin of each; touch nothing."""
    resume: bool = False
    """Take the settings from the folder called --name instead of from a file, and go on."""
    trust_code: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Code that may be imported though a folder names it, as `package.module:factory`."""
    data_path: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Place of own data that a zoo names, as `NAME=FILE`."""
    track: tuple[TrackerName, ...] = ()
    """Tools that show the run's numbers beside `metrics.jsonl`; default: tensorboard, where it is
    installed; `none` turns that off. In a file of settings it is `compute.track`. With --resume,
    those that it was begun with."""


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """A command line, understood."""

    config: T
    launch: Launch
    origins: dict[str, str]
    """Dotted key -> `default`, `flag`, `file`, or, of a file that it extends, that one's name."""
    named: str = ""
    """Name of the run without `--name`, with settings in braces, as `{zoo}-aligned`; empty: the
    configuration file's stem."""

    @property
    def name(self) -> str:
        """The name of the folder written."""
        return self.launch.name or self.named.format(**vars(self.config)) or self.launch.config.stem

    def describe(self) -> str:
        """Return the merged settings, one line each, with where each value came from."""
        rows, from_where = flatten(to_dict(self.config)), self.origins.get
        rows[TRACK] = list(self.launch.track)
        width = max(map(len, rows))
        lines = (f"  {k:<{width}}  {v}  ({from_where(k, 'default')})" for k, v in rows.items())
        return "\n".join(lines)


def build(
    cls: type[T],
    data: Json,
    *,
    source: str,
    origins: Mapping[str, str] | None = None,
    key: str = "",
) -> T:
    """Make a settings object from plain data, strictly.

    Args:
        cls: a frozen dataclass, or another type that a setting can have.
        data: nested dictionaries, lists and scalars, as YAML gives them.
        source: the file's name, for errors.
        origins: dotted key -> the file that holds it, where that is another one.
        key: where in the file the data stand, for errors.

    Raises:
        ConfigError: unknown key, wrong type, value not allowed or a required key missing; names
            the source, the dotted key, the value, what is allowed and the nearest name.
    """
    return _convert(data, cls, _Source(source, origins or {}), key)


def load(cls: type[T], path: Path | str) -> T:
    """Read a YAML file that the user named into a settings object; code that it names is trusted.

    Trackers that it names are not begun: from Python, that is `trackers.track_with`.

    Raises:
        ConfigError: as in `read_yaml` and `build`.
    """
    data, origins = _read_merged(Path(path))
    _take_track(data, _Source(str(path), origins))
    config = build(cls, data, source=str(path), origins=origins)
    trust_code(*code_in(config))
    return config


def read_yaml(path: Path | str) -> dict[str, Json]:
    """Read a YAML file that holds one mapping, laid over the file that it extends, if any.

    `extends: FILE` names a file, relative to the one that says it. Mappings are merged, key by key
    and however deep; any other value, a list too, takes the place of the one there. Where the two
    files give a part (a codec, a dataset) different kinds, the part is the extending file's alone:
    none of the other kind's settings are left in it. What the file says of trackers is left out.

    Raises:
        ConfigError: no such file, not YAML, or files extend each other in a circle.
    """
    data, origins = _read_merged(Path(path))
    _take_track(data, _Source(str(path), origins))
    return data


def _read_merged(path: Path) -> tuple[dict[str, Json], dict[str, str]]:
    """Return what a file and those that it extends say, and the file of each dotted key."""
    data: dict[str, Json] = {}
    origins: dict[str, str] = {}
    for file, said in reversed(read_chain(path)):
        data = laid_over(data, said)
        origins |= dict.fromkeys(flatten(said), str(file))
    return data, {key: origins[key] for key in flatten(data)}


def parse(
    cls: type[T],
    default_file: str,
    *,
    argv: Sequence[str] | None = None,
    folder: str = "runs",
    flags: type[Launch] = Launch,
    named: str = "",
    from_files: Sequence[str] = (),
) -> Parsed[T]:
    """Understand a command line: `--config FILE`, then a flag for every setting.

    Args:
        cls: the command's settings.
        default_file: the configuration taken without `--config`.
        argv: arguments without the program's name; default `sys.argv[1:]`.
        folder: where the command's run folders lie under `--root`, for `--resume`.
        flags: the flags beside the settings: `Launch`, or a dataclass that adds to it.
        named: the run's name without `--name`, see `Parsed`.
        from_files: settings that a flag takes from the file of another command that has them too,
            as `--network FILE`.

    Raises:
        ConfigError: as in `build`, for the file and for the flags.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    early, path = _read_early(argv, default_file, folder=folder, flags=flags)
    data, files = _read_merged(path)
    told = _take_track(data, _Source(str(path), files))
    begun = recorded_in(path.parent) if early.resume else by_default()
    early = dataclasses.replace(early, track=told or begun or (NONE,))
    argv = _take_parts(argv, data, files, names=from_files)
    if "-h" in argv or "--help" in argv:
        data = _fill_required(cls, data)
    by_flag = _flags_for_missing(cls, data, argv)
    from_file = build(cls, data | by_flag, source=str(path), origins=files)
    config, launch = _run_tyro(cls, from_file, early, argv)
    before, after = flatten(to_dict(from_file)), flatten(to_dict(config))
    origins = {key: "file" if file == str(path) else file for key, file in files.items()}
    before, after = before | {TRACK: early.track}, after | {TRACK: launch.track}
    changed = (key for key, value in after.items() if before.get(key) != value)
    origins |= dict.fromkeys((*by_flag, *changed), "flag")
    for value in (config, launch):  # flags are held to the same ranges
        build(type(value), to_dict(value), source="command line")
    give_data(*launch.data_path)
    recorded = code_in(from_file) if early.resume else set()  # a folder's: nobody named that
    trust_code(*launch.trust_code, *(code_in(config) - recorded))
    track_with(*launch.track)
    return Parsed(config, launch, origins=origins, named=named)


def file_named(
    default_file: str, argv: Sequence[str] | None = None, *, folder: str = "runs"
) -> Path:
    """Return the file of settings that a command line asks for, as `parse` takes it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return _read_early(argv, default_file, folder=folder, flags=Launch)[1]


def _read_early(
    argv: list[str], default_file: str, *, folder: str, flags: type[Launch]
) -> tuple[Launch, Path]:
    """Return the flags by which settings are found, and the file of these."""
    early = flags(
        config=Path(flag_of(argv, "--config") or _find_default(default_file)),
        name=flag_of(argv, "--name"),
        root=Path(flag_of(argv, "--root") or ""),
        resume="--resume" in argv,
    )
    return early, _recorded_config(early, folder) if early.resume else early.config


def _take_parts(
    argv: list[str], data: dict[str, Json], files: dict[str, str], *, names: Sequence[str]
) -> list[str]:
    """Take settings out of files that flags name into the data; return the other flags."""
    for name in names:
        if (given := flag_of(argv, f"--{name}")) is None:
            continue
        said, origins = _read_merged(Path(given))
        if name not in said:
            raise ConfigError(
                f"--{name} {given}: the file has no `{name}:`, it has "
                f"{', '.join(said) or 'nothing'}: give a settings file with a `{name}:` block"
            )
        data[name] = said[name]
        for key in [key for key in files if key.partition(".")[0] == name]:
            del files[key]
        files |= {key: file for key, file in origins.items() if key.partition(".")[0] == name}
        argv = without(argv, f"--{name}")
    return argv


TRACK = "compute.track"
"""Setting that any stage's file may have, and that is in no stage's settings: see `trackers`."""


def _take_track(data: dict[str, Json], source: "_Source") -> tuple[TrackerName, ...]:
    """Take what a file says of trackers out of its data, and return it."""
    block = data.get("compute")
    if not isinstance(block, dict) or "track" not in block:
        return ()
    told = _convert(block.pop("track"), tuple[TrackerName, ...], source, TRACK)
    if not block:
        del data["compute"]
    return told


def find(registry: dict[str, str], kind: str) -> Any:
    """Import what a registry (`kind` -> `"module:name"`) says; modules load on first use."""
    module, _, name = registry[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def to_dict(config: object) -> Json:
    """Return settings as plain data that YAML and JSON can hold; inverse of `build`."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def flatten(data: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Return nested settings as dotted keys: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat = {}
    for key, value in data.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


# --- strict conversion -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Where settings stand, for errors."""

    file: str
    origins: Mapping[str, str]
    """Dotted key -> the file that holds it."""

    def error(self, key: str, words: str) -> ConfigError:
        """Return an error about a setting that names the file it stands in."""
        name = key.partition("[")[0]
        files = [file for held, file in self.origins.items() if f"{held}.".startswith(f"{name}.")]
        file = self.file if self.file in files or not files else files[0]
        return ConfigError(f"{file}: {words}")


def _convert(value: object, hint: object, source: _Source, key: str) -> object:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *marks = typing.get_args(hint)
        converted = _convert(value, inner, source, key)
        for bounds in (m for m in marks if isinstance(m, Bounds)):
            if converted not in bounds:
                raise source.error(key, f"{key} = {value!r}: allowed is {bounds}")
        return converted
    if hint is Any:
        return value
    if origin is Literal:
        return _convert_literal(value, typing.get_args(hint), source, key)
    if origin in (Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), source, key)
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(value, hint, source, key)
    if origin in (tuple, list):
        return _convert_sequence(value, typing.get_args(hint), source, key)
    if origin is dict:
        return _convert_dict(value, typing.get_args(hint), source, key)
    return _convert_scalar(value, hint, source, key)


def _convert_literal(value: object, choices: tuple, source: _Source, key: str) -> object:
    if value in choices and not isinstance(value, bool):
        return value
    allowed = ", ".join(map(str, choices))
    hint = nearest(str(value), [str(c) for c in choices])
    raise source.error(key, f"{key} = {value!r}: allowed is one of {allowed}{hint}")


def _convert_union(value: object, options: tuple, source: _Source, key: str) -> object:
    if value is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    parts = [option for option in options if dataclasses.is_dataclass(option)]
    if isinstance(value, dict) and parts:
        if len(parts) == 1:
            return _convert(value, parts[0], source, key)
        by_kind = {kind: option for option in parts for kind in _kinds(option)}
        kind = value.get("kind")
        if kind not in by_kind:
            allowed = ", ".join(map(str, by_kind))
            hint = nearest(str(kind), list(by_kind))
            place = f"{key}.kind" if "kind" in value else key
            raise source.error(place, f"{key}.kind = {kind!r}: allowed is one of {allowed}{hint}")
        return _convert(value, by_kind[kind], source, key)
    errors = []
    is_list = isinstance(value, (list, tuple))  # then the list option comes first, for its error
    for option in sorted(options, key=lambda o: is_list and typing.get_origin(o) is not tuple):
        try:
            return _convert(value, option, source, key)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _convert_dataclass(value: object, cls: type, source: _Source, key: str) -> object:
    prefix = f"{key}." if key else ""
    if not isinstance(value, dict):
        raise source.error(key, f"{key} = {value!r}: expected settings of {cls.__name__}")
    every = typing.get_type_hints(cls, include_extras=True)
    hints = {f.name: every[f.name] for f in dataclasses.fields(cls)}  # no class attributes
    for name in value:
        if name not in hints:
            raise source.error(
                prefix + name,
                f"{prefix}{name}: no such setting in {cls.__name__}"
                f"{nearest(str(name), list(hints))}; it has {', '.join(hints)}",
            )
    for field in _missing(cls, value):
        is_flag = not key and _is_word(field)
        flag = f" or by --{field.name.replace('_', '-')}" if is_flag else ""
        name = prefix + field.name
        raise source.error(name, f"{name} is missing; set it there{flag}")
    try:
        return cls(**{n: _convert(v, hints[n], source, prefix + n) for n, v in value.items()})
    except ValueError as error:  # a rule between settings, in __post_init__
        raise source.error(key, f"{key or cls.__name__}: {error}") from None


def _convert_sequence(value: object, items: tuple, source: _Source, key: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise source.error(key, f"{key} = {value!r}: expected a list")
    return tuple(_convert(v, items[0], source, f"{key}[{i}]") for i, v in enumerate(value))


def _convert_dict(value: object, items: tuple, source: _Source, key: str) -> dict:
    if not isinstance(value, dict):
        raise source.error(key, f"{key} = {value!r}: expected `name: value` pairs")
    return {str(k): _convert(v, items[1], source, f"{key}.{k}") for k, v in value.items()}


def _convert_scalar(value: object, cls: type, source: _Source, key: str) -> object:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if cls is float and (is_number or isinstance(value, str)):  # PyYAML reads 3e-4 as a string
        with contextlib.suppress(ValueError):
            return float(value)
    if cls is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(value, cls) and (cls is bool or not isinstance(value, bool)):
        return value
    raise source.error(
        key, f"{key} = {value!r}: expected {cls.__name__}, found {type(value).__name__}"
    )


def _kinds(cls: type) -> tuple[str, ...]:
    return typing.get_args(typing.get_type_hints(cls)["kind"])


def _required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


# --- the command line ------------------------------------------------------------------------


def _find_default(file: str) -> Path:
    """The shipped settings, also where a command is given from another folder."""
    return Path(file) if Path(file).exists() else Path(__file__).parent.parent / file


def _recorded_config(launch: Launch, folder: str) -> Path:
    name = launch.name or launch.config.stem
    for path in (launch.root / folder / name / sub / "config.yaml" for sub in ("", "run")):
        if path.is_file():
            return path
    raise ConfigError(
        f"--resume: {launch.root / folder / name} holds no run: give the --name of one that is "
        "there, or start one without --resume"
    )


def _missing(cls: type, data: dict[str, Json]) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(cls) if _required(f) and f.name not in data]


def _is_word(f: dataclasses.Field) -> bool:
    return f.type in (str, "str")


def _fill_required(cls: type, data: dict[str, Json]) -> dict[str, Json]:
    """For `--help` only: a stand-in for required words that the file leaves to flags."""
    return data | {f.name: "REQUIRED" for f in _missing(cls, data) if _is_word(f)}


def _flags_for_missing(cls: type, data: dict[str, Json], argv: Sequence[str]) -> dict[str, Json]:
    """Required words that the file leaves out and a flag gives."""
    words = (f.name for f in _missing(cls, data) if _is_word(f))
    values = {name: flag_of(argv, "--" + name.replace("_", "-")) for name in words}
    return {name: value for name, value in values.items() if value is not None}


def _run_tyro(cls: type[T], default: T, launch: Launch, argv: list[str]) -> tuple[T, Launch]:
    import tyro

    # `name=""`: both dataclasses' flags stand at the top, `--nodes` and not `--launch.nodes`.
    parts = [
        (name, Annotated[type(value), tyro.conf.arg(name="")])
        for name, value in (("launch", launch), ("config", default))
    ]
    Command = dataclasses.make_dataclass("Command", parts, frozen=True)
    try:
        command = tyro.cli(
            tyro.conf.configure(tyro.conf.AvoidSubcommands)(Command),
            args=argv,
            default=Command(launch, default),
        )
    except ValueError as error:  # a rule between the settings at the top, which tyro does not catch
        raise ConfigError(f"command line: {error}") from None
    return command.config, command.launch
