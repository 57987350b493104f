"""Format `pdiff_data`: the `data.pt` of p-diff's first version, all steps of a run in one file.

`pdata` `[K, D]` (the parameters called `train_layer`, one after the other, after each of K epochs),
`performance` (accuracy on test images in per cent) and, pickled as a whole, `model`: a file with it
is read only where the user trusts it. One without it takes the names of the settings' network.

Shape suffixes: K steps, D parameters that learn.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import nn

from dwf.errors import ConfigError
from dwf.importers.importer import Importer, Member, Unusable
from dwf.importers.tensors import State, load_file
from dwf.networks.functional import build_network

_FLAT = "pdata"


class Stacked(Importer):
    """A file that holds the rows of one run."""

    tells_runs = True

    @cached_property
    def _held(self) -> Mapping[str, object]:
        files = self.files(".pt")
        if len(files) != 1:
            raise ConfigError(
                f"source = {self.config.source!r} holds {len(files)} .pt files: give the one "
                "data.pt as source"
            )
        try:
            held = load_file(files[0])
        except Unusable as error:
            raise ConfigError(f"{files[0]}: {error}") from None
        rows = held.get(_FLAT) if isinstance(held, Mapping) else None
        if not isinstance(rows, torch.Tensor) or rows.dim() != 2 or not rows.is_floating_point():
            raise ConfigError(f"{files[0]} has no matrix `{_FLAT}`: it is no data.pt of p-diff")
        return {"path": files[0]} | dict(held)

    def members(self) -> list[Member]:
        """Return a member for each row, its `epoch` the place."""
        path, scores = self._held["path"], self._held.get("performance")
        try:
            given = [float(score) for score in scores] if scores is not None else []
        except (TypeError, ValueError):
            raise ConfigError(f"{path}: `performance` is no list of numbers") from None
        scale = 100.0 if any(score > 1 for score in given) else 1.0
        made = []
        for row in range(len(self._held[_FLAT])):
            columns = {"test_accuracy": given[row] / scale} if row < len(given) else {}
            name = f"{path.name}#{row}"
            made.append(Member(name, path, path.name, epoch=row, row=row, columns=columns))
        return made

    def read(self, member: Member) -> State:
        """Return the tensors of a row over those that did not learn."""
        row_D, at, state = self._held[_FLAT][member.row], 0, dict(self._others)
        for name, shape in self._learnt.items():
            size = torch.Size(shape).numel()
            state[name] = row_D[at : at + size].reshape(shape)
            at += size
        if at != len(row_D):
            raise Unusable(f"its {len(row_D)} numbers are not the {at} of the tensors that learn")
        return state

    @cached_property
    def _network(self) -> nn.Module | None:
        model, config = self._held.get("model"), self.config.network
        if isinstance(model, nn.Module):
            return model
        return build_network(config) if config is not None and config.is_known else None

    @cached_property
    def _others(self) -> State:
        model = self._held.get("model")
        return model.state_dict() if isinstance(model, nn.Module) else {}

    @cached_property
    def _learnt(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what a row holds, in its order."""
        if self._network is None:
            return {_FLAT: tuple(self._held[_FLAT].shape[1:])}
        shapes = {n: tuple(p.shape) for n, p in self._network.named_parameters()}
        layers = self._held.get("train_layer", "all")
        if layers != "all" and not isinstance(layers, (list, tuple)):
            raise ConfigError(f"{self._held['path']}: `train_layer` is no list of names, nor `all`")
        return {n: s for n, s in shapes.items() if layers == "all" or n in layers}
