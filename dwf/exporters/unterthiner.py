"""The layout of the Small CNN Zoo: one matrix, Keras' order of numbers, a table of facts.

    weights.npy       [N, D] float32: of each layer its bias, then its kernel, filters as HWIO,
                      linear layers as (inputs, outputs)
    metrics.csv.gz    a line for each row: config.*, modeldir, step, accuracies and losses
    layout.csv        varname, shape, start_idx, end_idx of each variable

Source: Unterthiner et al., Predicting neural network accuracy from weights (arXiv 2002.11448).

Shape suffixes: R rows that are written, B rows of a block, D numbers of one network.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.errors import ConfigError
from dwf.exporters.config import ExportConfig
from dwf.exporters.exporter import Exporter
from dwf.run_folder import replacing, write_text
from dwf.settings import to_dict
from dwf.zoo.layout import Entry
from dwf.zoo.store import Zoo

WEIGHTS, METRICS, LAYOUT = "weights.npy", "metrics.csv.gz", "layout.csv"
_AXES = {4: (0, 3, 4, 2, 1), 2: (0, 2, 1), 1: (0, 1)}  # of [B, *shape], into Keras' order
_NAMES = {4: "conv2d", 2: "dense"}
_COLUMNS = {
    "config.dropout": "dropout",
    "config.l2reg": "weight_decay",
    "config.learning_rate": "learning_rate",
    "config.optimizer": "optimizer",
    "config.random_seed": "seed",
    "config.w_init": "initialisation",
    "step": "epoch",
    "test_accuracy": "test_accuracy",
    "test_loss": "test_loss",
    "train_accuracy": "train_accuracy",
    "train_loss": "train_loss",
    "split": "split",
}
"""Column of the published table, and one more, -> column of a zoo."""


@dataclass(frozen=True)
class Variable:
    """A tensor, under its name in Keras."""

    name: str
    entry: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in Keras' order."""
        return tuple(self.entry.shape[axis - 1] for axis in _AXES[len(self.entry.shape)][1:])


class UnterthinerExporter(Exporter):
    """Writes the three files of the Small CNN Zoo.

    Raises:
        ConfigError: the networks are no chains of convolutions and linear layers with biases, or
            their linear layers see every pixel, which Keras has in another order.
    """

    files = [WEIGHTS, METRICS, LAYOUT]  # noqa: RUF012  never changed

    def __init__(self, config: ExportConfig, zoo: Zoo, *, rows_R: np.ndarray):
        super().__init__(config, zoo, rows_R=rows_R)
        self._variables = _variables(zoo)

    def write(self, folder: Path) -> Iterator[int]:
        """Write the files that are missing; yield the number of networks that are there so far."""
        if not (folder / WEIGHTS).exists():
            with replacing(folder / WEIGHTS) as partial:
                yield from self._write_weights(partial)
        with replacing(folder / METRICS) as partial:  # without a time: equal tables, equal files
            partial.write_bytes(gzip.compress(self._metrics().encode(), mtime=0))
        write_text(folder / LAYOUT, self._layout())
        yield len(self.rows_R)

    def _write_weights(self, path: Path) -> Iterator[int]:
        shape = (len(self.rows_R), self.zoo.layout.size)
        out_RD = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        done = 0
        for _, weights_BD in self.zoo.stream(self.rows_R):
            out_RD[done : done + len(weights_BD)] = self._reordered(weights_BD)
            done += len(weights_BD)
            yield done
        out_RD.flush()

    def _reordered(self, weights_BD: np.ndarray) -> np.ndarray:
        state = self.zoo.layout.unflatten(weights_BD)
        parts = [state[one.entry.name] for one in self._variables]
        turned = [part.transpose(_AXES[part.ndim - 1]) for part in parts]
        return np.concatenate([part.reshape(len(weights_BD), -1) for part in turned], axis=1)

    def _layout(self) -> str:
        lines, start = [("varname", "shape", "start_idx", "end_idx")], 0
        for one in self._variables:
            lines.append((one.name, str(one.shape), start, start + one.entry.size))
            start += one.entry.size
        return _csv(lines)

    def _metrics(self) -> str:
        zoo, network = self.zoo, to_dict(self.zoo.facts.network)
        layers = [one.entry.shape for one in self._variables if len(one.entry.shape) == 4]
        same = {"config.activation": network["activation"], "config.dnn_architecture": "cnn"}
        same |= {"config.dataset": zoo.facts.data.kind, "config.num_layers": len(layers)}
        same |= {"config.num_units": layers[0][0]} if layers else {}
        own = {name: zoo.columns[ours] for name, ours in _COLUMNS.items() if ours in zoo.columns}
        heads = [*same, "modeldir", *own]
        lines = [heads]
        for row in self.rows_R.tolist():
            folder = f"{zoo.path.name}/network-{zoo.columns['network'][row]:07d}"
            lines.append([*same.values(), folder, *(values_N[row] for values_N in own.values())])
        return _csv(lines)


def _csv(lines: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _variables(zoo: Zoo) -> list[Variable]:
    """Return the tensors in Keras' order, bias before kernel.

    Raises:
        ConfigError: see `UnterthinerExporter`.
    """
    if not zoo.facts.network.is_chain:
        raise _refused(zoo, "its layers are no chain")
    found: list[Variable] = []
    counts, before = {"conv2d": 0, "dense": 0}, None
    for entry in zoo.layout.entries:
        if entry.role == "bias":
            continue
        bias = zoo.layout.by_name.get(f"{entry.name.removesuffix('weight')}bias")
        kind = _NAMES.get(len(entry.shape))
        if entry.role != "weight" or kind is None or bias is None:
            raise _refused(zoo, f"{entry.name} is no kernel with a bias beside it")
        if before == "conv2d" and kind == "dense" and entry.shape[1] != found[-1].entry.shape[0]:
            raise _refused(zoo, f"{entry.name} sees every pixel, in another order than Keras has")
        number = f"_{counts[kind]}" if counts[kind] else ""
        own = (("bias", bias), ("kernel", entry))
        found += [Variable(f"sequential/{kind}{number}/{leaf}:0", one) for leaf, one in own]
        counts[kind], before = counts[kind] + 1, kind
    return found


def _refused(zoo: Zoo, why: str) -> ConfigError:
    return ConfigError(
        f"{zoo.facts.network.named}: {why}, so that the layout of the Small CNN Zoo has no place "
        "for it: take another --format, as archive"
    )
