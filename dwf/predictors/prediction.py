"""Predictions of fitted predictors for the networks of any zoo, also for sampled ones.

runs/NAME/predicted/ZOO/ROW/seed-S.npz    columns keyed by checksum: properties, distance, flag
runs/NAME/predicted/ZOO/predicted.json    what they are, and scores where the zoo has measured some
runs/NAME/predicted/ZOO/PROPERTY.png      predicted against measured values, where there are some

Shape suffixes: N networks, P properties.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from sklearn.metrics import mean_absolute_error, r2_score

from dwf.errors import ConfigError, RunConflict, ShapeMismatch, WorkFailed
from dwf.files import read_json
from dwf.names import folder_in
from dwf.predictors import distance
from dwf.predictors.experiment import FILE as HEAD
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.predictor import Predictor
from dwf.predictors.properties import Columns
from dwf.predictors.report import draw_predictions
from dwf.predictors.row import Unit, is_finished, units_there
from dwf.run_folder import LEFTOVERS, hold, replacing, sweep, write_json
from dwf.same_settings import refuse_other_settings
from dwf.zoo.store import Zoo

FILE = "predicted.json"
VERSION = 1


@dataclass(frozen=True)
class Score:
    """A row's predictions of one property, compared with the measured values."""

    row: str
    seed: int
    property: str
    networks: int
    """Networks of which it was measured and told; of weights that overflow none is told."""
    mae: float
    r2: float | None
    tau: float | None
    """Kendall's tau-b; None where one of both is constant."""
    true_mean: float
    told_mean: float

    @property
    def title(self) -> str:
        """Row, seed and tau, over a panel of a figure."""
        tau = "-" if self.tau is None else f"{self.tau:.3f}"
        return f"{self.row}, seed {self.seed}\ntau {tau}"


@dataclass(frozen=True)
class Flags:
    """Networks that lie out of the distribution that predictors learnt from, and why."""

    distance_N: np.ndarray
    """Distance to the training networks of their layout; NaN where there are none."""
    is_sampled: bool
    """Whether a generator drew them."""
    knows_layout: bool
    limit: float
    """Distance above which a network is flagged."""

    @property
    def out_N(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """Whether each network is out of distribution."""
        if self.is_sampled or not self.knows_layout:
            return np.ones(len(self.distance_N), bool)
        return self.distance_N > self.limit

    def words(self) -> str:
        """Return how many networks are out of distribution, and why."""
        count = len(self.distance_N)
        if not self.knows_layout:
            return f"all {count} networks are out of distribution: no such layout was learnt from"
        far = int((self.distance_N > self.limit).sum())
        if self.is_sampled:
            return (
                f"all {count} networks are out of distribution: a generator drew them; {far} lie "
                "further from the training networks than 99 % of held-out ones"
            )
        return (
            f"{far} of {count} networks are out of distribution: further from the training "
            "networks than 99 % of held-out ones"
        )


@dataclass(frozen=True)
class Predicted:
    """Predictions for one zoo."""

    zoo: str
    fingerprint: str
    networks: int
    out_of_distribution: int
    why: str
    rows: tuple[str, ...]
    """Rows and seeds that told, as ROW/seed-S."""
    refused: dict[str, str]
    """Rows that could not tell, with the reason."""
    scores: tuple[Score, ...]
    folder: Path

    def lines(self) -> Iterator[str]:
        """Yield what was told, for a terminal."""
        yield f"{self.zoo}: {len(self.rows)} rows told of {self.networks} networks; {self.why}"
        for one in self.scores:
            r2, tau = ("-" if value is None else f"{value:.3f}" for value in (one.r2, one.tau))
            yield (
                f"  {one.row} (seed {one.seed}) {one.property}: mean {one.told_mean:.4f}, measured "
                f"{one.true_mean:.4f}; MAE {one.mae:.4f}, R2 {r2}, tau {tau} "
                f"({one.networks} networks)"
            )
        yield from (f"  {row} told nothing: {why}" for row, why in self.refused.items())
        if not self.scores:
            yield "  none of the properties was measured of this zoo: dwf measure does"
        yield f"predicted columns in {self.folder}"


def predict_zoo(config: ExperimentConfig, root: Path, *, name: str, zoo: str) -> Predicted:
    """Let the rows of an experiment that are finished tell of every row of a zoo.

    Args:
        config: the experiment's settings; the rows that are chosen tell.
        root: folder that holds zoos/ and runs/.
        name: the experiment's name.
        zoo: name of the zoo, also of samples that dwf sample drew.

    Raises:
        RunConflict: no such experiment, or one of other settings; or what was told is of another
            zoo of this name.
        WorkFailed: none of the rows is finished.
        ShapeMismatch: none knows the zoo's layout.
        NotAZoo, IncompleteZoo, CorruptShard: the zoo cannot be read.
    """
    run = folder_in(Path(root) / "runs", name).absolute()
    if not (run / HEAD).exists():
        raise RunConflict(f"{run} holds no experiment: fit one without --predict")
    refuse_other_settings(run / "run", config, free=("only", "seeds"))
    opened = Zoo.open(folder_in(Path(root) / "zoos", zoo))
    units = [unit for unit in units_there(run, config) if is_finished(run, unit)]
    if not units:
        raise WorkFailed(f"no row of {run} is finished: fit some without --predict")
    folder = run / "predicted" / zoo
    with hold(run / "run"):
        sweep(folder.rglob(LEFTOVERS))
        _refuse_other_zoo(folder, opened)
        return _predict(units, run, opened, folder, Path(root))


def _refuse_other_zoo(folder: Path, zoo: Zoo) -> None:
    file = folder / FILE
    if not file.exists():
        return
    told = read_json(file, keys=("fingerprint",))["fingerprint"]
    if told != zoo.fingerprint:
        raise RunConflict(
            f"{folder} is of a zoo {zoo.name} of fingerprint {told}, which now has "
            f"{zoo.fingerprint}: remove the folder"
        )


def _predict(units: list[Unit], run: Path, zoo: Zoo, folder: Path, root: Path) -> Predicted:
    flags, columns = _flags(run, zoo), Columns(zoo, root)
    said, refused, scores = list[str](), dict[str, str](), list[Score]()
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for unit in units:
        label = f"{unit.row}/seed-{unit.seed}"
        predictor = Predictor.load(unit.folder(run))
        try:
            values_NP = predictor.predict([(zoo, np.arange(len(zoo)))])
        except (ConfigError, ShapeMismatch) as error:  # a column, or a layout, that it lacks
            refused[label] = str(error)
            continue
        told = dict(zip(predictor.properties, values_NP.T, strict=True))
        _write(folder / f"{label}.npz", zoo, flags, told)
        said.append(label)
        for name, told_N in told.items():
            if score := _score(unit, columns, name, told_N):
                scores.append(score)
                drawn.setdefault(name, {})[score.title] = told_N
    if not said:
        raise ShapeMismatch(next(iter(refused.values())))
    for name, by_row in drawn.items():
        true_N = columns.read(name)
        known_N = np.isfinite(true_N)
        told = {title: told_N[known_N] for title, told_N in by_row.items()}
        draw_predictions(folder, true_N[known_N], told=told, name=name)
    made = Predicted(
        zoo=zoo.name,
        fingerprint=zoo.fingerprint,
        networks=len(zoo),
        out_of_distribution=int(flags.out_N.sum()),
        why=flags.words(),
        rows=tuple(said),
        refused=refused,
        scores=tuple(scores),
        folder=folder,
    )
    told = {name: value for name, value in asdict(made).items() if name != "folder"}
    write_json(folder / FILE, {"version": VERSION} | told)
    return made


def _flags(run: Path, zoo: Zoo) -> Flags:
    reference = distance.load(run).get(zoo.layout.digest)
    is_sampled = zoo.facts.sampled is not None
    if reference is None:
        return Flags(np.full(len(zoo), np.nan), is_sampled, knows_layout=False, limit=np.nan)
    features_NF = distance.features_of(zoo, np.arange(len(zoo)))
    distance_N = reference.distance(features_NF)
    return Flags(distance_N, is_sampled, knows_layout=True, limit=reference.limit)


def _write(file: Path, zoo: Zoo, flags: Flags, values: dict[str, np.ndarray]) -> None:
    arrays = {name: zoo.columns[name] for name in ("checksum", "network", "epoch")}
    arrays |= {"distance": flags.distance_N, "out_of_distribution": flags.out_N}
    with replacing(file) as partial, open(partial, "wb") as opened:
        np.savez(opened, **arrays, **values)


def _score(unit: Unit, columns: Columns, name: str, told_N: np.ndarray) -> Score | None:
    """Return how near a row's predictions are; None where nothing was measured."""
    if not columns.has(name):
        return None
    true_N = columns.read(name)
    known_N = np.isfinite(true_N) & np.isfinite(told_N)
    if not known_N.any():
        return None
    true_N, told_N = true_N[known_N], told_N[known_N]
    varies = np.ptp(true_N) > 0
    ranks = varies and np.ptp(told_N) > 0
    return Score(
        row=unit.row,
        seed=unit.seed,
        property=name,
        networks=len(true_N),
        mae=float(mean_absolute_error(true_N, told_N)),
        r2=float(r2_score(true_N, told_N)) if varies else None,
        tau=float(kendalltau(true_N, told_N).statistic) if ranks else None,
        true_mean=float(true_N.mean()),
        told_mean=float(told_N.mean()),
    )
