"""Loss of a codec: `dwf reconstruction runs/NAME`."""

from pathlib import Path
from typing import Annotated

from dwf import trust
from dwf.arguments import REPEATED, Argument
from dwf.data_paths import give_data
from dwf.evaluation.config import ReconstructionConfig
from dwf.flags import name_and_root
from dwf.names import folder_said
from dwf.settings import build, to_dict

Run = Annotated[Path, Argument(is_positional=True, metavar="RUN")]
Settings = Annotated[ReconstructionConfig, Argument(name="")]
Repeated = Annotated[tuple[str, ...], REPEATED]
_DEFAULT = ReconstructionConfig()


def reconstruction(
    run: Run,
    settings: Settings = _DEFAULT,
    *,
    trust_code: Repeated = (),
    data_path: Repeated = (),
) -> None:
    """Say what the codec of a generator loses, whichever codec: ROOT/reports/NAME-reconstruction.

    Args:
        run: folder of the generator, ROOT/runs/NAME, or its name under the current folder.
        settings: which networks and images.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
        data_path: place of own data that a zoo names, as NAME=FILE.
    """
    trust.trust_code(*trust_code)
    give_data(*data_path)
    from dwf.evaluation.reconstruction import report_reconstruction

    folder, config = (
        folder_said(run, "runs").absolute(),
        build(ReconstructionConfig, to_dict(settings), source="command line"),
    )
    name, root = name_and_root(folder, "runs")
    report_reconstruction(root, name, config=config)
