"""Networks layer by layer: `dwf layers zoos/NAME --codec runs/NAME`."""

from pathlib import Path
from typing import Annotated, Literal

from dwf import trust
from dwf.arguments import POSITIONAL, REPEATED, Argument
from dwf.names import folder_said

Folder = Annotated[Path, POSITIONAL]


def layers(
    zoo: Annotated[Folder, Argument(metavar="ZOO")],
    codec: Path,
    *,
    split: Literal["train", "val", "test", "all"] = "test",
    out: Path | None = None,
    trust_code: Annotated[tuple[str, ...], REPEATED] = (),
) -> None:
    """Set SANE's embeddings of each layer beside spectral features of its weights.

    Writes a figure and its numbers, and prints rank correlations.

    Args:
        zoo: folder or name of the zoo; all epochs of its networks are looked at.
        codec: folder or name of a generator with codec `sane`, fitted to the zoo's architecture.
        split: networks that are looked at; those of `test` the codec did not learn from.
        out: folder of the files; default: that of the generator.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
    """
    from dwf.codecs.codec import Codec
    from dwf.predictors.layers import compare_layers, table, write_layers
    from dwf.zoo.store import Zoo

    trust.trust_code(*trust_code)
    codec, opened = folder_said(codec, "runs"), Zoo.open(folder_said(zoo, "zoos"))
    rows = opened.rows(None if split == "all" else split)
    found = compare_layers(Codec.load(codec / "codec"), opened, rows=rows)
    for file in write_layers(found, out or codec, name=f"layers-{opened.name}"):
        print(file)
    print(table(found))
