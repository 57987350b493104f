"""Command lines: settings of a file or preset, then flags; what they come to, and from where."""

import dataclasses
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from dwf.data_paths import give_data
from dwf.errors import ConfigError
from dwf.names import NAME_WANTED, expanded, name_said, refuse_no_name, why_no_name
from dwf.plain import Json, visible
from dwf.settings.building import COMMAND_LINE, Origins, build, default_of
from dwf.settings.help import help_text
from dwf.settings.marks import Expert, Repeated
from dwf.settings.overlay import Overlay, flag_names
from dwf.settings.plain_data import flatten, to_dict
from dwf.settings.presets import find_file
from dwf.settings.reading import TRACK, read_merged, take_track
from dwf.settings.words import Flag, most_words, options, places, read_flags
from dwf.trackers import NONE, TrackerName, by_default, recorded_in, track_with
from dwf.trust import code_in, trust_code

T = TypeVar("T")


@dataclass(frozen=True)
class Launch:
    """Flags that every command has."""

    config: Path
    """Settings file, or the name of a preset; a bare word is taken for it, too."""
    name: str | None = None
    """Name of the folder written, under --root; default: the settings file's, without `.yaml`."""
    root: Path = Path()
    """Folder that holds zoos/, runs/ and reports/."""
    dry_run: bool = False
    """Print the plan and the settings that differ from the defaults; touch nothing."""
    all: bool = False
    """With --dry-run, print every setting."""
    resume: bool = False
    """Take the settings from the folder called --name instead of from a file, and go on."""
    overwrite: bool = False
    """Move what the folder called --name holds to NAME.old-1, and begin anew."""
    track: tuple[TrackerName, ...] = ()
    """Tools that show the run's numbers beside `metrics.jsonl`; default: tensorboard, where it is
    installed; `none` turns that off. In a file of settings it is `compute.track`. With --resume,
    those that it was begun with."""
    trust_code: Annotated[tuple[str, ...], Repeated(), Expert()] = ()
    """Code that may be imported though a folder names it, as `package.module:factory`."""
    data_path: Annotated[tuple[str, ...], Repeated(), Expert()] = ()
    """Place of own data that a zoo names, as `NAME=FILE`."""

    def __post_init__(self):
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on, and --overwrite begins anew: give one of them")
        if self.name is not None and (why := why_no_name(self.name)):
            shown = visible(self.name)
            raise ValueError(f"--name {shown!r}, under --root {self.root}: {why}; {NAME_WANTED}")


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
    is_chosen: bool = True
    """Whether the command line names a settings file; else the command's own is taken."""

    @property
    def name(self) -> str:
        """The name of the folder written."""
        name = self.launch.name or self.named.format(**vars(self.config))
        name = name or self.launch.config.stem
        refuse_no_name(name, "--name")
        return name

    def preset_taken(self, command: str) -> str:
        """Return in words which preset is taken where none was named; empty where one was."""
        if self.is_chosen or self.launch.resume:
            return ""
        return (
            f"no --config: the preset {self.launch.config.stem} is taken, as {self.name}; "
            f"dwf {command} --help lists the others"
        )

    def describe(self) -> str:
        """Return the settings, one line each, with where each value came from.

        Those that differ from the defaults come first; the others are told where `--all` asks.
        """
        rows = flatten(to_dict(self.config))
        rows[TRACK] = list(self.launch.track)
        usual = flatten(_defaults(self.config)) | {TRACK: list(by_default())}
        width = max(map(len, rows))
        lines = {
            key: f"  {key:<{width}}  {value}  ({self.origins.get(key, 'default')})"
            for key, value in rows.items()
        }
        other = [key for key, value in rows.items() if key not in usual or usual[key] != value]
        same = [key for key in rows if key not in other]
        told = [lines[key] for key in (*other, *(same if self.launch.all else ()))]
        if same and not self.launch.all:
            told.append(f"  {len(same)} more settings have their defaults; --all shows them")
        return "\n".join(told)


def _defaults(config: object, usual: object = None) -> dict[str, Json]:
    """Return the default of each setting that has one, within the parts that are chosen."""
    found: dict[str, Json] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        own = default_of(f)() if usual is None else getattr(usual, f.name)
        if dataclasses.is_dataclass(value):
            is_usual = type(own) is type(value)
            found[f.name] = _defaults(value, own if is_usual else None)
            if not is_usual:
                found[f.name].pop("kind", None)
        elif own is not dataclasses.MISSING:
            found[f.name] = to_dict(own)
    return found


def parse(
    cls: type[T],
    default_file: str,
    *,
    argv: Sequence[str] | None = None,
    command: str = "",
    about: str = "",
    folder: str = "runs",
    flags: type[Launch] = Launch,
    named: str = "",
    after: str = "",
    from_files: Sequence[str] = (),
) -> Parsed[T]:
    """Understand a command line: a settings file or a preset, then a flag for every setting.

    Args:
        cls: the command's settings.
        default_file: the configuration taken where the command line names none.
        argv: arguments without the program's name; default `sys.argv[1:]`.
        command: the command's name, of which presets are found and which help shows.
        about: what the command does and examples of it, for help.
        folder: where the command's run folders lie under `--root`, for `--resume`.
        flags: the flags beside the settings: `Launch`, or a dataclass that adds to it.
        named: the run's name without `--name`, see `Parsed`.
        after: the same, where no settings file is named and a flag gives its setting one value.
        from_files: settings that a flag takes from the file or preset of a zoo, which has them
            too, as `--network FILE`.

    Raises:
        ConfigError: as in `build`, for the file and for the flags, with a line for each fault.
    """
    names, words = take_files(sys.argv[1:] if argv is None else argv, cls, flags)
    line, own, is_help = _read_words(words, flags, folder=folder)
    if line.data.get("resume") and not is_help:
        _refuse_guess(names, line, folder=folder, named=named)
    config, path = _find(names, default_file, line, command=command, folder=folder)
    data, origins = read_merged(path)
    told = take_track(data, str(path), origins=origins)
    file = _File(str(path), data, origins)
    recorded = code_in(file.build(cls)) if line.data.get("resume") else set()
    own, file = _take_parts(own, file, names=from_files)
    overlay = Overlay(cls, file.data, root=line.root)
    overlay.put(own, also=flag_names(flags))
    if is_help:
        shown = (*names, default_file)[0]
        line.data["config"] = shown
        print(
            help_text(overlay, line, origins=file.origins, command=command, about=about, file=shown)
        )
        sys.exit(0)
    begun = recorded_in(path.parent) if line.data.get("resume") else by_default()
    line.data = {"config": str(config), "track": told or begun or (NONE,)} | line.data
    made, launch = _build_both(overlay, line, file, command=command)
    give_data(*launch.data_path)
    trust_code(*launch.trust_code, *(code_in(made) - recorded))  # a folder's: nobody named that
    track_with(*launch.track)
    if after and not names:
        named = _named_after(after, made, given=overlay.given) or named
    told = _told_origins(file, overlay, line)
    return Parsed(made, launch, origins=told, named=named, is_chosen=bool(names))


def file_named(
    default_file: str,
    argv: Sequence[str] | None = None,
    *,
    classes: Sequence[type],
    command: str = "",
    folder: str = "runs",
) -> Path:
    """Return the file of settings that a command line asks for, as `parse` takes it.

    Args:
        default_file: see `parse`.
        argv: see `parse`.
        classes: of the settings and of the flags beside them, one of which each flag is of.
        command: see `parse`.
        folder: see `parse`.
    """
    names, words = take_files(sys.argv[1:] if argv is None else argv, *classes)
    line, _, is_help = _read_words(words, Launch, folder=folder)
    if line.data.get("resume") and not is_help:
        _refuse_guess(names, line, folder=folder)
    return _find(names, default_file, line, command=command, folder=folder)[1]


def take_files(argv: Sequence[str], *classes: type) -> tuple[list[str], list[str]]:
    """Return the settings files that a command line names, and its other words.

    These are the words behind `--config`, and those that no flag takes.

    Args:
        argv: words of a command line.
        classes: of the settings and of the flags beside them, one of which each flag is of.
    """
    flags, files = read_flags(argv)
    others: list[str] = []
    for flag in flags:
        taken = 0 if flag.name == "config" else _num_taken(flag, classes)
        files += flag.words[taken:]
        if flag.name != "config":
            words = flag.words[:taken]
            others += (
                [f"--{flag.name}={words[0]}"] if len(words) == 1 else [f"--{flag.name}", *words]
            )
    return files, others


def _num_taken(flag: Flag, classes: Sequence[type]) -> int:
    """Return how many of the words behind a flag are its own; all where it is unknown."""
    if flag.is_joined:
        return len(flag.words)
    if flag.name == "help":
        return 0
    found = [place for cls in classes for place in places(cls, flag.name, data={})]
    if not found or any(most_words(place.hint) is None for place in found):
        return len(flag.words)
    if any(bool in options(place.hint) for place in found):
        return int(not found[0].is_no and flag.words[:1] in (("true",), ("false",)))
    return min(1, len(flag.words))


def _read_words(words: Sequence[str], flags: type, folder: str) -> tuple[Overlay, list[Flag], bool]:
    """Return the flags beside the settings, those of the settings, and whether to help."""
    given, _ = read_flags(words)
    is_help = any(flag.name == "help" for flag in given)
    given = [flag for flag in given if flag.name != "help"]
    roots = [flag.words[-1] for flag in given if flag.name == "root" and flag.words]
    line = Overlay(flags, {}, root=expanded((roots or [""])[-1]))
    mine = [flag for flag in given if places(flags, flag.name, data={})]
    line.put(mine)
    if isinstance(name := line.data.get("name"), str):
        line.data["name"] = name_said(name, line.root / folder, key="--name", may_be_path=True)
    return line, [flag for flag in given if flag not in mine], is_help


def _named_after(pattern: str, config: object, *, given: Collection[str]) -> str:
    """Return the pattern of a name that one setting gives; empty where none or several give it."""
    setting = pattern.partition("{")[2].partition("}")[0]
    if setting not in given:
        return ""
    value = vars(config)[setting]
    if isinstance(value, str):
        return pattern
    return pattern.replace(setting, f"{setting}[0]") if len(value) == 1 else ""


def _find(
    names: list[str], default_file: str, line: Overlay, *, command: str, folder: str
) -> tuple[Path, Path]:
    """Return the settings file that is named, and the one that is read: a record with --resume."""
    if len(names) > 1:
        raise ConfigError(f"{' '.join(names)}: expected one settings file, or behind a flag")
    word = names[0] if names else default_file
    if line.data.get("resume"):
        name, root = line.data.get("name") or Path(word).stem, line.data.get("root") or ""
        refuse_no_name(name, "--name")
        return Path(word), _record(expanded(root) / folder / name)
    file = find_file(word, command)
    return file, file


def _refuse_guess(names: list[str], line: Overlay, *, folder: str, named: str = "") -> None:
    """Refuse to go on with a run that nobody named: it would be whichever the defaults name."""
    if line.data.get("name") or (names and not named):
        return
    where = expanded(line.data.get("root") or "") / folder
    found = {file.parent for file in where.glob("*/config.yaml")}
    found |= {file.parents[1] for file in where.glob("*/run/config.yaml")}
    open_ = [run.name for run in sorted(found) if not any(run.glob("done.json"))]
    open_ = [name for name in open_ if not (where / name / "run" / "done.json").exists()]
    there = f"not finished there: {', '.join(open_)}" if open_ else "all there are finished"
    raise ConfigError(
        f"--resume: which run of {where} is meant? Give its --name; "
        f"{there if found else 'there is none'}"
    )


def _record(run: Path) -> Path:
    for path in (run / sub / "config.yaml" for sub in ("", "run")):
        if path.is_file():
            return path
    raise ConfigError(
        f"--resume: {run} holds no run: give the --name of one that is there, or start one without "
        "--resume"
    )


@dataclass(frozen=True)
class _File:
    """A settings file that was read."""

    name: str
    data: dict[str, Json]
    origins: Origins

    def build(self, cls: type[T]) -> T:
        """Return its settings, as they are without flags."""
        return build(cls, self.data, source=self.name, origins=self.origins)


def _take_parts(
    flags: list[Flag], file: _File, *, names: Sequence[str]
) -> tuple[list[Flag], _File]:
    """Take settings out of files that flags name into the data; return the other flags."""
    left = []
    for flag in flags:
        name, words = flag.name, flag.words
        if name not in names or len(words) != 1 or words[0].startswith("{"):
            left.append(flag)
            continue
        said, origins = read_merged(find_file(words[0], "zoo"))
        if name not in said:
            raise ConfigError(
                f"--{name} {words[0]}: the file has no `{name}:`, it has "
                f"{', '.join(said) or 'nothing'}: give a settings file with a `{name}:` block"
            )
        mine = {key: f for key, f in file.origins.files.items() if key.partition(".")[0] != name}
        mine |= {key: f for key, f in origins.files.items() if key.partition(".")[0] == name}
        places_of = Origins(mine, {**origins.lines, **file.origins.lines})
        file = _File(file.name, file.data | {name: said[name]}, places_of)
    return left, file


def _build_both(
    overlay: Overlay, line: Overlay, file: _File, *, command: str
) -> tuple[object, Launch]:
    """Return the settings and the flags beside them; all that is wrong is told at once."""
    files = {**file.origins.files, **dict.fromkeys(overlay.keys, COMMAND_LINE)}
    origins = Origins(files, file.origins.lines)
    made, told = [], [*line.faults, *overlay.faults]
    more = [f"dwf {command} --help lists all flags"] if told and command else []
    for each, source in ((overlay, file.name), (line, COMMAND_LINE)):
        try:
            made.append(each.build(source, origins=origins if each is overlay else None))
        except ConfigError as error:
            told.append(str(error))
    if told:
        raise ConfigError("\n".join([*told, *more]))
    return made[0], made[1]


def _told_origins(file: _File, overlay: Overlay, line: Overlay) -> dict[str, str]:
    left = {*flatten(overlay.data), TRACK}
    files = {key: own for key, own in file.origins.files.items() if key in left}
    told = {key: "file" if own == file.name else own for key, own in files.items()}
    by_flag = [*overlay.keys, *([TRACK] if "track" in line.given else [])]
    return told | dict.fromkeys(by_flag, "flag")
