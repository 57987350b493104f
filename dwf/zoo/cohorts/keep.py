"""Which weights of a cohort become rows, and when a cohort is done before its last epoch.

Shape suffixes: N networks of the cohort, D numbers of one network.
"""

import numpy as np
import torch

from dwf.plain import State
from dwf.zoo.config import KeepAbove, KeepBest, ZooConfig


class Keeper:
    """Chooses rows by epoch, by accuracy on validation images, or leaves it to later steps.

    Args:
        config: the zoo's settings.
        num_networks: N.
    """

    def __init__(self, config: ZooConfig, num_networks: int):
        self.keep, self.epochs_kept = config.keep, config.epochs_kept
        # A network that is to be pruned is not itself before it has been.
        self.first_epoch = config.recipe.prune.last_epoch if config.recipe.prune else 1
        self.snapshots: list[str] = []
        self.count_N = np.zeros(num_networks, np.int64)
        self.best_N = np.full(num_networks, -1.0)
        self.best_epoch_N = np.zeros(num_networks, np.int64)
        self.best_pruned_N = np.zeros(num_networks, np.int64)
        self.is_over_N = np.zeros(num_networks, bool)
        self.best_ND: torch.Tensor | None = None

    def choose(self, epoch: int, accuracy_N: np.ndarray, *, fine_N: np.ndarray) -> np.ndarray:
        """Return which networks' weights become rows at the end of an epoch, bool of shape [N].

        Args:
            epoch: epochs that are over; 0: the initial weights.
            accuracy_N: on validation images.
            fine_N: networks that have not diverged.
        """
        none_N = np.zeros(len(fine_N), bool)
        if self.keep is None:
            return ~none_N if epoch in self.epochs_kept else none_N
        if not isinstance(self.keep, KeepAbove) or epoch < self.first_epoch:
            return none_N
        chosen_N = fine_N & ~self.is_over_N & (accuracy_N >= self.keep.accuracy)
        self.count_N += chosen_N
        self.is_over_N |= self.count_N >= self.keep.rows
        return chosen_N

    def follow_best(
        self,
        epoch: int,
        accuracy_N: np.ndarray,
        *,
        fine_N: np.ndarray,
        weights_ND: torch.Tensor,
        pruned_N: np.ndarray,
    ) -> None:
        """Take note of the networks that are better than ever before; arguments as in `choose`."""
        if not isinstance(self.keep, KeepBest) or epoch < self.first_epoch:
            return
        better_N = fine_N & ~self.is_over_N & (accuracy_N > self.best_N)
        self.best_ND = weights_ND.clone() if self.best_ND is None else self.best_ND
        self.best_ND[torch.from_numpy(better_N)] = weights_ND[torch.from_numpy(better_N)]
        self.best_N[better_N] = accuracy_N[better_N]
        self.best_epoch_N[better_N] = epoch
        self.best_pruned_N[better_N] = pruned_N[better_N]
        if self.keep.patience is not None:
            since_N = epoch - np.maximum(self.best_epoch_N, self.first_epoch)
            self.is_over_N |= since_N >= self.keep.patience

    def state(self) -> dict[str, State]:
        """Return what a save holds."""
        names = ("count_N", "best_N", "best_epoch_N", "best_pruned_N", "is_over_N")
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in names}
        return arrays | {"best_ND": self.best_ND, "snapshots": self.snapshots}

    def load(self, state: dict[str, State]) -> None:
        """Go on from a save."""
        for name, value in state.items():
            is_array = name.endswith("_N") and isinstance(value, torch.Tensor)
            setattr(self, name, value.numpy() if is_array else value)
