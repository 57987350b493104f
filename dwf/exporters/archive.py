"""Archives: a zoo as a data set to publish, one HDF5 file that needs no dwf to be read.

    NAME.h5            weights [N, D] float32; columns/ with a CRC-32 each, `checksum` that of each
                       row; about/ with licence, readme, layout, network, data, provenance, reader
    read_archive.py    the reader, which is in the file too
    SHA256SUMS         for `sha256sum -c`

Shape suffixes: R rows that are written, B rows of a block, D numbers of one network.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from dwf.errors import ConfigError
from dwf.exporters.config import ExportConfig
from dwf.exporters.exporter import Exporter
from dwf.plain import Json
from dwf.run_folder import replacing, sha256_of, write_text
from dwf.zoo.shard import storable
from dwf.zoo.store import Zoo

READER = Path(__file__).with_name("read_archive.py")
SUMS = "SHA256SUMS"
_ABOUT = ("network", "input_shape", "data", "recipe", "vary", "split", "seed", "provenance")


class ArchiveExporter(Exporter):
    """Writes `NAME.h5`, NAME being the zoo's, with its reader and checksums.

    Raises:
        ConfigError: no licence is given.
    """

    def __init__(self, config: ExportConfig, zoo: Zoo, *, rows_R: np.ndarray):
        super().__init__(config, zoo, rows_R=rows_R)
        if config.licence is None:
            raise ConfigError(
                "licence: a zoo that is published says what others may do with it: give its SPDX "
                "name, as --licence CC-BY-4.0"
            )

    @property
    def files(self) -> list[str]:
        """All files of a whole export; the checksums come last."""
        return [f"{self.zoo.path.name}.h5", READER.name, SUMS]

    def write(self, folder: Path) -> Iterator[int]:
        """Write the files that are missing; yield the number of networks that are there so far."""
        archive, reader = folder / self.files[0], folder / READER.name
        if not archive.exists():
            with replacing(archive) as partial, h5py.File(partial, "w", locking=False) as file:
                self._write_about(file)
                self._write_columns(file)
                yield from self._write_weights(file)
        write_text(reader, READER.read_text(encoding="utf-8"))
        sums = [f"{sha256_of(each)}  {each.name}\n" for each in (archive, reader)]
        write_text(folder / SUMS, "".join(sums))
        yield len(self.rows_R)

    def _write_weights(self, file: h5py.File) -> Iterator[int]:
        shape = (len(self.rows_R), self.zoo.layout.size)
        stored, done = file.create_dataset("weights", shape, np.float32), 0
        for _, weights_BD in self.zoo.stream(self.rows_R):
            stored[done : done + len(weights_BD)] = weights_BD
            done += len(weights_BD)
            yield done

    def _write_columns(self, file: h5py.File) -> None:
        columns = {name: values_N[self.rows_R] for name, values_N in self.zoo.columns.items()}
        for name, values_R in ({"row": self.rows_R} | columns).items():
            stored = file.create_dataset(f"columns/{name}", data=storable(values_R))
            stored.attrs["crc32"] = np.uint32(zlib.crc32(stored[()].tobytes()))

    def _write_about(self, file: h5py.File) -> None:
        told = self.zoo.facts.to_json()
        about = {name: json.dumps(told[name]) for name in _ABOUT if name in told}
        about |= {"layout": json.dumps(told["layout"]), "licence": self.config.licence}
        about |= {"reader": READER.read_text(encoding="utf-8"), "readme": self._readme(told)}
        for name, text in about.items():  # no attributes: those hold 64 KiB at most
            file[f"about/{name}"] = np.bytes_(text.encode())

    def _readme(self, told: dict[str, Json]) -> str:
        zoo, layout, data = self.zoo, self.zoo.layout, self.zoo.facts.data
        split_R = zoo.columns["split"][self.rows_R]
        counts = {str(one): int((split_R == one).sum()) for one in np.unique(split_R)}
        splits = ", ".join(f"{count} {name}" for name, count in counts.items())
        tensors = "\n".join(f"- `{e.name}` {list(e.shape)}, {e.role}" for e in layout.entries)
        on = data.title if data else "data that nobody told of"
        return (
            f"# {zoo.name}\n\n{len(split_R)} rows of {layout.size} weights, float32: networks of "
            f"kind `{told['network']['kind']}` on {on}. Licence: "
            f"{self.config.licence}. Fingerprint of the zoo: {zoo.fingerprint}.\n\n"
            f"Splits (`columns/split`), by network: {splits}. Choose by validation networks and "
            "images; the test split is for reports.\n\n"
            f"`{READER.name}` reads and checks the file: `state, columns = "
            f"read('{zoo.path.name}.h5', 'train')`. `weights` is [rows, weights]; a row holds "
            f"these tensors one after the other:\n\n{tensors}\n"
        )
