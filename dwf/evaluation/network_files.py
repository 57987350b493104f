"""Networks in files, scored as samples: laid out as a zoo for as long as they are evaluated.

Shape suffixes: D numbers of one network.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dwf.errors import ConfigError, CorruptShard, TooFewNetworks
from dwf.zoo.facts import FILE, Facts
from dwf.zoo.network_files import HUGGING_FACE, SUFFIXES, network_file, read_row
from dwf.zoo.shard import Block
from dwf.zoo.store import Zoo, write_zoo


@contextlib.contextmanager
def open_samples(samples: Sequence[str], zoo: Zoo, *, root: Path) -> Iterator[list[Zoo]]:
    """Open sets of samples, each a zoo by its name, a file of one network, or a folder of such.

    Args:
        samples: names and paths, in the order of the report.
        zoo: what they are held against: files are laid into its layout.
        root: folder that holds `zoos/`.

    Yields:
        A zoo for each; those of files are removed after the block.

    Raises:
        ConfigError: there is no such zoo or file, or two sets have one name.
        ShapeMismatch: a file holds another architecture; names the file and the first tensor.
        TooFewNetworks: a folder holds no network.
        CorruptCheckpoint, CorruptShard: a file is damaged, or holds weights that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="dwf-samples-") as folder:
        opened = [_open(each, zoo, root=Path(root), folder=Path(folder)) for each in samples]
        names = [one.name for one in (zoo, *opened)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ConfigError(
                f"samples = {list(samples)}: {twice} is the name of two sets, which a report "
                "cannot tell apart: rename one of the files or zoos"
            )
        yield opened


def are_files(sample: str, root: Path) -> bool:
    """Whether samples are files of networks, not a zoo."""
    if (Path(root) / "zoos" / sample / FILE).exists():
        return False
    return Path(sample).suffix in SUFFIXES or Path(sample).is_dir()


def title_of(path: Path) -> str:
    """Return the title that a report gives to files of networks: a folder's name, a file's stem."""
    whole = path.resolve()
    return whole.name if path.is_dir() else whole.stem


def _open(sample: str, zoo: Zoo, *, root: Path, folder: Path) -> Zoo:
    if not are_files(sample, root):
        return Zoo.open(root / "zoos" / sample)
    path = Path(sample)
    files = _files_in(path) if path.is_dir() else [network_file(path)]
    if not files:
        raise TooFewNetworks(
            f"{path} holds no network: files of networks end in {', '.join(SUFFIXES)}; write some "
            "with dwf export"
        )
    facts = Facts(layout=zoo.layout, num_shards=1, **vars(zoo.facts.subject))
    blocks = (_block(zoo, number, file) for number, file in enumerate(files))
    return write_zoo(folder / title_of(path), facts, num_rows=len(files), blocks=blocks)


def _files_in(path: Path) -> list[Path]:
    """Return the files of networks of a folder, in order, those of Hugging Face's folders too."""
    found = [file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()]
    return sorted(found) or sorted(path.glob(f"*/{HUGGING_FACE}"))


def _block(zoo: Zoo, number: int, file: Path) -> Block:
    weights_D = read_row(file, zoo.layout)
    if not np.isfinite(weights_D).all():
        raise CorruptShard(f"{file} holds weights that are not finite: leave it out")
    columns = {"network": np.array([number]), "epoch": np.zeros(1, np.int32)}
    columns["split"] = np.array(["sample"])
    # Whoever wrote the file knows where they come from; a report gives samples their own anyway.
    columns["batchnorm"] = np.array(["generated"])
    return columns, weights_D[None]
