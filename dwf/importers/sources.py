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
    told_by: str | None = None
    """Public text that names the address; None: nobody could look it up again."""
    files: tuple[str, ...] = ()
    """Archives of a record that are taken; none: all of them."""
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
_LIST = "README of github.com/ModelZoos/ModelZooDataset"
_SANE = "download scripts of github.com/HSG-AIML/SANE"


def _model_zoo(
    record: int, what: str, *, told_by: str | None = _LIST, files: tuple[str, ...] = ()
) -> Source:
    address = _ZENODO.format(record)
    return Source("modelzoos", address, size=_UNKNOWN_SIZE, what=what, told_by=told_by, files=files)


def _small_cnns(name: str) -> Source:
    what = f"30,000 CNNs of 4,970 weights on {name}, nine checkpoints each"
    readme = "README of google-research/dnn_predict_accuracy"
    address = _SMALL_CNNS.format(name)
    return Source("unterthiner", address, size="5.4 GB unpacked", what=what, told_by=readme)


SOURCES = {
    "modelzoos_mnist": _model_zoo(6632086, "CNNs on MNIST"),
    "modelzoos_fashion_mnist": _model_zoo(6632104, "CNNs on Fashion-MNIST"),
    "modelzoos_svhn": _model_zoo(6632120, "CNNs on SVHN"),
    "modelzoos_usps": _model_zoo(6633626, "CNNs on USPS"),
    "modelzoos_cifar10": _model_zoo(
        6620869,
        "large CNNs on CIFAR-10, 1,000 seeds",
        told_by=_SANE,
        files=("cifar_large_seed.zip",),
    ),
    "modelzoos_cifar10_all": _model_zoo(6620868, "small and large CNNs on CIFAR-10"),
    "modelzoos_cifar10_sample": _model_zoo(
        13144018,
        "CNNs on CIFAR-10, epochs 21 to 25",
        told_by=_SANE,
        files=("cifar10_cnn_sample_ep21-25.zip",),
    ),
    "modelzoos_cifar100_resnet18": _model_zoo(
        6977382,
        "ResNet-18 on CIFAR-100, epoch 60",
        told_by=_SANE,
        files=("cifar100_resnet18_epoch60.zip",),
    ),
    "modelzoos_stl10": _model_zoo(6631783, "CNNs on STL-10"),
    "modelzoos_eurosat": _model_zoo(8141666, "CNNs on EuroSAT", told_by=None),
    "modelzoos_mnist_sparse": _model_zoo(7023335, "sparse twins of the CNNs on MNIST"),
    "modelzoos_svhn_sparse": _model_zoo(7027566, "sparse twins of the CNNs on SVHN"),
    "modelzoos_cifar10_resnet18": Source(
        "modelzoos",
        _TARS.format("tune_zoo_cifar10_resnet18_kaiming_uniform"),
        size=_UNKNOWN_SIZE,
        what="1,000 ResNet-18 on CIFAR-10, all epochs",
        told_by="repositories that use SANE's zoos",
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
        told_by="README of github.com/mkofinas/neural-graphs",
        files=("cnn_wild_park.zip",),
    ),
}
"""Name -> published zoo."""


def table() -> str:
    """Return the sources in words, a line each."""
    width = max(map(len, SOURCES))
    return "\n".join(
        f"{name:<{width}}  {one.what}; format {one.format}; {one.size}; {one.licence}; "
        f"{' '.join((one.address, *one.files))} "
        f"({one.told_by or 'address not looked up again: look before you rely on it'})"
        for name, one in SOURCES.items()
    )
