"""Reports by hand: `python -m dwf.evaluation reconstruction runs/NAME`, `validate REPORT.JSON`."""

from pathlib import Path
from typing import Annotated

import tyro

from dwf import preemption, trust
from dwf.data_paths import give_data
from dwf.errors import exit_cleanly
from dwf.evaluation.config import ReconstructionConfig
from dwf.metrics import log_to_stderr
from dwf.settings import build, to_dict

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Report = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT.JSON")]
Settings = Annotated[ReconstructionConfig, tyro.conf.arg(name="")]
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
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
        run: folder of the generator, ROOT/runs/NAME.
        settings: which networks and images.
        trust_code: code that may be imported though a folder names it, as package.module:factory.
        data_path: place of own data that a zoo names, as NAME=FILE.
    """
    trust.trust_code(*trust_code)
    give_data(*data_path)
    from dwf.evaluation.reconstruction import report_reconstruction

    folder, config = (
        run.absolute(),
        build(ReconstructionConfig, to_dict(settings), source="command line"),
    )
    report_reconstruction(folder.parent.parent, folder.name, config=config)


def validate(file: Report) -> None:
    """Hold a report.json to the schema of reports, and its statistics to its networks' numbers.

    Args:
        file: the report.json, as of who adds a generator of their own to an audit.
    """
    from dwf.evaluation.report import validate_report

    told = validate_report(file)
    sets = ", ".join(f"{one['title']} ({one['summary']['n']})" for one in told["sets"])
    print(f"{file}: {told['format']} {told['version']}, {len(told['sets'])} sets: {sets}")


def main() -> None:
    """Run the command that the command line names."""
    log_to_stderr()
    preemption.watch()
    tyro.extras.subcommand_cli_from_dict(
        {"reconstruction": reconstruction, "validate": validate},
        prog="python -m dwf.evaluation",
        description=__doc__,
    )


if __name__ == "__main__":
    exit_cleanly(main)
