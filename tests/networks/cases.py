"""Networks as users write them, each with one thing that a zoo must find or bear.

Each docstring says what is right. The images are digits: [B, 1, 8, 8], ten classes.
"""

import random

import numpy as np
import torch
from torch import nn

H = 16


class Base(nn.Module):
    """An MLP 64-16-10 that works."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, H), nn.Linear(H, 10)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))


# --- refused: something decides on the answers and is in no row ----------------------------------


class RandomIndex(Base):
    """Refused by `perm`: a random integer buffer is in no row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("perm", torch.randperm(64))

    def forward(self, x):
        return super().forward(x.flatten(1)[:, self.perm])


class RandomMask(Base):
    """Refused by `mask`: a random boolean buffer is in no row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.rand(64) < 0.5)

    def forward(self, x):
        return super().forward(x.flatten(1) * self.mask)


class NonPersistent(Base):
    """Refused by `mix`: a buffer that is not persistent is in no row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.randn(64, 64) / 8, persistent=False)

    def forward(self, x):
        return super().forward(x.flatten(1) @ self.mix)


class HiddenAttribute(Base):
    """Refused by `mix`: a plain attribute is in no row."""

    def __init__(self):
        super().__init__()
        self.mix = torch.randn(64, 64) / 8

    def forward(self, x):
        return super().forward(x.flatten(1) @ self.mix)


class HiddenList(Base):
    """Refused by `parts[1]`: what stands in a list is in no row."""

    def __init__(self):
        super().__init__()
        self.parts = [torch.ones(64), torch.randn(64)]

    def forward(self, x):
        return super().forward(x.flatten(1) * self.parts[0] * self.parts[1])


class LayerInList(Base):
    """Refused by `layers[0].weight`: a plain list hides its layers from torch."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(64, 64)]

    def forward(self, x):
        return super().forward(self.layers[0](x.flatten(1)))


class OwnArray(Base):
    """Refused by `table`: an array of NumPy's own random numbers."""

    def __init__(self):
        super().__init__()
        self.table = np.random.randn(64).astype(np.float32)

    def forward(self, x):
        return super().forward(x.flatten(1) * torch.from_numpy(self.table))


def closed():
    """Refused by `noise`: a tensor that only a function's closure holds."""
    noise = torch.randn(64)

    class Closed(Base):
        def forward(self, x):
            return super().forward(x.flatten(1) * noise)

    return Closed()


AT_IMPORT = torch.rand(64, generator=torch.Generator().manual_seed(torch.seed() % 2**32))


class DrawnAtImport(Base):
    """Refused by `AT_IMPORT`, which each process draws anew."""

    def forward(self, x):
        return super().forward(x.flatten(1) * AT_IMPORT)


# --- refused: answers change from call to call ----------------------------------------------------


class Noise(Base):
    """Refused by `noisy`, which draws random numbers in evaluation mode."""

    class Layer(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    def __init__(self):
        super().__init__()
        self.noisy = self.Layer()

    def forward(self, x):
        return super().forward(self.noisy(x))


class NumpyNoise(Base):
    """Refused: it draws from NumPy in training mode, which no named stream repeats."""

    def forward(self, x):
        factor = 1 + 0.1 * np.random.randn() if self.training else 1.0
        return super().forward(x * factor)


class OwnGenerator(Base):
    """Refused by `stream.state`: a generator of its own goes on from call to call."""

    def __init__(self):
        super().__init__()
        self.stream = np.random.default_rng(3)

    def forward(self, x):
        return super().forward(x) + float(self.stream.normal())


class PythonNoise(Base):
    """Refused: it draws from `random` in training mode."""

    def forward(self, x):
        return super().forward(x * (random.random() if self.training else 1.0))


class Counter(Base):
    """Refused by `calls`, which counts."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class CountsInTraining(Base):
    """Refused by `calls`, on which training depends and which no save holds."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) / (1 + self.calls * self.training)


class CountedInEvaluation(Base):
    """Refused by `steps`: an integer buffer that training moves decides on answers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        if self.training:
            self.steps += 1
        return super().forward(x) / (1 + self.steps)


class MovingAverage(Base):
    """Refused by `mean`: a buffer that training changes is neither constant nor BatchNorm's."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
        return super().forward(x - self.mean)


class ClampsItself(Base):
    """Refused by `a.weight`, which evaluation changes."""

    def forward(self, x):
        with torch.no_grad():
            self.a.weight.mul_(0.9)
        return super().forward(x)


# --- refused: how it begins, or what it gives ----------------------------------------------------


class OwnSeed(Base):
    """Refused: two seeds give equal first bytes."""

    def __init__(self):
        torch.manual_seed(42)
        super().__init__()


class NumpyWeights(Base):
    """Refused by `a.weight`: one seed gives two."""

    def __init__(self):
        super().__init__()
        self.a.weight.data = torch.from_numpy(np.random.randn(H, 64).astype(np.float32))


class CastsToDouble(Base):
    """Refused with the dtype: a row holds float32."""

    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1).double()))).float()


class DoubleLogits(Base):
    """Refused with the dtype of its logits, by the layer `wide`."""

    class Wide(nn.Module):
        def forward(self, x):
            return x.double()

    def __init__(self):
        super().__init__()
        self.wide = self.Wide()

    def forward(self, x):
        return self.wide(super().forward(x))


class TiedLayers(Base):
    """The shared tensor is one entry of the layout."""

    def __init__(self):
        super().__init__()
        self.h1, self.h2 = nn.Linear(H, H, bias=False), nn.Linear(H, H, bias=False)
        self.h2.weight = self.h1.weight

    def forward(self, x):
        return self.b(torch.relu(self.h2(torch.relu(self.h1(torch.relu(self.a(x.flatten(1))))))))


class OverlappingLayers(TiedLayers):
    """Refused with both names: a part of a tensor is a parameter, too."""

    def __init__(self):
        super().__init__()
        self.h2.weight = nn.Parameter(self.h1.weight.detach()[:])


class TwoOutputsInTraining(Base):
    """Refused before training."""

    def forward(self, x):
        h = torch.relu(self.a(x.flatten(1)))
        return (self.b(h), h) if self.training else self.b(h)


class Lazy(nn.Module):
    """Refused with the layer's name."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.LazyLinear(H), nn.LazyLinear(10)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))


class AllFrozen(Base):
    """Refused: nothing of it learns."""

    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


# --- sound ---------------------------------------------------------------------------------------


class FixedTables(Base):
    """Sound: its tables are the same in every network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(63, -1, -1))
        self.register_buffer("window", torch.hann_window(64), persistent=False)
        self.scales = [torch.linspace(0.5, 1.5, 64), 0.5]

    def forward(self, x):
        x = x.flatten(1)[:, self.order] * self.window * self.scales[0] * self.scales[1]
        return super().forward(x)


class RandomFeatures(Base):
    """Sound: a random buffer of floating-point numbers is in the row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mix", torch.randn(64, 64) / 8)

    def forward(self, x):
        return super().forward(x.flatten(1) @ self.mix)


class Positions(Base):
    """Sound: a table that all networks share stays in every row, and no stage moves or mixes it."""

    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm1d(H)
        self.register_buffer("table", torch.sin(torch.arange(1.0, H + 1)))

    def forward(self, x):
        return self.b(torch.relu(self.n(self.a(x.flatten(1))) + self.table))


class Dropout(Base):
    """Sound: dropout draws in training mode, from torch."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


class Normed(Base):
    """Sound: BatchNorm's statistics are in the row."""

    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm1d(H)

    def forward(self, x):
        return self.b(torch.relu(self.n(self.a(x.flatten(1)))))


class ZeroHead(Base):
    """Sound: it begins with logits of 0."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.b.weight)


class HiddenBehindZeros(ZeroHead):
    """Refused by `perm`, which a last layer of zeros hides at first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("perm", torch.randperm(64))

    def forward(self, x):
        return super().forward(x.flatten(1)[:, self.perm])


class Scripted(Base):
    """Sound once it is compiled, see `scripted`."""


def scripted():
    """Sound: compiled TorchScript."""
    return torch.jit.script(Scripted())


class ScriptedInPlace(nn.Module):
    """Sound; compiled it is refused, as it writes into what all networks are given."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 10)

    def forward(self, x):
        return self.a(x.mul_(2).flatten(1))


def scripted_in_place():
    """Refused: compiled TorchScript that writes into its inputs."""
    return torch.jit.script(ScriptedInPlace())


class Frozen(Base):
    """Sound: a layer that the factory froze never moves, however it is trained."""

    def __init__(self):
        super().__init__()
        self.a.requires_grad_(False)


class CumulativeNorm(Base):
    """Sound: BatchNorm that averages over all steps counts them; a stop changes no bit."""

    def __init__(self):
        super().__init__()
        self.n = nn.BatchNorm1d(H, momentum=None)

    def forward(self, x):
        return self.b(torch.relu(self.n(self.a(x.flatten(1)))))


class BareParameters(nn.Module):
    """Sound; `recipe.prune` and `recipe.initialisation` find no layer, and are refused."""

    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(64, H) / 8)
        self.w2 = nn.Parameter(torch.randn(H, 10) / 4)

    def forward(self, x):
        return torch.relu(x.flatten(1) @ self.w1) @ self.w2


class DataDependent(Base):
    """Sound, and taken one by one; a cohort that is asked for is refused."""

    def forward(self, x):
        h = torch.relu(self.a(x.flatten(1)))
        if h.mean() > 0:
            h = h * 1.1
        return self.b(h)


class Unused(Base):
    """Sound: a layer that takes no part is trained with the others, batched or not."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)


class ApartFromInPlace(Base):
    """Sound: the twin of `InPlace`."""

    def forward(self, x):
        return super().forward((x - 0.5) * 3)


class InPlace(Base):
    """Sound: it answers as `ApartFromInPlace`, though it writes into its inputs."""

    def forward(self, x):
        return super().forward(x.sub_(0.5).mul_(3))


class ChannelDropout(Base):
    """Sound; `recipe.dropout` sets none but `nn.Dropout`, so it is refused here."""

    def __init__(self):
        super().__init__()
        self.drop, self.channels = nn.Dropout(0.1), nn.Dropout2d(0.1)

    def forward(self, x):
        return super().forward(self.drop(self.channels(x)))


class OwnNormalised(nn.Module):
    """Sound: its classes are called after norms, and the weights of one are a linear layer's."""

    class LinearWithNorm(nn.Linear):
        pass

    class Scale(nn.LayerNorm):
        pass

    def __init__(self):
        super().__init__()
        self.a, self.n, self.b = self.LinearWithNorm(64, H), self.Scale(H), nn.Linear(H, 10)

    def forward(self, x):
        return self.b(torch.relu(self.n(self.a(x.flatten(1)))))
