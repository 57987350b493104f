"""Predictors by hand: `transfer` joins reports, `layers` looks at networks layer by layer.

python -m dwf.predictors transfer reports/A reports/B --to reports/AB
python -m dwf.predictors layers zoos/NAME --codec runs/NAME
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dwf import trust
from dwf.errors import ConfigError, exit_cleanly
from dwf.metrics import log_to_stderr
from dwf.predictors.config import Group

Reports = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="REPORT")]
Folder = Annotated[Path, tyro.conf.Positional]


def transfer(reports: Reports, *, to: Path, by: Group = "zoo") -> None:
    """Join reports of rows that learnt from different networks: who tells whose how well.

    Args:
        reports: folders of reports, each named after what its rows learnt from.
        to: folder to write transfer.md and transfer.html to; it may not be there.
        by: parts of the test networks that become columns.
    """
    from dwf.predictors.report import Report, write_transfer

    if len({folder.name for folder in reports}) < max(2, len(reports)):
        names = ", ".join(map(str, reports)) or "none"
        raise ConfigError(f"{names}: give two or more reports, each of a folder of another name")
    if to.exists():
        raise ConfigError(f"{to} is there already: give another --to, or remove it")
    found = {folder.name: Report.load(folder) for folder in reports}
    write_transfer(to, to.name, reports=found, by=by)
    print((to / "transfer.md").read_text())


def layers(
    zoo: Annotated[Folder, tyro.conf.arg(metavar="ZOO")],
    codec: Path,
    *,
    split: Literal["train", "val", "test", "all"] = "test",
    out: Path | None = None,
    trust_code: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
) -> None:
    """Set SANE's embeddings of each layer beside spectral features of its weights.

    Writes a figure and its numbers, and prints rank correlations.

    Args:
        zoo: folder of the zoo; all epochs of its networks are looked at.
        codec: folder of a generator with the codec `sane`, fitted to the zoo's architecture.
        split: networks that are looked at; those of `test` the codec did not learn from.
        out: folder of the files; default: that of the generator.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
    """
    from dwf.codecs.codec import Codec
    from dwf.predictors.layers import compare_layers, table, write_layers
    from dwf.zoo.store import Zoo

    trust.trust_code(*trust_code)
    opened = Zoo.open(zoo)
    rows = opened.rows(None if split == "all" else split)
    found = compare_layers(Codec.load(codec / "codec"), opened, rows=rows)
    for file in write_layers(found, out or codec, name=f"layers-{opened.name}"):
        print(file)
    print(table(found))


COMMANDS = {"layers": layers, "transfer": transfer}


def main() -> None:
    """Run the command that the command line names."""
    log_to_stderr()
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m dwf.predictors", description=__doc__
    )


if __name__ == "__main__":
    exit_cleanly(main)
