"""Measure of the user's own: a function of theirs, imported by name where they named it.

Shape suffixes: N networks, M images.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.measurements.config import OwnConfig
from dwf.measurements.folder import Column
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.trust import refuse_stranger
from dwf.zoo.facts import Facts


class Own(Measure):
    """A measure by a function of the user's."""

    config: OwnConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_COLUMN` for each of its columns; its code is found, not yet called."""
        self._function()
        images = len(pictures.part(self.part, self.config.images))
        column = Column(self.name, self.part, images=images, is_share=self.config.share)
        return {f"{self.prefix}_{name}": column for name in self.config.columns}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return what it says of each network.

        Raises:
            ConfigError: it fails, or returns other columns or other numbers than N.
        """
        part = block.pictures.part(self.part, self.config.images)
        stored, labels_M = part.batch(torch.arange(len(part)))
        images_MX = block.pictures.data.prepare(stored.to(block.device))
        try:
            told = self._function()(
                block.network,
                {name: tensor.clone() for name, tensor in block.state.items()},  # other measures'
                images_MX,
                labels_M.to(block.device),
                **self.config.arguments,
            )
        except Exception as error:  # the user's code: any of its errors is theirs to mend
            raise self._error(f"failed with {type(error).__name__}: {error}") from error
        return self._checked(told, len(block))

    def _checked(self, told: object, num: int) -> dict[str, np.ndarray]:
        if not isinstance(told, Mapping) or set(told) != set(self.config.columns):
            got = sorted(map(str, told)) if isinstance(told, Mapping) else type(told).__name__
            raise self._error(
                f"returned {got}, expected a dictionary with {', '.join(self.config.columns)}"
            )
        found = {}
        for name in self.config.columns:
            values_N = torch.as_tensor(told[name]).detach().cpu().double().numpy()
            if values_N.shape != (num,):
                raise self._error(
                    f"returned {name} of shape {list(values_N.shape)}, expected a number for each "
                    f"of {num} networks"
                )
            found[f"{self.prefix}_{name}"] = values_N
        return found

    def _function(self) -> Callable[..., object]:
        refuse_stranger(self.config.target, f"measures.{self.name}.target")
        if os.getcwd() not in sys.path:  # as for networks of the user's own
            sys.path.append(os.getcwd())
        module, _, name = self.config.target.partition(":")
        try:
            found: object = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:  # at import a module of the user's can raise anything
            loaded = sys.modules.get(module)
            file = loaded and vars(loaded).get("__file__")
            where = f" from {file}" if file else ""
            raise self._error(
                f"cannot be imported{where} ({type(error).__name__}: {error}); give the command in "
                "the folder that holds it, or install its package"
            ) from error
        if not callable(found):
            raise self._error(f"is {type(found).__name__}, expected a function")
        return found

    def _error(self, words: str) -> ConfigError:
        return ConfigError(f"measures.{self.name}.target = {self.config.target!r}: it {words}")
