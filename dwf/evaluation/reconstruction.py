"""Reconstruction by a codec: error of each tensor, accuracy of the networks that come back.

Held-out networks, which the codec has not seen, are encoded, decoded and scored beside themselves,
and so are as many training networks. BatchNorm's running statistics are re-estimated for networks
that come back, as they are for drawn ones.

Shape suffixes: S networks of a set, B of one block of it, D numbers of a network, E its tensors,
M images of the split.
"""

import shlex
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.codecs.codec import ARRAYS, Codec, unreached_words
from dwf.devices import find_device
from dwf.errors import ConfigError, RunConflict, TooFewNetworks
from dwf.evaluation.config import BatchNormConfig, ReconstructionConfig
from dwf.evaluation.exchanged import exchanged
from dwf.evaluation.measure import (
    Rows,
    Scorer,
    check_accuracy,
    moments,
    refuse_broken_statistics,
    refuse_without_statistics,
)
from dwf.evaluation.report import (
    INDEX,
    STEPS,
    ReconstructedSet,
    Reconstruction,
    Record,
    print_reconstruction,
    reconstructed_set,
    save_timing,
    write_reconstruction,
)
from dwf.evaluation.stage import REPORT
from dwf.flags import name_and_root
from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import read_head
from dwf.generators.learning import origin_facts
from dwf.generators.subset import Subset
from dwf.metrics import Progress, logger
from dwf.names import folder_in
from dwf.plain import Json
from dwf.randomness import numpy_stream
from dwf.run_folder import RunFolder
from dwf.settings import to_dict
from dwf.stages import stage
from dwf.zoo.checksums import file_checksum
from dwf.zoo.store import Zoo


def report_fit(root: Path, name: str, *, config: GeneratorConfig) -> Reconstruction | None:
    """Report on the codec of a generator that was just fitted, where there is something to say.

    There is nothing of a codec that loses nothing; nor of a zoo whose networks cannot be scored,
    of which it warns: the generator is as good as without a report.
    """
    if config.codec.is_lossless:
        return None
    try:
        return report_reconstruction(root, name)
    except ConfigError as error:
        logger.warning("no report on what the codec of %s loses: %s", name, error)
        return None


def report_reconstruction(
    root: Path, name: str, *, config: ReconstructionConfig | None = None
) -> Reconstruction:
    """Measure what the codec of `root/runs/name` loses; write the report and print it.

    The codec must be fitted, the density need not be. Files: see `reconstruction_report.py`.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
        name: the generator's name; the report is `root/reports/NAME-reconstruction`, and of
            another zoo than the generator's `NAME-reconstruction-ZOO`.
        config: which networks; default: the test networks of the generator's zoo.

    Returns:
        The report; read from disk where it is finished already.

    Raises:
        RunConflict: no fitted codec has this name; the generator's zoo has changed; a finished
            report is about another codec or zoo; or another process is at it.
        ShapeMismatch: the codec was not fitted to the zoo's layout.
        TooFewNetworks: the zoo has neither held-out nor training networks.
        ConfigError: as `Reconstructor`, or see `refuse_without_statistics`.
        DataUnavailable: networks do not have the accuracies that their zoo records.
    """
    config, root = config or ReconstructionConfig(), Path(root)
    generator = root / "runs" / name
    origin, codec = read_head(generator)["origin"], Codec.load(generator / "codec")
    zoo = Zoo.open(folder_in(root / "zoos", config.zoo or origin["zoo"]))
    if config.zoo is None:
        _refuse_other_zoo(zoo, name, origin)
    title = f"{name}-reconstruction" + (f"-{config.zoo}" if config.zoo else "")
    about = {"codec": file_checksum(generator / "codec" / ARRAYS), "zoo": zoo.fingerprint}
    refuse = partial(_refuse_other_networks, about=about)
    folder = root / "reports" / title
    with stage(REPORT, folder, config=config, refuse_other=refuse) as run:
        if run is None:
            report = Reconstruction.load(folder)
        else:
            begun, training = time.monotonic(), _learnt_from(zoo, origin)
            report = _measure(config, codec, zoo, training, title, name)
            save_timing(folder, time.monotonic() - begun)
            write_reconstruction(
                report, folder, record=_record(folder, zoo, generator=name, config=config)
            )
            run.finish(headline=list(report.headline), about=about)
    print_reconstruction(report, folder)
    return report


def _record(folder: Path, zoo: Zoo, *, generator: str, config: ReconstructionConfig) -> Record:
    usual = to_dict(ReconstructionConfig())
    changed = {key: value for key, value in to_dict(config).items() if value != usual[key]}
    flags = [word for key, value in changed.items() for word in (f"--{key}", str(value))]
    command = shlex.join(["dwf", "reconstruction", f"runs/{generator}", *flags])
    _, root = name_and_root(folder, "reports")
    links = [
        ("all reports", root / INDEX),
        (f"generator {generator}", root / "runs" / generator),
        (f"zoo {zoo.name}", zoo.path),
    ]
    return Record.read(folder, page=folder, commands=[command], links=links)


def _refuse_other_zoo(zoo: Zoo, name: str, origin: dict[str, Json]) -> None:
    found = origin_facts(zoo, seed=0)["fingerprint"]
    if found != origin["fingerprint"]:
        raise RunConflict(
            f"{zoo.path} has fingerprint {found}, the generator {name} learnt from a zoo of "
            f"{origin['fingerprint']}: fit it again under another --name"
        )


def _refuse_other_networks(run: RunFolder, about: dict[str, Json]) -> None:
    """Refuse a finished report on another codec, or other networks, than are there now."""
    for what, now in about.items() if run.summary is not None else ():
        before = run.summary["about"][what]
        if before != now:
            raise RunConflict(
                f"{run.path} is about a {what} of fingerprint {before}, which now has {now}: "
                "remove the folder and give the command again"
            )


def _learnt_from(zoo: Zoo, origin: dict[str, Json]) -> np.ndarray:
    """Return the training rows that the codec learnt from: of `codec_zoos` always all."""
    names = [each["zoo"] for each in (origin, *origin.get("more_zoos", ()))]
    subset = Subset.read(origin) if zoo.name in names else None
    return zoo.rows("train", "last") if subset is None else subset.rows_of(zoo)


def _measure(
    config: ReconstructionConfig,
    codec: Codec,
    zoo: Zoo,
    training: np.ndarray,
    title: str,
    name: str,
) -> Reconstruction:
    measurer = Reconstructor(codec, zoo, config=config, training=training)
    chosen = choose_networks(zoo, config, training=training)
    sets, done = [], 0
    with Progress(
        f"reconstruct {zoo.name}", sum(map(len, chosen.values())), unit="networks"
    ) as bar:
        for words, rows in chosen.items():
            sets.append(measurer.measure(words, rows, progress=bar, done=done))
            done += len(rows)
    facts = {"generator": name, "codec": codec.config.kind} | measurer.facts
    for layer, words in unreached_words(measurer.unreached).items():
        facts[f"coded functions that no weights give, {layer}"] = words
    if codec.config.exchanges_tokens:
        facts |= measurer.null_arms(next(iter(chosen.values())))
    notes = [*[f"{STEPS}."] * zoo.is_one_network, *zoo.facts.caveats]
    return Reconstruction.of(
        title, config, sets=sets, tensors=measurer.tensors, facts=facts, notes=notes
    )


def choose_networks(
    zoo: Zoo, config: ReconstructionConfig, *, training: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return what they are -> rows, at the last epoch, of held-out and of training networks.

    Each has at most `config.networks`, drawn by seed, and there are no more training networks than
    held-out ones, if there are any of these.

    Args:
        zoo: whose networks.
        config: which split, how many.
        training: rows of the training networks that were learnt from; default: all.

    Raises:
        TooFewNetworks: there are neither.
    """
    held_out = zoo.rows(config.split, "last")
    training = zoo.rows("train", "last") if training is None else training
    most = min(len(held_out), config.networks) or config.networks

    def draw(rows: np.ndarray) -> np.ndarray:
        if len(rows) <= most:
            return rows
        return np.sort(numpy_stream(config.seed, "reconstruction").permutation(rows)[:most])

    chosen = {f"{config.split} networks": draw(held_out), "training networks": draw(training)}
    if not sum(map(len, chosen.values())):
        raise TooFewNetworks(
            f"{zoo.path} has neither {config.split} networks nor training networks: train a "
            "larger zoo"
        )
    return {words: rows for words, rows in chosen.items() if len(rows)}


class Reconstructor:
    """Encodes, decodes and scores networks of a zoo, block by block.

    Args:
        codec: fitted to the zoo's layout.
        zoo: whose networks.
        config: on which images networks are scored, and how.
        training: rows of the training networks that were learnt from, if any; errors are relative
            to the distance from their mean.

    Raises:
        ConfigError: there are no images of this split.
        ShapeMismatch: the codec was not fitted to the zoo's layout.
    """

    def __init__(
        self, codec: Codec, zoo: Zoo, *, config: ReconstructionConfig, training: np.ndarray
    ):
        self.codec, self.zoo, self.split = codec, zoo, config.split
        self.seed = config.seed
        spans = codec.spans_of(zoo.layout)
        self.data, self.network = zoo.load_data(), zoo.build_network()
        self.num_images = len(self.data.part(config.split))
        if not self.num_images:
            raise ConfigError(
                f"split = {config.split!r}: {zoo.path} was trained with data.validation = 0, so "
                "there are no such images: give split test"
            )
        self.mean_D = moments(Rows(zoo, training)).mean_D if len(training) else None
        device = find_device(config.device).type
        self.scorer = Scorer(
            self.network,
            zoo.layout,
            data=self.data,
            split=config.split,
            config=BatchNormConfig(config.images),
            template_D=np.zeros(zoo.layout.size),
            device=device,
            workers=config.workers,
            keep_answers=True,
        )
        covered = {
            entry.name: any(start <= entry.offset and entry.stop <= stop for start, stop in spans)
            for entry in zoo.layout.entries
        }
        self.aside = [e for e in zoo.layout.entries if not e.is_learnt and not covered[e.name]]
        self.entries = [e for e in zoo.layout.entries if e.size and e not in self.aside]
        self.tensors = [
            {"name": e.name, "shape": list(e.shape), "covered": covered[e.name]}
            for e in self.entries
        ]
        self.unreached: list[torch.Tensor] = []
        """Told by `Codec.draw` of the networks measured, some at a time."""
        self.facts = {
            "zoo": zoo.name,
            "numbers of a network": zoo.layout.size,
            "numbers that the codec covers": sum(stop - start for start, stop in spans),
            "device": device,
        }
        if self.scorer.buffers:
            self.facts["images for BatchNorm"] = self.scorer.num_images

    def measure(
        self, title: str, rows: np.ndarray, *, progress: Progress, done: int = 0
    ) -> ReconstructedSet:
        """Measure rows of the zoo; see `Reconstruction` for what is found.

        Args:
            title: what they are.
            rows: which.
            progress: told how many networks are done.
            done: networks that were done before.
        """
        refuse_without_statistics(self.zoo, rows, network=self.network, own=True)
        lost_E, energy_E, parts = np.zeros(len(self.entries)), np.zeros(len(self.entries)), []
        for rows_B, weights_BD, decoded_BD, beside_BD in self._blocks(rows, first=done):
            for i, entry in enumerate(self.entries):
                part = slice(entry.offset, entry.stop)
                wanted = weights_BD[:, part].astype(np.float64)
                lost_E[i] += np.square(decoded_BD[:, part] - wanted).sum()
                if self.mean_D is not None:
                    energy_E[i] += np.square(wanted - self.mean_D[part]).sum()
            parts.append(self._score(weights_BD, decoded_BD, beside_BD=beside_BD))
            done += len(rows_B)
            progress.update(done)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        check_accuracy(
            self.zoo,
            rows,
            accuracy_S=columns["original"],
            split=self.split,
            num_images=self.num_images,
        )
        columns = {"network": self.zoo.columns["network"][rows]} | columns
        return reconstructed_set(
            title, columns, lost_E=lost_E, energy_E=energy_E, tensors=self.tensors
        )

    def null_arms(self, rows: np.ndarray) -> dict[str, str]:
        """Return the accuracy of networks put together of tokens of several, in words by arm.

        Args:
            rows: the networks; of fewer than two there are none.
        """
        if len(rows) < 2:
            return {}
        layout, found = self.zoo.layout, {}
        codes = self.codec.encode(torch.from_numpy(self.zoo.read(rows)), layout)
        for title, arm in exchanged(codes, seed=self.seed).items():
            weights_ND = self.codec.draw(arm, layout, seed=self.seed).numpy()
            accuracy_N = 100 * self.scorer.score(weights_ND, "recalibrated")["accuracy_S"]
            said = f"{accuracy_N.mean():.2f} +- {accuracy_N.std(ddof=1):.2f} % (n = {len(rows)})"
            found[f"null arm, {title}: {self.split} accuracy"] = said
        return found

    def _blocks(
        self, rows: np.ndarray, first: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]]:
        """Yield (rows_B, weights_BD, decoded_BD, beside_BD); rows are held to their checksums.

        Running statistics that the codec leaves aside are the originals' in `decoded_BD`. In
        `beside_BD` what the codec draws is the originals', too; None where it draws nothing.
        """
        layout, beside_BD = self.zoo.layout, None
        for rows_B, weights_BD in self.zoo.stream(rows):
            refuse_broken_statistics(
                self.zoo, rows_B, weights_BD=weights_BD, buffers=self.scorer.buffers
            )
            codes = self.codec.encode(torch.from_numpy(weights_BD), layout)
            self.facts["numbers of a code"] = codes.shape.size
            decoded_BD = self.codec.draw(
                codes, layout, seed=self.seed, first=first, told=self.unreached.append
            ).numpy()
            if self.codec.config.draws_rest:
                weights = torch.from_numpy(weights_BD)
                beside_BD = self.codec.decode_beside(codes, layout, weights_ND=weights).numpy()
            first += len(rows_B)
            for entry in self.aside:
                part = slice(entry.offset, entry.stop)
                decoded_BD[:, part] = weights_BD[:, part]
            yield rows_B, weights_BD, decoded_BD, beside_BD
            if preemption.is_asked():
                preemption.stop()

    def _score(
        self, weights_BD: np.ndarray, decoded_BD: np.ndarray, *, beside_BD: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Return the measures of networks, float64_B each."""
        before = self.scorer.score(weights_BD, "own", compare=("recalibrated",))
        after = self.scorer.score(decoded_BD, "recalibrated", compare=("own",))
        found = {
            "original": before["accuracy_S"],
            "reconstructed": after["accuracy_S"],
            "drop": before["accuracy_S"] - after["accuracy_S"],
            "agreement": (before["answers_SM"] == after["answers_SM"]).mean(1),
            "original_loss": before["loss_S"],
            "reconstructed_loss": after["loss_S"],
        }
        if self.scorer.buffers:
            found["original_recalibrated"] = before["recalibrated"]
            found["reconstructed_own"] = after["own"]
        if beside_BD is not None:
            beside = self.scorer.score(beside_BD, "recalibrated")
            found["reconstructed_beside"] = beside["accuracy_S"]
            found["agreement_beside"] = (before["answers_SM"] == beside["answers_SM"]).mean(1)
        return found
