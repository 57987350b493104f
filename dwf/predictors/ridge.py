"""Ridge regression on any number of features, in closed form.

With standardised features X and values Y the weights under a penalty a are

    W = (X'X + a)^-1 X'Y = X' (XX' + a)^-1 Y        (Hoerl and Kennard, Technometrics 12, 1970)

so the smaller of the two matrices is summed up block by block and decomposed once, and every
penalty costs a product. Neither form holds all of X.

Shape suffixes: N networks, V held-out networks, F features, W features of a
window, P properties, A penalties, K the smaller of N and F.
"""

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from dwf.errors import ConfigError
from dwf.plain import Json, State
from dwf.predictors.head_config import RidgeConfig
from dwf.predictors.heads import Head, Labelled, Scaling, Table, refuse_no_choice
from dwf.run_folder import RunPart

MOST = 16_384
"""Most rows of the matrix that is decomposed: of the networks, or of the features."""


class Ridge(Head):
    """Weights of each property under its own penalty, that of the least error on validation."""

    settings = RidgeConfig
    config: RidgeConfig
    scaling: Scaling
    weights_FP: np.ndarray

    def _fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        refuse_no_choice("ridge", val)
        self._refuse_large(train.features)
        self.scaling = Scaling.of(train.features)
        config = self.config
        penalties_A = np.geomspace(config.smallest, config.largest, config.penalties)
        is_dual = len(train) < train.features.shape[1]
        solve = self._solve_dual if is_dual else self._solve_primal
        with _one_thread():
            chosen_P, errors_P = solve(train, val, penalties_A)
        return {
            "features": int((self.scaling.factor_F > 0).sum()),
            "form": "dual" if is_dual else "primal",
            "penalties": penalties_A[chosen_P].tolist(),
            "val_errors": errors_P.tolist(),
        }

    def _refuse_large(self, features: Table) -> None:
        if min(features.shape) > MOST:
            raise ConfigError(
                f"ridge of {features.shape[0]} networks and {features.shape[1]} features: the "
                f"smaller number is above {MOST}; learn from at most {MOST} networks, or use the "
                "head perceptron"
            )

    def _solve_primal(
        self, train: Labelled, val: Labelled, penalties_A: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the weights by the features' products; return what `_choose` does."""
        features, wanted_NP = train.features, self.targets.apply(train.values_NP)
        size = features.shape[1]
        products_FF, moments_FP = np.zeros((size, size)), np.zeros((size, wanted_NP.shape[1]))
        for places_B in features.blocks():
            scaled_BF = self.scaling.apply(features.rows(places_B))
            products_FF += scaled_BF.T @ scaled_BF
            moments_FP += scaled_BF.T @ wanted_NP[places_B]
        weights_AFP = _under_every(products_FF, moments_FP, penalties_A)
        said = [
            self.scaling.apply(val.features.rows(places_B)) @ weights_AFP
            for places_B in val.features.blocks()
        ]
        chosen_P, errors_P = self._choose(np.concatenate(said, 1), val)
        self.weights_FP = _each_own(weights_AFP, chosen_P)
        return chosen_P, errors_P

    def _solve_dual(
        self, train: Labelled, val: Labelled, penalties_A: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the weights by the networks' products; return what `_choose` does."""
        features, wanted_NP = train.features, self.targets.apply(train.values_NP)
        gram_NN, cross_VN = np.zeros((len(train), len(train))), np.zeros((len(val), len(train)))
        for start, stop in features.windows():
            scaled_NW = self._window(features, start, stop)
            gram_NN += scaled_NW @ scaled_NW.T
            cross_VN += self._window(val.features, start, stop) @ scaled_NW.T
        dual_ANP = _under_every(gram_NN, wanted_NP, penalties_A)
        chosen_P, errors_P = self._choose(cross_VN @ dual_ANP, val)
        dual_NP = _each_own(dual_ANP, chosen_P)
        self.weights_FP = np.empty((features.shape[1], wanted_NP.shape[1]))
        for start, stop in features.windows():
            self.weights_FP[start:stop] = self._window(features, start, stop).T @ dual_NP
        return chosen_P, errors_P

    def _window(self, features: Table, start: int, stop: int) -> np.ndarray:
        return self.scaling.apply(features.window(start, stop), start, stop=stop)

    def _choose(self, said_AVP: np.ndarray, val: Labelled) -> tuple[np.ndarray, np.ndarray]:
        """Return which penalty each property has, and its mean squared error, of the targets."""
        errors_AP = np.square(said_AVP - self.targets.apply(val.values_NP)).mean(1)
        return errors_AP.argmin(0), errors_AP.min(0)

    def _tell(self, features_BF: np.ndarray, last: bool) -> np.ndarray:
        with _one_thread():
            return self.scaling.apply(features_BF) @ self.weights_FP

    def _own(self) -> State:
        return {"scaling": self.scaling.state(), "weights_FP": torch.from_numpy(self.weights_FP)}

    def _take_own(self, own: State) -> None:
        self.scaling, self.weights_FP = Scaling.restore(own["scaling"]), own["weights_FP"].numpy()


def _one_thread() -> threadpool_limits:
    """Within the block NumPy's products take one thread: with more, sums have other last bits."""
    return threadpool_limits(1, user_api="blas")


def _under_every(
    matrix_KK: np.ndarray, right_KP: np.ndarray, penalties_A: np.ndarray
) -> np.ndarray:
    """Return (matrix + penalty)^-1 right, of every penalty: shape [A, K, P]."""
    values_K, vectors_KK = np.linalg.eigh(matrix_KK)
    values_K = np.maximum(values_K, 0.0)  # rounding may leave some below
    turned_KP = vectors_KK.T @ right_KP
    return vectors_KK @ (turned_KP / (values_K + penalties_A[:, None])[..., None])


def _each_own(weights_AKP: np.ndarray, chosen_P: np.ndarray) -> np.ndarray:
    """Return weights_KP, of each property those under its own penalty."""
    return np.stack([weights_AKP[a, :, place] for place, a in enumerate(chosen_P.tolist())], 1)
