"""The card of an exported network: where it comes from, how good networks of its zoo are.

Accuracies are those of all networks of the zoo at their last epoch, whichever are exported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.evaluation.report import NetworkSet
from dwf.exporters.config import ExportConfig
from dwf.exporters.judged import judged
from dwf.files import read_json
from dwf.plain import Json
from dwf.settings import flatten, to_dict
from dwf.zoo.provenance import Aligned, Provenance, Sampled
from dwf.zoo.store import Zoo

TAGS = ["weight-space-learning", "dwf"]
_OWN = ("seed", "split", "epoch", "optimizer", "learning_rate", "batchnorm")
_ESTIMATED = ", with BatchNorm's statistics as the report has them, not those in the file"
_ACCURACIES = ("val_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Card:
    """Facts that the cards of a zoo's networks share."""

    zoo: Zoo
    licence: str | None
    """Licence, by its SPDX name; None: the card names none."""
    judged: NetworkSet | None
    """Networks of this zoo in a report; None without one."""
    report: str | None
    """Name of the report."""

    @classmethod
    def of(cls, config: ExportConfig, zoo: Zoo) -> "Card":
        """Return what the cards of a zoo's networks have in common.

        Raises:
            ConfigError: there is no such report, or it is not on these networks.
        """
        found = None if config.report is None else judged(config.report, zoo)
        return cls(zoo, config.licence, judged=found, report=config.report)

    def text(self, row: int) -> str:
        """Return a row's card: metadata of the hub as YAML, then Markdown."""
        from huggingface_hub import ModelCardData

        head = ModelCardData(license=self.licence, library_name="pytorch", tags=TAGS).to_yaml()
        kind = to_dict(self.zoo.facts.network)["kind"]
        lines = [f"| {key} | {value} |" for key, value in self._facts(row).items()]
        table = "\n".join(["| fact | value |", "|---|---|", *lines])
        return (
            f"---\n{head}\n---\n\n# {self.zoo.name}, row {row}\n\n"
            f"A network of kind `{kind}`, exported by dwf.\n\n{table}\n\n{_USE}"
        )

    def _facts(self, row: int) -> dict[str, Json]:
        zoo, told = self.zoo, self.zoo.facts
        facts = {"zoo": f"{zoo.name} (fingerprint {zoo.fingerprint})"}
        facts |= {"generator": _generator(told.provenance), "seed of the zoo": told.seed}
        facts["commit"] = _commit(zoo)
        facts |= {f"data.{key}": value for key, value in flatten(to_dict(told.data)).items()}
        columns = [name for name in (*_OWN, *_ACCURACIES) if name in zoo.columns]
        facts |= {f"{name} of this network": _cell(zoo.columns[name][row]) for name in columns}
        return facts | dict(self._of_all()) | self._mark()

    def _of_all(self) -> Iterator[tuple[str, str]]:
        """Yield mean +- deviation of each accuracy, over all networks."""
        rows_N, known = self.zoo.rows(epoch="last"), self.zoo.columns
        for name in _ACCURACIES:
            if name in known:
                values_N = known[name][rows_N]
                mean, deviation, num = values_N.mean(), values_N.std(), len(values_N)
            elif self.judged is not None and name in self.judged.summary:
                told = self.judged.summary[name]
                mean, deviation, num = told["mean"], told["std"], self.judged.n
            else:
                continue
            how = "" if name in known or "batchnorm" not in self.judged.summary else _ESTIMATED
            cell = f"{100 * mean:.2f} +- {100 * deviation:.2f} % (n = {num}){how}"
            yield f"{name} of all", cell

    def _mark(self) -> dict[str, Json]:
        mark = self.judged and self.judged.summary.get("mark")
        if not mark:
            return {}
        return {f"mark (report {self.report})": f"{mark['name']}: {mark['why']}"}


_USE = """```python
from safetensors.torch import load_file

state = load_file("model.safetensors")  # name -> tensor; `config.json` tells the architecture

import dwf

network = dwf.load_network(".")  # an nn.Module in evaluation mode
```
"""


def _generator(origin: Provenance | None) -> str:
    """Return which generator networks were drawn from, also where they were aligned since."""
    while isinstance(origin, Aligned):
        origin = origin.before
    return f"{origin.generator} ({origin.digest})" if isinstance(origin, Sampled) else "none"


def _commit(zoo: Zoo) -> str:
    """Return the commit of the code that made a zoo, as its run recorded it."""
    file = Path(zoo.path) / "run" / "environment.json"
    found = read_json(file).get("commit") if file.exists() else None
    return found or "not known"


def _cell(value: np.generic) -> str:
    return f"{value:.4f}" if isinstance(value, np.floating) else str(value)
