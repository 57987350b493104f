"""Make the newest DeepSpeed checkpoint of a run readable by any number of ranks.

dwf convert runs/NAME
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dwf.errors import RunConflict, WorkFailed
from dwf.ranks import World
from dwf.run_folder import hold
from dwf.training.folders import LOOP, NATIVE, UNIVERSAL, folders, refuse_forged, sign

_PROGRAM = "deepspeed.checkpoint.ds_to_universal"


def convert(run: Path) -> list[Path]:
    """Write the universal form of the newest checkpoint of each part of a run that has one.

    Args:
        run: the run's folder, or a part of it.

    Returns:
        The folders written, or found whole.

    Raises:
        RunConflict: there is no DeepSpeed checkpoint, or the run is being worked on.
        WorkFailed: DeepSpeed's program failed; says how.
        ConfigError: another user wrote it, or it was altered: it is not unpickled.
    """
    places = {loop.parent.parent for loop in run.rglob(f"checkpoints/step-*/{LOOP}")}
    newest = [found[0] for place in sorted(places) if (found := folders(place))]
    if not newest:
        raise RunConflict(
            f"{run} holds no checkpoint of DeepSpeed's: name the folder of a run that training "
            "with engine = 'deepspeed' wrote"
        )
    is_part = not (run / "config.yaml").exists() and (run.parent / "config.yaml").exists()
    with hold(run.parent if is_part else run):  # as the training does
        return [_convert(path) for path in newest]


def _convert(path: Path) -> Path:
    final, partial = path / UNIVERSAL, path / f"{UNIVERSAL}.partial"
    if final.exists():
        return final
    refuse_forged(path / NATIVE, World())  # DeepSpeed's program unpickles it
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", _PROGRAM, "--inject_missing_state"]
    command += ["--input_folder", str(path / NATIVE), "--output_folder", str(partial)]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    ran = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", errors="replace", env=environment
    )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no words"])[-1]
        raise WorkFailed(
            f"{path}: DeepSpeed's {_PROGRAM} failed ({last}): resume with as many ranks as wrote it"
        )
    partial.rename(final)
    sign(final, World())
    return final
