"""Format `modelzoos`: the zoos of modelzoos.cc, folders of Ray Tune's trials.

A trial holds `params.json`, `result.json` (a JSON object a line) and state dicts, as
`checkpoint_000005/checkpoints`. A checkpoint is the line of its `training_iteration`, the last one
where a trial was resumed and told it twice.
"""

import re
from pathlib import Path

from dwf.errors import CorruptCheckpoint
from dwf.files import parse_json, read_bytes
from dwf.importers.importer import Importer, Member, Value, natural, read_object
from dwf.importers.tensors import State, read_tensors
from dwf.metrics import logger
from dwf.plain import Json
from dwf.settings import flatten

_PARAMS, _RESULT, _STATE = "params.json", "result.json", "checkpoints"
_MEASURED = {
    f"{part}_{short}": f"{part}_{ours}"
    for part in ("train", "val", "test")
    for short, ours in (("acc", "accuracy"), ("loss", "loss"))
}
_RENAMED = {
    "optim::lr": "learning_rate",
    "optim::wd": "weight_decay",
    "optim::optimizer": "optimizer",
    "model::dropout": "dropout",
    "model::init_type": "initialisation",
    "model::nlin": "activation",
}
"""Setting of a trial -> the column that dwf calls it by."""


class ModelZoos(Importer):
    """Folders of trials; a trial is a run, each of its checkpoints a member."""

    def members(self) -> list[Member]:
        """Return the checkpoints that are there, with their lines where there are some."""
        trials = [file.parent for file in self.files(_PARAMS) if file.name == _PARAMS]
        made = [member for trial in trials for member in self._of_trial(trial)]
        if not made:
            raise self.empty(f"no folder with {_PARAMS} and checkpoint_*/{_STATE} in it")
        return made

    def read(self, member: Member) -> State:
        """Return the tensors of a checkpoint."""
        return read_tensors(member.path, nested=self.config.nested)

    def _of_trial(self, trial: Path) -> list[Member]:
        told, told_at = _settings(trial / _PARAMS), _results(trial / _RESULT)
        made = []
        for folder in sorted(trial.glob("checkpoint_*"), key=lambda path: natural(path.name)):
            number = folder.name.removeprefix("checkpoint_")
            file = folder / _STATE
            if not re.fullmatch("[0-9]{1,9}", number) or not file.is_file():
                continue
            columns = told | told_at.get(int(number), {})
            run, name = self.run_of(file, self.name_of(trial)), self.name_of(file)
            made.append(Member(name, file, run, epoch=int(number), columns=columns))
        return made


def _settings(file: Path) -> dict[str, Value]:
    """Numbers and words of a trial's settings; no paths of the machine that they come from."""
    told = read_object(file)
    if told is None:
        logger.warning("%s is no JSON object: the settings of its trial are not known", file)
        return {}
    told = flatten(told)
    return {
        _RENAMED.get(name, re.sub(r"\W+", "_", name)): _plain(value)
        for name, value in told.items()
        if isinstance(value, (int, float, str)) and not (isinstance(value, str) and "/" in value)
    }


def _plain(value: Json) -> Value:
    return int(value) if isinstance(value, bool) else value


def _results(file: Path) -> dict[int, dict[str, Value]]:
    """training_iteration -> measured columns; a line that was cut off at the end is passed by."""
    found: dict[int, dict[str, Value]] = {}
    for line in read_bytes(file).splitlines() if file.is_file() else ():
        try:
            told = parse_json(line, file, is_finite=False)
            at = int(told["training_iteration"])
        except (CorruptCheckpoint, ValueError, KeyError, TypeError, OverflowError):
            continue
        found[at] = {
            ours: float(told[theirs])
            for theirs, ours in _MEASURED.items()
            if isinstance(told.get(theirs), (int, float))
        }
    return found
