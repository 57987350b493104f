"""Settings by the name of a preset or a file, with some of them given anew, as Python wants them.

No torch is imported here.
"""

import difflib
from pathlib import Path

from dwf.errors import ConfigError
from dwf.names import expanded
from dwf.pipeline import STAGES
from dwf.plain import Json, Settings
from dwf.settings import build, find, flatten, read_yaml, to_dict
from dwf.shipped import CONFIGS
from dwf.trust import code_in, trust_code
from dwf.yaml_files import laid_over
from dwf.zoo.family_config import class_of

_OTHERS = {
    "audit": "dwf.audit.config:AuditConfig",
    "cluster": "dwf.cluster.config:SiteConfig",
    "export": "dwf.exporters.config:ExportConfig",
    "import": "dwf.importers.config:ImportConfig",
    "pipeline": "dwf.pipeline:PipelineConfig",
    "sweep": "dwf.sweeps.config:SweepConfig",
}
_OF_PIPELINES = {
    name: f"{stage.config.__module__}:{stage.config.__qualname__}" for name, stage in STAGES.items()
}
CLASSES = dict(sorted((_OTHERS | _OF_PIPELINES).items()))
"""Stage, as its folder of presets is called -> class of its settings; of zoos, or of a family of
them by what the file says."""
_MOST_NAMED = 5


def load_settings(
    source: Path | str, stage: str | None = None, /, **overrides: Json | Path | Settings
) -> Settings:
    """Return the settings of a preset or a file, some of them given anew.

    Code that a file names is trusted, since the user named the file. Trackers that it names are
    not begun: from Python, that is `dwf.track_with`.

    Args:
        source: a preset's name, `zoo/digits_4096`, or `digits_4096` where one stage alone has a
            preset of that name; or a YAML file.
        stage: the stage that the settings are of, `zoo`; default: the folder in which the file lies
            is called so.
        overrides: settings in place of the file's, by their names, inner ones with dots:
            `count=20, **{"recipe.epochs": 5}`. A block of settings may be a dictionary, which is
            laid over the file's, or an object.

    Returns:
        An object of the stage's class of settings, as `dwf.zoo.config.ZooConfig`.

    Raises:
        ConfigError: no preset or file is called so, or several presets are; nothing tells the
            stage; a setting is unknown, of the wrong type, out of its range or missing.
    """
    file = _preset(source, stage) or expanded(source)
    data = read_yaml(file)
    given: dict[str, Json] = {}
    for name, value in overrides.items():
        given = laid_over(given, _nested(name, to_dict(value)))
    data = laid_over(data, given)
    told = ", ".join(f"{name} = {value!r}" for name, value in flatten(given).items())
    cls = _class_of(_stage_of(file, stage), data)
    source = f"{file} with {told}" if told else str(file)
    config = build(cls, data, source=source, over=flatten(given))
    trust_code(*code_in(config))
    return config


def _preset(source: Path | str, stage: str | None) -> Path | None:
    """Return the file of a preset; None where the source is a file of its own.

    Raises:
        ConfigError: neither is there.
    """
    word = str(source)
    if expanded(word).is_file() or Path(word).suffix in (".yaml", ".yml"):
        return None
    there = _presets()
    found = [name for name in there if name == word or name == f"{stage}/{word}"]
    found = found or [name for name in there if name.split("/", 1)[1] == word]
    if len(found) == 1:
        return there[found[0]]
    if found:
        raise ConfigError(f"{word!r} is the name of several presets: give {' or '.join(found)}")
    raise ConfigError(f"{word!r}: no such file, and no such preset; {_near(word, list(there))}")


def _near(word: str, there: list[str]) -> str:
    """Return a hint at the presets whose names look most like a word."""
    last = {name: name.rpartition("/")[2] for name in there}
    alike = difflib.get_close_matches(word.rpartition("/")[2], last.values(), n=_MOST_NAMED)
    close = [name for one in dict.fromkeys(alike) for name in there if last[name] == one]
    close += difflib.get_close_matches(word, there, n=_MOST_NAMED, cutoff=0.5)
    names = ", ".join(list(dict.fromkeys(close))[:_MOST_NAMED])
    return f"did you mean {names}?" if names else f"presets lie in {CONFIGS}"


def _presets() -> dict[str, Path]:
    """Return name -> file of every preset, in order: `zoo/digits_4096`."""
    folders = (CONFIGS / stage for stage in CLASSES)
    files = (file for folder in folders for file in sorted(folder.rglob("*.yaml")))
    return {file.relative_to(CONFIGS).with_suffix("").as_posix(): file for file in files}


def _nested(name: str, value: Json) -> dict[str, Json]:
    """Return a setting by its dotted name as a file would say it."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _stage_of(file: Path, stage: str | None) -> str:
    if stage is None:
        folders = [folder.name for folder in file.absolute().parents]
        stage = next((name for name in folders[:2] if name in CLASSES), None)
    if stage in CLASSES:
        return stage
    found = "" if stage is None else f"stage = {stage!r}: "
    raise ConfigError(
        f"{found}{file}: which stage are these settings of? Give it, one of {', '.join(CLASSES)}: "
        f"load_settings({str(file)!r}, 'zoo')"
    )


def _class_of(stage: str, data: dict[str, Json]) -> type:
    return class_of(data) if stage == "zoo" else find(CLASSES, stage)
