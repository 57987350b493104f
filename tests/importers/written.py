"""Small sources in the layouts that others publish, written without dwf, for the tests of imports.

Each function writes a folder and returns the tensors that it wrote, by the importer's names of
members, so that a test can hold rows to them.
"""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

Tensors = dict[str, torch.Tensor]
NUM = 12


class Named(nn.Module):
    """As most write an MLP: `fc1`, `fc2`."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.fc1, self.fc2 = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, images):
        return self.fc2(torch.relu(self.fc1(images.flatten(1))))


def state_dicts(folder: Path, num: int = NUM) -> dict[str, Tensors]:
    folder.mkdir(parents=True)
    written = {}
    for seed in range(num):
        written[f"net_{seed}.pt"] = Named(seed).state_dict()
        torch.save(written[f"net_{seed}.pt"], folder / f"net_{seed}.pt")
    return written


def deepweightflow(folder: Path) -> dict[str, Tensors]:
    """`mlp_{init}_seed{s}.pt`, as its Iris zoo: xavier, he."""
    folder.mkdir(parents=True)
    written = {}
    for kind, first in (("xavier", 0), ("he", 100)):
        for seed in range(6):
            name = f"mlp_{kind}_seed{seed}.pt"
            written[name] = Named(first + seed).state_dict()
            torch.save(written[name], folder / name)
    return written


def pdiff(folder: Path) -> dict[str, Tensors]:
    """`checkpoint/{step}_acc{acc}_seed{seed}_{tag}.pth` of the last layer, and `pretrained.pth`."""
    (folder / "checkpoint").mkdir(parents=True)
    begun, written = Named(0).state_dict(), {}
    torch.save(begun, folder / "pretrained.pth")
    for step in range(NUM):
        learnt = {k: v for k, v in Named(step + 1).state_dict().items() if k.startswith("fc2")}
        name = f"checkpoint/{step:04d}_acc{0.1 + step / 100:.4f}_seed0020_digits_mlp.pth"
        torch.save(learnt, folder / name)
        written[name] = begun | learnt
    return written


def pdiff_data(folder: Path) -> dict[str, Tensors]:
    """`data.pt`: rows of the last layer, the whole module pickled beside them."""
    folder.mkdir(parents=True)
    model, written, rows = Named(0), {}, []
    layers = ["fc2.weight", "fc2.bias"]
    for row in range(NUM):
        learnt = {name: Named(row + 1).state_dict()[name] for name in layers}
        rows.append(torch.cat([learnt[name].flatten() for name in layers]))
        written[f"data.pt#{row}"] = model.state_dict() | learnt
    pdata = torch.stack(rows)
    told = {"pdata": pdata, "mean": pdata.mean(0), "std": pdata.std(0), "model": model}
    told |= {"train_layer": layers, "performance": [10.0 + row for row in range(NUM)], "cfg": {}}
    torch.save(told, folder / "data.pt")
    return written


def modelzoos(
    folder: Path, trials: int = 6, epochs: tuple[int, ...] = (0, 1)
) -> dict[str, Tensors]:
    """Trials of Ray Tune; the last epoch is told twice, as after a resume; a line is cut off."""
    written = {}
    for trial in range(trials):
        path = folder / f"NN_tune_trainable_{trial:05d}_{trial}_seed={trial}_2021-10-05_11-43-37"
        path.mkdir(parents=True)
        told = {"model::type": "MLP", "optim::lr": 3e-4, "seed": trial, "optim::optimizer": "adam"}
        told |= {"dataset::dump": "/netscratch/dataset.pt", "cuda": False, "grid": [1, 2]}
        (path / "params.json").write_text(json.dumps(told))
        lines = []
        for epoch in epochs:
            base = {"training_iteration": epoch, "train_acc": 0.5, "config": told}
            if epoch == epochs[-1]:
                lines.append(base | {"test_acc": 0.0})
            lines.append(base | {"test_acc": 0.1 * epoch + 0.01 * trial, "test_loss": 2.0})
            checkpoint = path / f"checkpoint_{epoch:06d}"
            checkpoint.mkdir()
            (checkpoint / ".is_checkpoint").touch()
            torch.manual_seed(100 * trial + epoch)
            layers = nn.ModuleList([nn.Linear(64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)])
            state = {f"module_list.{name}": t for name, t in layers.state_dict().items()}
            torch.save(state, checkpoint / "checkpoints")
            torch.save({"state": {}, "param_groups": []}, checkpoint / "optimizer")
            written[f"{path.name}/checkpoint_{epoch:06d}/checkpoints"] = state
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "result.json").write_text(text + '{"training_iteration": 99, "tes')
    (folder / "dataset.pt").write_bytes(b"pickled images, never read")
    return written


def unterthiner(
    folder: Path, runs: int = 10, steps: tuple[int, ...] = (0, 86)
) -> dict[str, Tensors]:
    """`weights.npy`: bias before kernel, kernels height x width x in x out; tanh in one run."""
    folder.mkdir(parents=True)
    keras, at, layout = [], 0, []
    for name, fan_in in (("conv2d", 1), ("conv2d_1", 16), ("conv2d_2", 16)):
        keras += [(f"sequential/{name}/bias:0", (16,))]
        keras += [(f"sequential/{name}/kernel:0", (3, 3, fan_in, 16))]
    keras += [("sequential/dense/bias:0", (10,)), ("sequential/dense/kernel:0", (16, 10))]
    for name, shape in keras:
        size = int(np.prod(shape))
        layout.append([name, at, at + size, size, str(shape)])
        at += size
    with open(folder / "layout.csv", "w", newline="") as file:
        csv.writer(file).writerows([["varname", "start_idx", "end_idx", "size", "shape"], *layout])
    rng = np.random.default_rng(0)
    rows = (0.3 * rng.standard_normal((runs * len(steps), at))).astype(np.float32)
    np.save(folder / "weights.npy", rows)
    header = ["modeldir", "step", "config.activation", "config.l2reg", "test_accuracy"]
    lines, written = [header], {}
    for row, row_D in enumerate(rows):
        run, step = divmod(row, len(steps))
        activation = "tanh" if run == runs - 1 else "relu"
        lines.append([f"/cns/model{run}", steps[step], activation, 1e-4, 0.1 + row / 1000])
        written[f"weights.npy#{row}"] = _torch_of(row_D, layout)
    with gzip.open(folder / "metrics.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows(lines)
    return written


def _torch_of(row_D: np.ndarray, layout: list[list]) -> Tensors:
    """One number at a time: the slow, plain answer."""
    tensors = {}
    for name, start, _, _, text in layout:
        shape = tuple(int(side) for side in text.strip("()").split(",") if side.strip())
        values = row_D[start:].tolist()
        if len(shape) == 1:
            tensors[name] = torch.tensor(values[: shape[0]])
        elif len(shape) == 2:
            made = torch.zeros(shape[1], shape[0])
            for i in range(shape[0]):
                for o in range(shape[1]):
                    made[o, i] = values[i * shape[1] + o]
            tensors[name] = made
        else:
            height, width, fan_in, fan_out = shape
            made = torch.zeros(fan_out, fan_in, height, width)
            for at in range(height * width * fan_in * fan_out):
                rest, o = divmod(at, fan_out)
                rest, i = divmod(rest, fan_in)
                h, w = divmod(rest, width)
                made[o, i, h, w] = values[at]
            tensors[name] = made
    return tensors


def wild_park(folder: Path) -> dict[str, Tensors]:
    """Trials of two architectures: one plain, one with a residual; `config` is a mapping."""
    written = {}
    plain = {"n_layers": 2, "n_classes": 10, "channels": [1, 4, 8], "kernel_size": [3, 5]}
    plain |= {"stride": [1, 1], "padding": [1, 2], "residual": [-1, -1]}
    plain |= {"activation": ["gelu", "gelu"]}
    other = plain | {"n_layers": 3, "channels": [1, 4, 4, 4], "kernel_size": [3, 3, 3]}
    other |= {"stride": [1, 1, 1], "padding": [1, 1, 1], "residual": [-1, -1, 0]}
    other |= {"activation": ["relu", "tanh", "relu"]}
    for trial in range(12):
        config = plain if trial % 2 == 0 else other
        path = folder / f"NN_tune_trainable_{trial:05d}" / "checkpoint_000003"
        path.mkdir(parents=True)
        torch.manual_seed(trial)
        sizes = zip(config["channels"], config["channels"][1:], config["kernel_size"], strict=False)
        state = {}
        for i, (fan_in, fan_out, side) in enumerate(sizes):
            conv = nn.Conv2d(fan_in, fan_out, side)
            state |= {f"layers.{i}.{name}": t for name, t in conv.state_dict().items()}
        head = nn.Linear(config["channels"][-1], 10)
        state |= {f"fc.{name}": t for name, t in head.state_dict().items()}
        told = {"model": state, "optimizer": {"state": {}, "param_groups": []}, "config": config}
        told |= {"iteration": 3, "last_result": {"test/acc": 0.2 + trial / 100}}
        torch.save(told, path / "checkpoint.pt")
        written[f"{path.parent.name}/{path.name}/checkpoint.pt"] = state
    return written


def huggingface(folder: Path) -> dict[str, Tensors]:
    from safetensors.torch import save_file

    written = {}
    for seed in range(NUM):
        path = folder / f"model-{seed}"
        path.mkdir(parents=True)
        state = Named(seed).state_dict()
        save_file(state, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps({"model_type": "mlp", "hidden_size": 16}))
        written[path.name] = state
    return written
