"""Train a cohort: N networks in one batched program, or one alone, each with its own recipe.

Each network has its own initial weights, shuffle and hyper-parameters; they share only the
arithmetic. A cohort saves itself by time and goes on bitwise equal: shuffles, augmentation and
dropout come from streams named by (network, epoch, step), so that no generator state needs saving.

Shape suffixes: N networks of the cohort, B images of a batch, M training images, D numbers of one
network, R rows of a snapshot.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.datasets.dataset import Dataset, Part
from dwf.metrics import logger
from dwf.networks.functional import Scores, score_networks
from dwf.randomness import torch_stream
from dwf.run_folder import load_state, replacing, save_state, write_json
from dwf.zoo import roster
from dwf.zoo.cohorts import prune
from dwf.zoo.cohorts.augment import augmented_batch, draw, join
from dwf.zoo.cohorts.keep import Keeper
from dwf.zoo.cohorts.program import GROUPED_BY, Drop, Method, Program, Start
from dwf.zoo.cohorts.schedule import cycled_momentum, learning_rate_factor
from dwf.zoo.cohorts.share import own_images, shuffled
from dwf.zoo.config import KeepBest, KeepSteps, ZooConfig

Report = Callable[[float, float | None], None]
"""Called after each step with the share of the cohort's work that is done and the mean validation
accuracy after its last epoch, None before the first has ended."""


class Cohort:
    """The networks of a cohort in training.

    Args:
        config: the zoo's settings.
        networks: the networks' indices in the zoo.
        data: images, labels and their preparation.
        folder: where its saves and snapshots lie.
        method: how it is computed; default: on the CPU, as it comes.
        start: networks to go on from, and what of them stays; default: a new initialisation.
    """

    def __init__(
        self,
        config: ZooConfig,
        networks: range,
        *,
        data: Dataset,
        folder: Path,
        method: Method | None = None,
        start: Start | None = None,
    ):
        self.config, self.recipe, self.data, self.folder = config, config.recipe, data, folder
        self.method = method or Method(len(networks))
        table = roster.hyper_parameters(config, networks)
        # Networks that share an optimiser's settings lie side by side: one fused update for all.
        order = np.lexsort([table[name] for name in reversed(GROUPED_BY)])
        self.networks = np.array(networks)[order]
        self.table = {name: values[order] for name, values in table.items()}
        self.start, self.own = start, self._own_images()
        self._order = order
        self.looks: list[tuple[int, list[float]]] = []
        self.name = f"cohort-{networks.start:07d}"
        self.program: Program | None = None
        self.keeper = Keeper(config, len(networks))
        self.epoch = self.step = 0
        self.diverged_N = torch.full((len(networks),), -1)  # the step, -1 while all is well
        self.train_loss_N = torch.zeros(len(networks))  # the sum over the steps of this epoch
        self.curve: list[dict[str, float]] = []
        self._saved_at = time.monotonic()

    # --- files ---------------------------------------------------------------------------------

    @property
    def done_path(self) -> Path:
        """Written last: the cohort is trained; its snapshots, diverged networks and curves."""
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
        """Train to the last step, from the last save if there is one; writes `done_path`."""
        self._begin()
        if self._at == 0:
            self._end_epoch()
        # A save after an epoch's last step has that epoch's end still before it.
        while (self.step or self._at < self.num_steps) and not self._is_over():
            self._train_epoch(report)
            self.epoch, self.step = self.epoch + 1, 0
            if self.epoch <= self.recipe.epochs:
                self._end_epoch()
        if isinstance(self.config.keep, KeepBest):
            self._keep_best()
        pairs = zip(self.networks.tolist(), self.diverged_N.tolist(), strict=True)
        diverged = [(n, step, "loss or weights not finite") for n, step in pairs if step >= 0]
        told = {"snapshots": self.keeper.snapshots, "diverged": sorted(diverged)}
        told |= {"looks": self.looks} if self.start else {}
        write_json(self.done_path, told | {"curve": self.curve})
        self.save_path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Free the memory of what was trained; the snapshots are on disk."""
        self.program, self.keeper.best_ND = None, None
        self.state = {}

    def time_steps(self, seconds: float, warm_up: int) -> float:
        """Return what a step takes, as the mean over about `seconds`; writes nothing.

        On the CPU that is processor time, which other work on the machine does not lengthen.
        """
        on_gpu = self.method.device == "cuda"
        clock = time.perf_counter if on_gpu else time.process_time
        if self.program is None:
            self._begin()
        batches = itertools.cycle(self._shuffle().split(self.recipe.batch_size, dim=1))
        for _ in range(warm_up):
            self._step(next(batches))
        began, done, took = clock(), 0, 0.0
        while not done or took < seconds:
            self._step(next(batches))
            if on_gpu:
                torch.cuda.synchronize()
            done, took = done + 1, clock() - began
        return took / done

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last one takes what images are left."""
        return -(-len(self.data.train) // self.recipe.batch_size)

    @property
    def num_steps(self) -> int:
        """Steps of the recipe's epochs, and those after them that become rows."""
        keep, epochs = self.config.keep, self.recipe.epochs * self.steps_per_epoch
        return epochs + (keep.rows * keep.every if isinstance(keep, KeepSteps) else 0)

    @property
    def _at(self) -> int:
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def _is_fine(self) -> np.ndarray:
        return self.diverged_N.cpu().numpy() < 0

    def _is_over(self) -> bool:
        """Whether no network has anything left to learn: all have diverged, or their rows."""
        return bool((self.keeper.is_over_N | ~self._is_fine).all())

    def _begin(self) -> None:
        device = self.method.device
        start = self.start
        frozen = start.frozen if start else ()
        self.program = Program(self.config, self.method, table=self.table, frozen=frozen)
        self.layout = self.program.layout
        weights_ND = start.weights_ND[torch.from_numpy(self._order)] if start else None
        self.program.start(self.networks.tolist(), weights_ND)
        self.state, self.train_part = self.program.state, _on(self.data.train, device)
        self.diverged_N = self.diverged_N.to(device)
        self.train_loss_N = self.train_loss_N.to(device)
        self._load()

    def _train_epoch(self, report: Report) -> None:
        if self.step == 0:
            self._begin_epoch()
        size, left = self.recipe.batch_size, self.num_steps - self.epoch * self.steps_per_epoch
        order_NM = self._shuffle()
        while self.step < min(self.steps_per_epoch, left):
            self._set_rate()
            self._step(order_NM[:, self.step * size : (self.step + 1) * size])
            self.step += 1
            self._keep_step()
            self._look_between()
            if time.monotonic() - self._saved_at > self.config.compute.save_seconds:
                self._save()
            if preemption.is_asked():
                self._save()
                preemption.stop()
            report(self._at / self.num_steps, self._latest_accuracy())

    def _latest_accuracy(self) -> float | None:
        return self.curve[-1]["val_accuracy"] if self.epoch and self.curve else None

    def _begin_epoch(self) -> None:
        self.train_loss_N.zero_()
        pruning = self.recipe.prune
        if pruning and self.epoch < self.recipe.epochs and prune.is_due(pruning, self.epoch):
            self.program.prune(prune.rounds_done(pruning, self.epoch) / pruning.rounds)
        if self.epoch == self.recipe.epochs:
            self._begin_tail()

    def _begin_tail(self) -> None:
        if isinstance(self.config.keep, KeepSteps):
            self.program.learn_only(self.config.keep)

    def _set_rate(self) -> None:
        if self.epoch >= self.recipe.epochs:
            return  # those steps have a rate of their own
        factor = learning_rate_factor(self.recipe, self._at, steps_per_epoch=self.steps_per_epoch)
        momentum = cycled_momentum(self.recipe, self._at, steps_per_epoch=self.steps_per_epoch)
        self.program.set_rate(factor, momentum)

    @property
    def _owners(self) -> list[int]:
        """The networks whose streams shuffle and augment."""
        shared = self.recipe.data_order == "shared"
        return [int(self.networks.min())] if shared else self.networks.tolist()

    def _shuffle(self) -> torch.Tensor:
        """Each network's order of the training images in this epoch, int64 [N or 1, M]."""
        num, seed = len(self.data.train), self.config.seed
        streams = [torch_stream(seed, "shuffle", owner, self.epoch) for owner in self._owners]
        if self.own is None:
            orders = [torch.randperm(num, generator=stream) for stream in streams]
        else:
            pairs = zip(self.own, streams, strict=True)
            orders = [shuffled(own_S, num, generator=stream) for own_S, stream in pairs]
        return torch.stack(orders).to(self.method.device)

    def _own_images(self) -> list[torch.Tensor] | None:
        """Which training images each network sees, int64_S; None where all see all."""
        if "data_share" not in self.table:
            return None
        num, seed = len(self.data.train), self.config.seed
        pairs = zip(self.networks.tolist(), self.table["data_share"].tolist(), strict=True)
        return [own_images(seed, network, num=num, share=share) for network, share in pairs]

    def _step(self, positions_NB: torch.Tensor) -> None:
        images, labels = self._take(positions_NB)
        inputs = self.data.prepare(images)
        own = self.recipe.data_order == "own"
        if own:
            inputs = inputs.unflatten(0, positions_NB.shape)
        labels_NB = labels.view(positions_NB.shape).expand(len(self.networks), -1)
        stream = ("dropout", int(self.networks.min()), self.epoch, self.step)
        drop = self._dropout() if self.program.is_stacked else None
        loss_N = self.program.step(inputs, labels_NB, own_inputs=own, drop=drop, stream=stream)
        bad_N = ~loss_N.isfinite() & (self.diverged_N < 0)
        self.diverged_N.masked_fill_(bad_N, self._at)
        self.train_loss_N += loss_N

    def _take(self, positions_NB: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images of a step as stored, augmented where the recipe says so, and labels."""
        positions, config = positions_NB.reshape(-1), self.recipe.augment
        channels_last = self.method.channels_last and len(self.data.shape) == 3
        if config is None:
            images, labels = self.train_part.batch(positions)
            order = torch.channels_last if channels_last else torch.preserve_format
            return images.contiguous(memory_format=order) if channels_last else images, labels
        draws = [
            draw(
                torch_stream(self.config.seed, "augment", owner, self.epoch, self.step),
                positions_NB.shape[1],
                flip=self.table["flip"][i].item(),
                pad=self.table["pad"][i].item(),
                jitter=self.table["jitter"][i].item(),
                jitter_probability=config.jitter_probability,
            )
            for i, owner in enumerate(self._owners)
        ]
        return augmented_batch(
            self.train_part, positions, draws=join(draws), channels_last=channels_last
        )

    def _dropout(self) -> Drop | None:
        if not self.table["dropout"].any():
            return None
        key = ("dropout", int(self.networks.min()), self.epoch, self.step)
        device = self.method.device
        stream = torch_stream(self.config.seed, *key, device=device)
        keep_N = 1 - torch.from_numpy(self.table["dropout"]).float()
        keep_N11 = keep_N.view(-1, 1, 1).to(device)

        def drop(hidden: torch.Tensor) -> torch.Tensor:
            kept = torch.rand(hidden.shape, generator=stream, device=device) < keep_N11
            return hidden * kept / keep_N11.clamp_min(1e-9)

        return drop

    # --- rows ----------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        """Score on validation images; keep the weights that become rows."""
        weights_ND = self._weights()
        val = self._score(self.state, self.data.val)
        self._look(val)
        fine_N = self._is_fine
        if fine_N.any():
            means = {
                "val_accuracy": val.accuracy_N[fine_N].mean(),
                "val_loss": val.loss_N[fine_N].mean(),
            }
            if self.epoch:
                train_loss_N = self.train_loss_N.cpu().numpy() / self.steps_per_epoch
                means["train_loss"] = train_loss_N[fine_N].mean()
            self.curve.append({"epoch": self.epoch} | {k: float(v) for k, v in means.items()})
        chosen_N = self.keeper.choose(self.epoch, val.accuracy_N, fine_N=fine_N)
        if chosen_N.any():
            self._write_snapshot(self.snapshot_path(self.epoch), weights_ND, chosen_N, val)
        pruned_N = prune.pruned_counts(self.program.masks, len(fine_N))
        self.keeper.follow_best(
            self.epoch, val.accuracy_N, fine_N=fine_N, weights_ND=weights_ND, pruned_N=pruned_N
        )

    def _weights(self) -> torch.Tensor:
        """Return weights_ND on the CPU; networks whose weights are not finite have diverged."""
        weights_ND = self.layout.flatten(self.state)
        # Finite weights whose squares overflow are of no use to any stage that measures distances.
        bad_N = ~weights_ND.norm(dim=1).isfinite() & (self.diverged_N < 0)
        self.diverged_N.masked_fill_(bad_N, self._at)
        return weights_ND.cpu()

    def _look_between(self) -> None:
        """Look at accuracies between two ends of epochs, where that is asked for."""
        every = self.start.look_every if self.start else None
        if every and self._at % every == 0 and self.step < self.steps_per_epoch:
            self._look(self._score(self.state, self.data.val))

    def _look(self, val: Scores) -> None:
        """Note each network's accuracy on validation images, in the order of their numbers."""
        if self.start:
            places = np.argsort(self.networks)
            self.looks.append((self._at, val.accuracy_N[places].tolist()))

    def _keep_step(self) -> None:
        """Keep the weights of every so many steps after the last epoch."""
        keep, after = self.config.keep, self._at - self.recipe.epochs * self.steps_per_epoch
        if not isinstance(keep, KeepSteps) or after <= 0 or after % keep.every:
            return
        weights_ND = self._weights()
        path = self.folder / f"{self.name}-step-{self._at:09d}.npz"
        all_N = np.ones(len(self.networks), bool)
        self._write_snapshot(path, weights_ND, all_N, self._score(self.state, self.data.val))

    def _keep_best(self) -> None:
        """Score the best weights of each network, and keep them."""
        keeper = self.keeper
        found_N = keeper.best_N >= 0
        if keeper.best_ND is None or not found_N.any():
            return
        path, state = self.folder / f"{self.name}-best.npz", self.layout.unflatten(keeper.best_ND)
        epochs_N, pruned_N = keeper.best_epoch_N, keeper.best_pruned_N
        val = self._score(state, self.data.val)
        self._write_snapshot(path, keeper.best_ND, found_N, val, state, epochs_N, pruned_N)

    def _score(
        self,
        state: dict[str, torch.Tensor],
        part: Part,
        *,
        counted_NM: torch.Tensor | None = None,
    ) -> Scores:
        detached = {name: tensor.detach() for name, tensor in state.items()}
        return score_networks(
            self.program.network,
            detached,
            data=self.data,
            part=part,
            device=self.method.device,
            counted_NM=counted_NM,
        )

    def _score_train(self, state: dict[str, torch.Tensor]) -> Scores:
        """Score on the first training images, of each network on those that it sees."""
        train = self.data.train
        part = dataclasses.replace(train, index=train.index[: self.config.train_scores])
        if self.own is None:
            return self._score(state, part)
        counted_NM = torch.zeros(len(self.own), len(train), dtype=torch.bool)
        for counted_M, own_S in zip(counted_NM, self.own, strict=True):
            counted_M[own_S] = True
        return self._score(state, part, counted_NM=counted_NM[:, : len(part)])

    def _write_snapshot(
        self,
        path: Path,
        weights_ND: torch.Tensor,
        chosen_N: np.ndarray,
        val: Scores,
        state: dict[str, torch.Tensor] | None = None,
        epochs_N: np.ndarray | None = None,
        pruned_N: np.ndarray | None = None,
    ) -> None:
        """Write the rows of some networks: what they are, weights and scores."""
        state = self.state if state is None else state
        if pruned_N is None:
            pruned_N = prune.pruned_counts(self.program.masks, len(chosen_N))
        steps_N = np.full(len(chosen_N), self._at)
        if epochs_N is None:
            epochs_N = np.full(len(chosen_N), self.epoch)
        else:
            steps_N = epochs_N * self.steps_per_epoch
        columns = {"network": self.networks, "epoch": epochs_N, "step": steps_N}
        columns |= {"pruned": pruned_N} if self.recipe.prune else {}
        parts = {"train": self._score_train(state), "val": val}
        parts["test"] = self._score(state, self.data.test)
        columns |= {f"{part}_accuracy": scores.accuracy_N for part, scores in parts.items()}
        columns |= {f"{part}_loss": scores.loss_N for part, scores in parts.items()}
        places = np.argsort(self.networks)
        places = places[chosen_N[places]]
        columns = {name: values[places] for name, values in columns.items()}
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, weights=weights_ND.numpy()[places], **columns)
        if path.name not in self.keeper.snapshots:
            self.keeper.snapshots.append(path.name)

    # --- saves ---------------------------------------------------------------------------------

    def _save(self) -> None:
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "state": {name: tensor.detach() for name, tensor in self.state.items()},
            "counters": self.program.counters,
            "optimizers": {k: o.state_dict() for k, o in self.program.optimizers.items()},
            "masks": self.program.masks,
            "keeper": self.keeper.state(),
            "diverged": self.diverged_N,
            "train_loss": self.train_loss_N,
            "curve": json.dumps(self.curve),
            "looks": json.dumps(self.looks),
        }
        save_state(self.save_path, state)
        self._saved_at = time.monotonic()

    def _load(self) -> None:
        if not self.save_path.exists():
            return
        saved = load_state(self.save_path, self.method.device)
        self.epoch, self.step = saved["epoch"], saved["step"]
        if self.epoch >= self.recipe.epochs:
            self._begin_tail()
        with torch.no_grad():
            for name, tensor in saved["state"].items():
                self.state[name].copy_(tensor)
            for name, tensor in saved["counters"].items():
                self.program.counters[name].copy_(tensor)
        for kind, state in saved["optimizers"].items():
            self.program.optimizers[kind].load_state_dict(state)
        self.program.masks = saved["masks"]
        self.keeper.load(saved["keeper"])
        self.diverged_N.copy_(saved["diverged"])
        self.train_loss_N.copy_(saved["train_loss"])
        self.curve, self.looks = json.loads(saved["curve"]), json.loads(saved["looks"])
        logger.info("%s goes on from epoch %d, step %d", self.name, self.epoch, self.step)


def _on(part: Part, device: str) -> Part:
    """Return a part with its images on a device."""
    return Part(part.images.to(device), part.labels.to(device), index=part.index.to(device))
