"""Networks as vectors, by a fitted codec: `dwf embed runs/NAME zoos/NAME`."""

from pathlib import Path
from typing import Annotated

from dwf import trust
from dwf.arguments import POSITIONAL, REPEATED, Argument
from dwf.codecs import embedding
from dwf.codecs.codec import Codec
from dwf.codecs.embedding import Pooling, ridge_probe, save_embeddings
from dwf.errors import TooFewNetworks
from dwf.names import folder_said
from dwf.zoo.store import Zoo

Folder = Annotated[Path, POSITIONAL]


def embed(
    run: Annotated[Folder, Argument(metavar="RUN")],
    zoo: Annotated[Folder, Argument(metavar="ZOO")],
    *,
    pooling: Pooling = "mean",
    out: Path | None = None,
    trust_code: Annotated[tuple[str, ...], REPEATED] = (),
) -> None:
    """Write a vector for each network of a zoo, and say how well it tells the network's accuracy.

    The file holds `embedding` and the zoo's columns `network`, `epoch`, `split` and `val_accuracy`.

    Args:
        run: folder or name of the generator whose codec is used.
        zoo: folder or name of the zoo; all its rows are embedded.
        pooling: the mean over all tokens, or over those of each layer, one after the other.
        out: the file; default RUN/embeddings-ZOO.npz.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
    """
    trust.trust_code(*trust_code)
    run, zoo = folder_said(run, "runs"), folder_said(zoo, "zoos")
    codec, opened = Codec.load(run / "codec"), Zoo.open(zoo)
    rows = opened.rows()
    embedding_NE = embedding.embed(codec, opened, rows=rows, pooling=pooling)
    path = out or run / f"embeddings-{opened.name}.npz"
    save_embeddings(path, embedding_NE, zoo=opened, rows=rows)
    num, size = embedding_NE.shape
    print(f"{path}: {num} x {size} numbers")
    if "val_accuracy" not in opened.columns:
        print(f"{zoo} records no val_accuracy, so there is nothing to probe")
        return
    try:
        probe = ridge_probe(
            embedding_NE, opened.columns["val_accuracy"], split_N=opened.columns["split"]
        )
    except TooFewNetworks as error:
        print(f"no probe: {error}")
        return
    train, val, test = (probe.num_rows[split] for split in ("train", "val", "test"))
    print(
        f"ridge probe of val_accuracy: R^2 {probe.r2:.3f} on {test} rows of test networks (fitted "
        f"on {train}; penalty {probe.penalty:.3g} chosen on {val}, where R^2 is "
        f"{probe.val_r2:.3f})"
    )
