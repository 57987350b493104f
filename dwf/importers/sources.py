"""Published zoos that `--fetch` knows: where they are, how large, under which licence."""

from dataclasses import dataclass

from dwf.importers.config import Format


@dataclass(frozen=True)
class Source:
    """A published zoo."""

    format: Format
    """Format that it is read by."""
    address: str
    """Address of its archive, or of the Zenodo record whose archives these are."""
    size: str
    """Size in words."""
    what: str
    """Networks that it holds."""
    licence: str = "CC-BY 4.0"
    """Licence that it is under."""
    sha256: str | None = None
    """Published checksum of the archive; None: recorded at the first fetch, and held from then on.
    What Zenodo says of its own files is held in any case."""

    @property
    def record(self) -> str | None:
        """Number of the Zenodo record, where the address is one."""
        head, _, tail = self.address.partition("zenodo.org/records/")
        return tail if head and tail.isdigit() else None


_ZENODO = "https://zenodo.org/records/{}"
_SMALL_CNNS = "https://storage.googleapis.com/gresearch/smallcnnzoo-dataset/{}.tar.xz"
_TARS = "https://ai.unisg.ch/files/tar_files/{}.tar"
_UNKNOWN_SIZE = "size told by the server"


def _model_zoo(record: int, what: str) -> Source:
    return Source("modelzoos", _ZENODO.format(record), size=_UNKNOWN_SIZE, what=what)


def _small_cnns(name: str) -> Source:
    what = f"30,000 CNNs of 4,970 weights on {name}, nine epochs each"
    return Source("unterthiner", _SMALL_CNNS.format(name), size="about 5 GB", what=what)


SOURCES = {
    "modelzoos_mnist": _model_zoo(6632086, "CNNs on MNIST"),
    "modelzoos_fashion_mnist": _model_zoo(6632104, "CNNs on Fashion-MNIST"),
    "modelzoos_svhn": _model_zoo(6632120, "CNNs on SVHN"),
    "modelzoos_usps": _model_zoo(6633626, "CNNs on USPS"),
    "modelzoos_cifar10": _model_zoo(6620869, "large CNNs on CIFAR-10, 1,000 seeds"),
    "modelzoos_cifar10_all": _model_zoo(6620868, "CNNs on CIFAR-10"),
    "modelzoos_cifar10_sample": _model_zoo(13144018, "CNNs on CIFAR-10, epochs 21 to 25"),
    "modelzoos_cifar100_resnet18": _model_zoo(6977382, "ResNet-18 on CIFAR-100, epoch 60"),
    "modelzoos_stl10": _model_zoo(6631783, "CNNs on STL-10"),
    "modelzoos_eurosat": _model_zoo(8141666, "CNNs on EuroSAT"),
    "modelzoos_mnist_sparse": _model_zoo(7023335, "sparse twins of the CNNs on MNIST"),
    "modelzoos_svhn_sparse": _model_zoo(7027566, "sparse twins of the CNNs on SVHN"),
    "modelzoos_cifar10_resnet18": Source(
        "modelzoos",
        _TARS.format("tune_zoo_cifar10_resnet18_kaiming_uniform"),
        size=_UNKNOWN_SIZE,
        what="1,000 ResNet-18 on CIFAR-10, all epochs",
    ),
    "unterthiner_mnist": _small_cnns("mnist"),
    "unterthiner_fashion_mnist": _small_cnns("fashion_mnist"),
    "unterthiner_cifar10": _small_cnns("cifar10"),
    "unterthiner_svhn": _small_cnns("svhn_cropped"),
    "wild_park": Source(
        "wild_park",
        _ZENODO.format(12797219),
        size=_UNKNOWN_SIZE,
        what="CNN Wild Park, 117,241 checkpoints of mixed architectures on CIFAR-10",
    ),
}
"""Name -> published zoo."""


def table() -> str:
    """Return the sources in words, a line each."""
    width = max(map(len, SOURCES))
    return "\n".join(
        f"{name:<{width}}  {one.what}; format {one.format}; {one.size}; {one.licence}; "
        f"{one.address}"
        for name, one in SOURCES.items()
    )
