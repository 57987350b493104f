"""Train a cohort: N networks in one batched program, each with a recipe of its own.

Each network has its own initial weights, shuffle and hyper-parameters; they share only the
arithmetic. A cohort saves itself by time and goes on bitwise equal: shuffles and dropout come from
streams named by (network, epoch, step), so that no generator state needs saving.

Shape suffixes: N networks of the cohort, B images of a batch, M training images, D numbers of one
network.
"""

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from dwf import preemption
from dwf.datasets.dataset import Dataset
from dwf.metrics import logger
from dwf.networks.functional import Scores, build_network, run_networks, score_networks
from dwf.networks.initialisation import initialise
from dwf.randomness import torch_stream
from dwf.run_folder import load_state, replacing, save_state, write_json
from dwf.zoo import plan
from dwf.zoo.config import RecipeConfig, ZooConfig
from dwf.zoo.layout import Layout

_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_STEPS_BETWEEN_REPORTS = 50
_GROUPED_BY = ("optimizer", "learning_rate", "weight_decay", "momentum")

Report = Callable[[float, float | None], None]
"""Called with the share of the cohort's work that is done and the mean validation accuracy after
its last epoch, None before the first has ended."""


def learning_rate_factor(recipe: RecipeConfig, epoch: int) -> float:
    """Return what the learning rate is multiplied with in an epoch, counted from 0."""
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / recipe.epochs))
    if recipe.schedule == "step":
        return recipe.step_factor ** (epoch // recipe.step_epochs)
    return 1.0


class Cohort:
    """The networks of a cohort in training.

    Args:
        config: the zoo's settings.
        networks: the networks' indices in the zoo.
        data: images, labels and their preparation.
        folder: where its saves and snapshots lie.
    """

    def __init__(self, config: ZooConfig, networks: range, data: Dataset, folder: Path):
        self.config, self.recipe, self.data, self.folder = config, config.recipe, data, folder
        table = plan.hyper_parameters(config, networks)
        # Networks that share an optimiser's settings lie side by side: one fused update for all.
        order = np.lexsort([table[name] for name in reversed(_GROUPED_BY)])
        self.networks = np.array(networks)[order]
        self.table = {name: values[order] for name, values in table.items()}
        self.name = f"cohort-{networks.start:07d}"
        self.network = build_network(config.network)
        self.layout = Layout.of(self.network)
        self.epoch = self.step = 0
        self.diverged_N = torch.full((len(networks),), -1)  # the step, -1 while all is well
        self.curve: list[dict[str, float]] = []
        self._saved_at = time.monotonic()

    # --- files ---------------------------------------------------------------------------------

    @property
    def done_path(self) -> Path:
        """Written last: the cohort is trained; diverged networks and curves."""
        return self.folder / f"{self.name}.json"

    @property
    def save_path(self) -> Path:
        """State of a cohort in work."""
        return self.folder / f"{self.name}.pt"

    def snapshot_path(self, epoch: int) -> Path:
        """Weights and scores after an epoch."""
        return self.folder / f"{self.name}-epoch-{epoch:05d}.npz"

    # --- training ------------------------------------------------------------------------------

    def train(self, report: Report = lambda share, accuracy: None) -> None:
        """Train to the last epoch, from the last save if there is one; writes `done_path`."""
        self._begin()
        if self.epoch == 0 and self.step == 0:
            self._end_epoch()
        while self.epoch < self.recipe.epochs:
            self._train_epoch(report)
            self.epoch, self.step = self.epoch + 1, 0
            self._end_epoch()
        pairs = zip(self.networks.tolist(), self.diverged_N.tolist(), strict=True)
        diverged = [(n, step, "loss or weights not finite") for n, step in pairs if step >= 0]
        write_json(self.done_path, {"diverged": sorted(diverged), "curve": self.curve})
        self.save_path.unlink(missing_ok=True)

    def time_steps(self, seconds: float, warm_up: int) -> float:
        """Return what a step takes, as the mean over about `seconds`; writes nothing."""
        self._begin()
        order_NM = self._shuffle()
        batches = itertools.cycle(order_NM.split(self.recipe.batch_size, dim=1))
        for _ in range(warm_up):
            self._step(next(batches))
        began, done, took = time.perf_counter(), 0, 0.0
        while took < seconds:
            self._step(next(batches))
            done, took = done + 1, time.perf_counter() - began
        return took / done

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one takes what images are left."""
        return -(-len(self.data.train) // self.recipe.batch_size)

    def _latest_accuracy(self) -> float | None:
        return self.curve[-1]["val_accuracy"] if self.epoch and self.curve else None

    def _begin(self) -> None:
        rows = []
        for network, kind in zip(self.networks, self.table["initialisation"], strict=True):
            initialise(self.network, str(kind), plan.network_seed(self.config, int(network)))
            rows.append(self.layout.flatten(self.network.state_dict()))
        views = self.layout.unflatten(torch.stack(rows))
        self.state = {name: view.contiguous() for name, view in views.items()}
        parameters = dict(self.network.named_parameters())
        self.learnt = [
            self.state[name].requires_grad_() for name in self.state if name in parameters
        ]
        self._make_optimizers()
        self._load()

    def _make_optimizers(self) -> None:
        """One optimiser of each kind; its groups are the runs of networks with equal settings."""
        self.slices: list[tuple[torch.Tensor, torch.Tensor, slice]] = []
        groups: dict[str, list[dict[str, Any]]] = {}
        for rows in plan.equal_runs(self.table, _GROUPED_BY):
            first = {name: self.table[name][rows.start].item() for name in _GROUPED_BY}
            kind = first["optimizer"]
            parts = [tensor.detach()[rows] for tensor in self.learnt]
            self.slices += [(p, t, rows) for p, t in zip(parts, self.learnt, strict=True)]
            group = {"params": parts, "lr": first["learning_rate"], "base": first["learning_rate"]}
            group["weight_decay"] = first["weight_decay"]
            if kind == "sgd":
                group["momentum"] = first["momentum"]
            groups.setdefault(kind, []).append(group)
        self.optimizers = {
            kind: _OPTIMIZERS[kind](parts, lr=1e-3, fused=True) for kind, parts in groups.items()
        }

    def _train_epoch(self, report: Report) -> None:
        order_NM = self._shuffle()
        factor = learning_rate_factor(self.recipe, self.epoch)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
        size = self.recipe.batch_size
        while self.step < self.steps_per_epoch:
            self._step(order_NM[:, self.step * size : (self.step + 1) * size])
            self.step += 1
            if time.monotonic() - self._saved_at > self.config.save_seconds:
                self._save()
            if preemption.is_asked():
                self._save()
                preemption.stop()
            at = self.epoch * self.steps_per_epoch + self.step
            if at % _STEPS_BETWEEN_REPORTS == 0:
                share = at / (self.recipe.epochs * self.steps_per_epoch)
                report(share, self._latest_accuracy())

    def _shuffle(self) -> torch.Tensor:
        """Each network's order of the training images in this epoch, int64 [N or 1, M]."""
        shared = self.recipe.data_order == "shared"
        owners = [int(self.networks.min())] if shared else self.networks.tolist()
        num = len(self.data.train)
        orders = [
            torch.randperm(
                num, generator=torch_stream(self.config.seed, "shuffle", owner, self.epoch)
            )
            for owner in owners
        ]
        return torch.stack(orders)

    def _step(self, positions_NB: torch.Tensor) -> None:
        images, labels = self.data.train.batch(positions_NB.reshape(-1))
        inputs = self.data.prepare(images)
        own = self.recipe.data_order == "own"
        if own:
            inputs = inputs.unflatten(0, positions_NB.shape)
        logits_NBK = run_networks(self.network, self.state, inputs, own, self._dropout())
        labels_NB = labels.view(positions_NB.shape).expand(logits_NBK.shape[:2])
        losses_NB = cross_entropy(logits_NBK.transpose(1, 2), labels_NB, reduction="none")
        loss_N = losses_NB.mean(1)
        for tensor in self.learnt:
            tensor.grad = None
        loss_N.sum().backward()  # each network's gradient is its own: the sum mixes nothing
        for part, whole, rows in self.slices:
            part.grad = whole.grad[rows]
        for optimizer in self.optimizers.values():
            optimizer.step()
        at = self.epoch * self.steps_per_epoch + self.step
        bad_N = ~loss_N.detach().isfinite() & (self.diverged_N < 0)
        self.diverged_N.masked_fill_(bad_N, at)

    def _dropout(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        if not self.table["dropout"].any():
            return None
        key = ("dropout", int(self.networks.min()), self.epoch, self.step)
        stream = torch_stream(self.config.seed, *key)
        keep_N11 = 1 - torch.from_numpy(self.table["dropout"]).float().view(-1, 1, 1)

        def drop(hidden: torch.Tensor) -> torch.Tensor:
            kept = torch.rand(hidden.shape, generator=stream) < keep_N11
            return hidden * kept / keep_N11.clamp_min(1e-9)

        return drop

    # --- saves and snapshots -------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Score on validation images; keep the weights if this epoch becomes rows."""
        weights_ND = self.layout.flatten(self.state)
        # Finite weights whose squares overflow are of no use to any stage that measures distances.
        bad_N = ~weights_ND.norm(dim=1).isfinite() & (self.diverged_N < 0)
        self.diverged_N.masked_fill_(bad_N, self.epoch * self.steps_per_epoch)
        val = self._score(self.data.val)
        fine = self.diverged_N.numpy() < 0
        if fine.any():
            means = {
                "val_accuracy": val.accuracy_N[fine].mean(),
                "val_loss": val.loss_N[fine].mean(),
            }
            self.curve.append({"epoch": self.epoch} | {k: float(v) for k, v in means.items()})
        if self.epoch in self.config.epochs_kept:
            self._write_snapshot(weights_ND.numpy(), val)

    def _score(self, part: Any) -> Scores:
        detached = {name: tensor.detach() for name, tensor in self.state.items()}
        return score_networks(self.network, detached, self.data, part)

    def _write_snapshot(self, weights_ND: np.ndarray, val: Scores) -> None:
        parts = {"train": self._score(self.data.train), "val": val}
        parts["test"] = self._score(self.data.test)
        facts = {f"{part}_accuracy": scores.accuracy_N for part, scores in parts.items()}
        facts |= {f"{part}_loss": scores.loss_N for part, scores in parts.items()}
        by_network = np.argsort(self.networks)
        ordered = {name: values[by_network] for name, values in facts.items()}
        with replacing(self.snapshot_path(self.epoch)) as partial, open(partial, "wb") as file:
            np.savez(file, weights=weights_ND[by_network], **ordered)

    def _save(self) -> None:
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "state": {name: tensor.detach() for name, tensor in self.state.items()},
            "optimizers": {kind: o.state_dict() for kind, o in self.optimizers.items()},
            "diverged": self.diverged_N,
            "curve": json.dumps(self.curve),
        }
        save_state(self.save_path, state)
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        if not self.save_path.exists():
            return
        saved = load_state(self.save_path)
        self.epoch, self.step = saved["epoch"], saved["step"]
        with torch.no_grad():
            for name, tensor in saved["state"].items():
                self.state[name].copy_(tensor)
        for kind, state in saved["optimizers"].items():
            self.optimizers[kind].load_state_dict(state)
        self.diverged_N.copy_(saved["diverged"])
        self.curve = json.loads(saved["curve"])
        logger.info("%s goes on from epoch %d, step %d", self.name, self.epoch, self.step)
