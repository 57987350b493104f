"""Gradient-boosted trees (LightGBM), an ensemble for each property.

Missing features are LightGBM's own affair: a branch learns where they go. An ensemble is kept as
the library's own text, in which nothing is executed.

Shape suffixes: N networks, B networks of a block, F features, P properties.
"""

import lightgbm
import numpy as np

from dwf.errors import ConfigError
from dwf.plain import Json, State
from dwf.predictors.head_config import BoostingConfig
from dwf.predictors.heads import Head, Labelled, Table, refuse_no_choice, stop_if_asked
from dwf.randomness import seed_of
from dwf.run_folder import RunPart


class Boosting(Head):
    """Trees of each property, as many as are best on validation networks."""

    settings = BoostingConfig
    config: BoostingConfig
    ensembles: list[lightgbm.Booster]

    def _fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        refuse_no_choice("boosting", val)
        x_NF, val_x_NF = _whole(train.features), _whole(val.features)
        wanted_NP, val_wanted_NP = (self.targets.apply(some.values_NP) for some in (train, val))
        self.ensembles, errors = [], []
        for place in range(wanted_NP.shape[1]):
            told = lightgbm.Dataset(x_NF, wanted_NP[:, place], params=self._parameters(seed, place))
            held_out = told.create_valid(val_x_NF, val_wanted_NP[:, place])
            grown = self._grow(told, held_out, self._parameters(seed, place))
            errors.append(grown.best_score["val"]["l2"])
            self.ensembles.append(_read(grown.model_to_string(num_iteration=grown.best_iteration)))
        return {"trees": [each.num_trees() for each in self.ensembles], "val_errors": errors}

    def _grow(
        self, told: lightgbm.Dataset, held_out: lightgbm.Dataset, parameters: dict[str, Json]
    ) -> lightgbm.Booster:
        return lightgbm.train(
            parameters,
            told,
            num_boost_round=self.config.trees,
            valid_sets=[held_out],
            valid_names=["val"],
            callbacks=[
                lambda _: stop_if_asked(),
                lightgbm.early_stopping(self.config.patience, verbose=False),
            ],
        )

    def _parameters(self, seed: int, place: int) -> dict[str, Json]:
        config = self.config
        return {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": config.learning_rate,
            "num_leaves": config.leaves,
            "min_data_in_leaf": config.least_in_leaf,
            "feature_fraction": config.features,
            "bagging_fraction": config.networks,
            "bagging_freq": 1,
            "lambda_l2": config.penalty,
            "seed": seed_of(seed, "trees", place) % 2**31,
            "deterministic": True,  # with one thread: equal settings, equal trees
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }

    def _tell(self, features_BF: np.ndarray, last: bool) -> np.ndarray:
        x_BF = np.asarray(features_BF, np.float64)
        said = [each.predict(x_BF, num_threads=1) for each in self.ensembles]
        return np.stack(said, 1)

    def _own(self) -> State:
        return [each.model_to_string() for each in self.ensembles]

    def _take_own(self, own: State) -> None:
        self.ensembles = [_read(text) for text in own]


def _whole(features: Table) -> np.ndarray:
    features_NF = features.window(0, features.shape[1]).astype(np.float64)
    if np.isinf(features_NF).any():
        raise ConfigError(
            f"features of {int(np.isinf(features_NF).any(1).sum())} of {len(features)} networks "
            "are infinite: their training diverged; leave these networks out"
        )
    return features_NF


def _read(text: str) -> lightgbm.Booster:
    """Return an ensemble from its text: so the one that was grown is the one that is kept."""
    return lightgbm.Booster(model_str=text)
