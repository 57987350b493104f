"""Settings of stages that a pipeline or a sweep gives: `generator.density.training.steps=2000`."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.settings.overlay import Overlay
from dwf.settings.words import Flag, places
from dwf.yaml_files import nearest

_FORM = re.compile(
    r"(?P<stage>\w+)(?:\[(?P<name>[^\]]*)\])?\.(?P<key>[^=]+)=(?P<value>.*)", re.DOTALL
)

Overlays = Mapping[str, Mapping[str, Overlay]]
"""Stage -> settings file -> its settings, as far as they are put together."""


def assign(
    texts: Sequence[str], stages: Overlays, *, filled: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], list[Flag]]:
    """Put settings to every settings file of their stage that has them.

    Args:
        texts: `STAGE.SETTING=VALUE` each, or `STAGE[NAME].SETTING=VALUE` for the one settings file
            of that name; a list as `[1, 2]`.
        stages: the settings files of each stage; their settings are changed.
        filled: settings of each stage that are nobody's to give, as they link the stages.

    Returns:
        (stage, settings file) -> what was put to it, as flags of the stage's command.

    Raises:
        ConfigError: one is not of that form, or its stage, name or setting is not there.
    """
    put: dict[tuple[str, str], list[Flag]] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(f"--set {text}: expected STAGE.SETTING=VALUE, as zoo.recipe.epochs=5")
        stage, key, flag = match["stage"], match["key"], Flag(match["key"], (match["value"],))
        files = _files(text, stages, stage, match["name"])
        if key.replace("-", "_").partition(".")[0] in filled.get(stage, ()):
            raise ConfigError(f"--set {text}: {key} links the stages and is filled in")
        having = {file: one for file, one in files.items() if places(one.cls, key, data=one.data)}
        for file, overlay in (having or files).items():  # none has it: each tells so
            overlay.put([flag], show="{}".format)
            put.setdefault((stage, file), []).append(flag)
        faults = [fault for overlay in files.values() for fault in overlay.faults]
        if faults:
            raise ConfigError("\n".join(f"--set {text}: {told}" for told in dict.fromkeys(faults)))
    return put


def assigned(
    texts: Sequence[str], stages: Overlays, *, filled: Mapping[str, Collection[str]]
) -> dict[str, dict[str, dict[str, Json]]]:
    """Return stage -> settings file -> what it says, with what is set in its place; see `assign`.

    What this leaves without effect is left out.
    """
    assign(texts, stages, filled=filled)
    for file, overlay in (pair for files in stages.values() for pair in files.items()):
        overlay.leave_out_idle(file)
    return {
        stage: {file: overlay.data for file, overlay in files.items()}
        for stage, files in stages.items()
    }


def _files(text: str, stages: Overlays, stage: str, name: str | None) -> Mapping[str, Overlay]:
    files = stages.get(stage, {})
    if not files:
        there = [each for each, own in stages.items() if own]
        raise ConfigError(
            f"--set {text}: no such stage: there are {', '.join(there)}{nearest(stage, there)}"
        )
    names = {file: Path(file).stem for file in files}
    if name is None:
        return files
    if name not in names.values():
        raise ConfigError(
            f"--set {text}: no {stage} of that name: there are "
            f"{', '.join(names.values())}{nearest(name, list(names.values()))}"
        )
    return {file: overlay for file, overlay in files.items() if names[file] == name}
