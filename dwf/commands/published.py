"""Published zoos that can be fetched."""


def published() -> None:
    """Print the published zoos that `dwf import --fetch NAME` knows."""
    from dwf.importers.sources import table

    print(table())
