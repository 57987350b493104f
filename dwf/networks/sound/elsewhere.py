"""The same trial in a process of its own: zoos are trained in such."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.networks.config import NetworkConfig
from dwf.networks.sound.reachable import differing
from dwf.networks.sound.rows import agree
from dwf.networks.sound.trial import Findings, Trial, some
from dwf.settings import build, to_dict

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dwf.networks.sound.elsewhere import answer; answer(sys.argv[2])"
)
_OTHERS = 100


def examine_elsewhere(trial: Trial) -> Findings:
    """Return what a new process finds, in which sets of words have another order.

    Raises:
        ConfigError: the network cannot be built or run there.
    """
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", trial.images.numpy())
        told = {"config": to_dict(trial.config), "initialisations": list(trial.initialisations)}
        (folder / "trial.json").write_text(json.dumps(told), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), name],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if (folder / "findings.json").exists():
            return Findings(**json.loads((folder / "findings.json").read_text(encoding="utf-8")))
        if (folder / "refused.txt").exists():
            raise ConfigError(
                f"in another process: {(folder / 'refused.txt').read_text(encoding='utf-8')}"
            )
    said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    trial.refuse(
        f"another process cannot build or run it: {said[0]}",
        "mend it: zoos are trained in processes of their own",
    )


def answer(name: str) -> None:
    """Examine what a folder of `examine_elsewhere` asks for; write there what was found."""
    folder = Path(name)
    told = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    try:
        trial = Trial(
            build(NetworkConfig, told["config"], source="network"),
            torch.from_numpy(np.load(folder / "images.npy", allow_pickle=False)),
            initialisations=told["initialisations"],
            others=_OTHERS,
        )
        findings = trial.findings()
    except ConfigError as error:
        (folder / "refused.txt").write_text(str(error), encoding="utf-8")
    else:
        (folder / "findings.json").write_text(json.dumps(asdict(findings)), encoding="utf-8")


def refuse_otherwise(trial: Trial, here: Findings, *, there: Findings) -> None:
    """Refuse a network that another process builds or runs otherwise.

    Args:
        trial: of the network.
        here: what this process finds.
        there: what another does.

    Raises:
        ConfigError: names what is not the same.
    """
    if names := differing(here.start, there.start):
        trial.refuse(
            f"{some(names)} begins with other numbers in another process under one seed",
            "draw initial weights from torch's global generator alone, in an order that does not "
            "depend on sets",
        )
    for mode, logits in here.logits.items():
        if not agree(torch.tensor(logits), torch.tensor(there.logits[mode])):
            names = differing(here.held, there.held)
            trial.refuse(
                f"{some(names) or 'forward'} differs in another process, and the answers in {mode} "
                "mode with it",
                "make it a parameter or a floating-point buffer (register_buffer), or the same in "
                "every process",
            )
