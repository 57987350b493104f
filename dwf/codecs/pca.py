"""Exact PCA of more numbers than memory holds, by a streamed Gram matrix.

With N networks of K numbers and N << K the principal components lie in the span of the networks:
they follow from the eigenvectors of the N x N matrix of inner products. Two passes over windows of
columns: one sums that matrix in float64, one writes the components to the run folder. Memory is
O(N^2 + one window); the components are mapped, not loaded, when networks are decoded. Ranks share
the windows of each pass; what they give is added in order, so their number changes no bit.

Where N is far above K the same vectors follow from the K x K matrix of the numbers' products, in
memory O(K^2 + N C) and a small part of the time.

    components.npy       components_CK, float32, orthonormal rows, beside the codec's arrays

Shape suffixes: N networks, D numbers of a network, K numbers that the codec covers, W columns of a
window, C components.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from dwf import preemption
from dwf.codecs.codec import Codec, codec_folder, count_covered
from dwf.codecs.codes import Codes, CodeShape
from dwf.codecs.config import PcaConfig
from dwf.errors import TooFewNetworks
from dwf.files import read_array
from dwf.metrics import Progress
from dwf.ranks import world
from dwf.run_folder import LEFTOVERS, RunFolder, replacing, sweep
from dwf.zoo.checksums import file_checksum
from dwf.zoo.layout import Layout, Span
from dwf.zoo.moments import Source, Sources, common_layout, count_networks, cut, measure_moments

COMPONENTS = "components.npy"
WINDOW_BYTES = 32 * 2**20
# So many networks for each number, and the matrix of the numbers' products is decomposed instead.
_MANY = 2
Reader = Callable[[int, int], np.ndarray]
"""(start, stop) of a row's numbers -> networks_NW."""
Window = tuple[Span, slice]
"""(span of a network's numbers, the same columns of `components_CK`)."""


class PcaCodec(Codec):
    """Codes are scores on the principal components of the training networks."""

    components_CK: np.ndarray
    """float32, orthonormal rows, mapped from the codec's folder."""

    @classmethod
    def planned_shape(
        cls, config: PcaConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return vectors of C, or, with a variance target, of the most it can be."""
        (layout,) = layouts
        most = min(num_train - 1, count_covered(layout, config.buffers))
        return CodeShape.vectors(layout.digest, config.components or max(most, 0))

    @classmethod
    def refuse_few(cls, config: PcaConfig, num_train: int) -> None:
        """Refuse fewer training networks than span the components; raises `TooFewNetworks`."""
        _refuse_too_many(config.components, num_train, num_train - 1)

    @property
    def shape(self) -> CodeShape:
        """Vectors of C."""
        return CodeShape.vectors(self.layout.digest, len(self.arrays["deviation_C"]))

    def fit(self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0) -> "PcaCodec":
        """Find the components of training networks; see `Codec.fit`.

        Raises:
            TooFewNetworks: more components are asked for than the training networks span.
        """
        ours = world()
        num = ours.on_all(lambda: self._begin(train))
        moments = measure_moments(train)
        self.arrays = {"template_D": moments.mean_D.astype(np.float32), "mean_D": moments.mean_D}
        eigenvalues_N, vectors_NC = self._spectrum(train)
        kept_C = eigenvalues_N[: vectors_NC.shape[1]]
        self.arrays["deviation_C"] = np.sqrt(kept_C / (num - 1))
        self.arrays["eigenvalues_N"] = eigenvalues_N
        folder = codec_folder(run)
        # Of one memory order everywhere: a product's last bit depends on it.
        mixing_CN = np.ascontiguousarray((vectors_NC / np.sqrt(kept_C)).T)
        self._write_components(train, mixing_CN, folder)
        checksum = ours.on_first(lambda: file_checksum(folder / COMPONENTS))
        self.arrays["components_checksum"] = np.array(checksum)
        self._map(folder)
        self.facts = {
            "networks": num,
            "code_size": len(kept_C),
            "variance_captured_train": float(kept_C.sum() / eigenvalues_N.sum()),
            "variance_captured_held_out": ours.on_first(lambda: self.captured_variance(val)),
        }
        return self

    def _begin(self, train: Sources) -> int:
        self.layout = common_layout(train)
        num = count_networks(train)
        _refuse_too_many(self.config.components, num, num - 1)
        return num

    def _spectrum(self, train: Sources) -> tuple[np.ndarray, np.ndarray]:
        """Return eigenvalues_N of the inner products, and vectors_NC of those that are kept."""
        num, ours = count_networks(train), world()
        # One rank decomposes: on other hardware the last bit may differ, and others lose no time.
        if num <= _MANY * self.num_covered:
            gram_NN = self._gram(train)
            eigenvalues_N, vectors_NC = ours.on_first(lambda: self._decompose(gram_NN, num))
            return eigenvalues_N, _signed(vectors_NC)
        products_KK = self._products(train)
        eigenvalues_N, vectors_KC = ours.on_first(lambda: self._decompose(products_KK, num))
        kept_C = eigenvalues_N[: vectors_KC.shape[1]]

        def project() -> np.ndarray:
            parts = [centred_BK @ vectors_KC for centred_BK in self._centred_rows(train)]
            return np.concatenate(parts) / np.sqrt(kept_C)

        return eigenvalues_N, _signed(ours.on_first(project))

    def _decompose(self, products: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all eigenvalues and the vectors that are kept, of `num` networks' products."""
        eigenvalues_N, vectors = _decompose(products, num)
        _refuse_too_many(self.config.components, num, len(eigenvalues_N))
        count = _choose(eigenvalues_N, self.config.components, self.config.variance)
        return eigenvalues_N, vectors[:, :count]

    def log_volume(self, layout: Layout) -> float:
        """Return it on the space of the components, which are orthonormal; see the base."""
        if not self.config.whiten:
            return 0.0
        return float(np.log(self.arrays["deviation_C"]).sum())

    def encode_zoo(self, sources: Sources, file: Path | None = None) -> Codes:
        """Return the codes of networks of zoos; reads each component once, not once a block.

        They are held whatever their number: N x C numbers, and the fit held N x N or K x K of them,
        with C no more than either.
        """
        scores_NC, _ = self._project_zoos(sources)
        return Codes(self._as_codes(scores_NC), self.shape)

    def captured_variance(self, sources: Sources) -> float | None:
        """Return the share of networks' squared distance to the mean that the components hold.

        None where there are no networks, or none differs from the mean.
        """
        scores_NC, energy_N = self._project_zoos(sources)
        return float((scores_NC**2).sum() / energy_N.sum()) if energy_N.sum() else None

    def save(self, folder: Path) -> None:
        """Write it to a folder; see `Codec.save`."""
        source = Path(self.components_CK.filename)
        if source.resolve() != (folder / COMPONENTS).resolve():
            with replacing(folder / COMPONENTS) as partial:
                shutil.copyfile(source, partial)
        super().save(folder)

    def _open(self, folder: Path) -> None:
        path = folder / COMPONENTS
        expected = self.arrays.get("components_checksum")
        if expected is not None and file_checksum(path) != int(expected):
            raise ValueError(f"{COMPONENTS} does not match its checksum")
        self._map(folder)

    def _map(self, folder: Path) -> None:
        self.components_CK = read_array(folder / COMPONENTS, "r")

    def _encode(self, weights_ND: torch.Tensor) -> torch.Tensor:
        weights = weights_ND.numpy()
        scores_NC, _ = self._project(lambda start, stop: weights[:, start:stop], len(weights))
        return self._as_codes(scores_NC)

    def _as_codes(self, scores_NC: np.ndarray) -> torch.Tensor:
        scale_C = self.arrays["deviation_C"] if self.config.whiten else 1.0
        return torch.from_numpy((scores_NC / scale_C).astype(np.float32))

    def _decode_into(self, values_NK: torch.Tensor, weights_ND: torch.Tensor) -> None:
        scores_NC = values_NK.numpy().astype(np.float64)
        if self.config.whiten:
            scores_NC *= self.arrays["deviation_C"]
        weights = weights_ND.numpy()
        for (start, stop), columns in self._windows(max(len(weights), self.shape.size)):
            window_NW = scores_NC @ self.components_CK[:, columns].astype(np.float64)
            weights[:, start:stop] = window_NW + self.arrays["mean_D"][start:stop]

    def _project_zoos(self, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
        for zoo, _ in sources:
            self._refuse_other(zoo.layout.digest)
        return self._project(_reader(sources), count_networks(sources))

    def _project(self, read: Reader, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (scores_NC, squared distances to the mean, shape [N]), float64."""
        scores_NC, energy_N = np.zeros((num, self.shape.size)), np.zeros(num)
        for span, columns in self._windows(max(num, self.shape.size)):
            centred_NW = self._centred(read, span)
            energy_N += np.einsum("nw,nw->n", centred_NW, centred_NW)
            scores_NC += centred_NW @ self.components_CK[:, columns].astype(np.float64).T
        return scores_NC, energy_N

    def _gram(self, train: Sources) -> np.ndarray:
        """Return the inner products of centred networks, float64, shape [N, N].

        Each rank sums parts of its own, reading these columns alone.
        """
        read, num = _reader(train), count_networks(train)
        parts = cut(list(self._windows(num)))
        with Progress("pca: inner products", self.num_covered, unit="weights") as progress:

            def inner_products(part: int) -> np.ndarray:
                gram_NN = np.zeros((num, num))
                for span, columns in _watched(parts[part]):
                    centred_NW = self._centred(read, span)
                    gram_NN += centred_NW @ centred_NW.T  # NumPy computes one triangle of this
                    progress.update(columns.stop)
                return gram_NN

            gram_NN = world().add_up(len(parts), inner_products, shape=(num, num))
            progress.update(self.num_covered)
        return gram_NN

    def _products(self, train: Sources) -> np.ndarray:
        """Return the inner products of centred numbers over the networks, float64, shape [K, K].

        Ranks share blocks of networks.
        """
        parts = cut(list(self._blocks(train)))

        def add_up(part: int) -> np.ndarray:
            products_KK = np.zeros((self.num_covered, self.num_covered))
            for centred_BK in self._centred_rows(parts[part]):
                products_KK += centred_BK.T @ centred_BK
            return products_KK

        return world().add_up(len(parts), add_up, shape=(self.num_covered, self.num_covered))

    def _blocks(self, sources: Sources) -> Iterator[Source]:
        size = max(1, WINDOW_BYTES // (4 * self.layout.size))
        for zoo, rows in sources:
            for at in range(0, len(rows), size):
                yield zoo, rows[at : at + size]

    def _centred_rows(self, sources: Sources) -> Iterator[np.ndarray]:
        """Yield blocks of centred networks, the covered numbers alone, shape [networks, K]."""
        for zoo, rows in self._blocks(sources):
            if preemption.is_asked():
                preemption.stop()
            centred_BD = zoo.read(rows).astype(np.float64) - self.arrays["mean_D"]
            yield np.hstack([centred_BD[:, start:stop] for start, stop in self.spans])

    def _write_components(self, train: Sources, mixing_CN: np.ndarray, folder: Path) -> None:
        """Write components_CK = mixing_CN @ centred networks, window by window.

        Ranks compute windows of their own, the first writes them.
        """
        ours, read = world(), _reader(train)
        windows = list(self._windows(mixing_CN.shape[1]))

        def compute(index: int) -> np.ndarray:
            ((span, _),) = _watched(windows[index : index + 1])
            return (mixing_CN @ self._centred(read, span)).astype("<f4")

        shape = (len(mixing_CN), self.num_covered)
        file = _matrix_file(folder / COMPONENTS, shape) if ours.is_first else nullcontext()
        with (
            Progress("pca: components", self.num_covered, unit="weights") as progress,
            file as write,
        ):
            computed = ours.to_first(len(windows), compute)
            for (_, columns), window_CW in zip(windows, computed, strict=True):
                if write is not None:
                    write(columns, window_CW)
                progress.update(columns.stop)

    def _centred(self, read: Reader, span: Span) -> np.ndarray:
        start, stop = span
        return read(start, stop).astype(np.float64) - self.arrays["mean_D"][start:stop]

    def _windows(self, num_rows: int) -> Iterator[Window]:
        """Yield windows of what is covered."""
        width = max(1, WINDOW_BYTES // (4 * max(num_rows, 1)))
        at = 0
        for begin, end in self.spans:
            for start in range(begin, end, width):
                stop = min(start + width, end)
                yield (start, stop), slice(at, at + stop - start)
                at += stop - start


def _watched(windows: Iterable[Window]) -> Iterator[Window]:
    """Yield windows; leave between two of them if a signal asks for it."""
    for window in windows:
        if preemption.is_asked():
            preemption.stop()
        yield window


@contextmanager
def _matrix_file(path: Path, shape: tuple[int, int]) -> Iterator[Callable]:
    """Yield a function that writes columns of a float32 matrix: `write(columns, values_CW)`.

    Written, not mapped: a full disk is then an error and no bus fault.
    """
    sweep(path.parent.glob(f"{path.name}{LEFTOVERS}"))
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with replacing(path) as partial, open(partial, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()

        def write(columns: slice, values_CW: np.ndarray) -> None:
            for i, part_W in enumerate(values_CW):
                file.seek(begin + 4 * (i * shape[1] + columns.start))
                file.write(part_W.tobytes())

        yield write


def _reader(sources: Sources) -> Reader:
    def read(start: int, stop: int) -> np.ndarray:
        parts = [zoo.read(rows, start, stop=stop) for zoo, rows in sources]
        return np.concatenate(parts) if parts else np.empty((0, stop - start), np.float32)

    return read


def _decompose(products: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues above rounding, largest first, and their vectors as columns."""
    values, vectors = np.linalg.eigh(products)
    values, vectors = values[::-1], vectors[:, ::-1]
    rounding = num * np.finfo(np.float64).eps * values[0]
    rank = min(int((values > rounding).sum()), num - 1)
    return values[:rank].copy(), vectors[:, :rank]


def _signed(vectors_NC: np.ndarray) -> np.ndarray:
    """The sign of an eigenvector is free: its entry for the most concerned network is positive."""
    largest_C = vectors_NC[np.abs(vectors_NC).argmax(0), np.arange(vectors_NC.shape[1])]
    return vectors_NC * np.sign(largest_C)


def _refuse_too_many(components: int | None, num: int, most: int) -> None:
    if most < 1:
        raise TooFewNetworks(
            f"{num} training networks span {most} directions around their mean, pca needs 1 or "
            "more: give it a zoo with more different networks"
        )
    if components is not None and components > most:
        raise TooFewNetworks(
            f"codec.components = {components}, but {num} training networks span only {most} "
            f"directions around their mean: give --codec.components {most} or fewer, or a zoo of "
            f"at least {components + 1} different training networks"
        )


def _choose(eigenvalues_N: np.ndarray, components: int | None, variance: float | None) -> int:
    """Return how many components to keep."""
    if variance is not None:
        captured_N = np.cumsum(eigenvalues_N) / eigenvalues_N.sum()
        return min(int(np.searchsorted(captured_N, variance)) + 1, len(eigenvalues_N))
    return components or len(eigenvalues_N)
