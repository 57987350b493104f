"""Small networks on which tracing symmetry was once wrong, each for a kind of fault."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from dwf.align.groups import permute, random_orders, scale_units
from dwf.zoo.layout import Layout


class SinusoidalPositions(nn.Module):
    """A table of positions, which no alignment may move: it is one constant of all networks."""

    shape = (8, 8)

    def __init__(self, width=16):
        super().__init__()
        self.enter = nn.Linear(8, width)
        place = torch.arange(8.0)[:, None] * torch.exp(-torch.arange(0, width, 2.0) / 4)
        self.register_buffer("pe", torch.cat([place.sin(), place.cos()], 1))
        self.up, self.down = nn.Linear(width, 32), nn.Linear(32, width)
        self.leave = nn.Linear(width, 10)

    def forward(self, x):
        """Return logits."""
        h = self.enter(x) + self.pe
        h = h + self.down(torch.relu(self.up(h)))
        return self.leave(torch.relu(h).amax(1))


class OwnNorm(nn.Module):
    """A norm of one's own: its buffers are 0 and 1 when built, and yet the units have no scale."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 10), nn.Linear(10, 3)
        self.register_buffer("mean", torch.zeros(10))
        self.register_buffer("var", torch.ones(10))

    def forward(self, x):
        """Return logits."""
        h = (self.a(x) - self.mean) / (self.var + 1e-5).sqrt()
        return self.b(functional.relu(h))


class CapByKeyword(nn.Module):
    """A buffer that cuts units off, given by keyword: it moves with them."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 10), nn.Linear(10, 3)
        self.register_buffer("cap", torch.full((10,), 6.0))

    def forward(self, x):
        """Return logits."""
        return self.b(torch.clamp(functional.relu(self.a(x)), max=self.cap))


class ReZero(nn.Module):
    """A parameter without axes: one group of 8 units, with scales."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.g = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        """Return logits."""
        return self.b(self.g * torch.relu(self.a(x)))


class SoftGate(nn.Module):
    """Two branches weighed by gates: 5 units, and gates that stay with their branches."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.g, self.o = nn.Linear(6, 2), nn.Linear(5, 3)
        self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x):
        """Return logits."""
        g = self.g(x).softmax(1)
        return self.o(functional.relu(g[:, :1] * self.a(x) + g[:, 1:] * self.b(x)))


class NormedQueries(nn.Module):
    """Queries and keys under one norm with weights: the heads share an order of them."""

    shape = (6, 10)

    def __init__(self):
        super().__init__()
        self.i, self.qkv = nn.Linear(10, 16), nn.Linear(16, 60)
        self.p, self.o = nn.Linear(20, 16), nn.Linear(16, 3)
        self.qn, self.kn = nn.LayerNorm(5), nn.LayerNorm(5)

    def forward(self, x):
        """Return logits."""
        h = self.i(x)
        batch, tokens, _ = h.shape
        qkv = self.qkv(h).reshape(batch, tokens, 3, 4, 5)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(self.qn(q), self.kn(k), v)
        y = y.transpose(1, 2).reshape(batch, tokens, 20)
        return self.o((h + self.p(y)).mean(1))


class Tied(nn.Module):
    """A decoder that is its encoder's weight transposed: one group of 8 units."""

    def __init__(self, width=8, inputs=12):
        super().__init__()
        self.shape = (inputs,)
        self.e = nn.Linear(inputs, width)

    def forward(self, x):
        """Return logits."""
        return functional.linear(functional.relu(self.e(x)), self.e.weight.t())


class Recurrent(nn.Module):
    """A recurrent network whose state begins with zeros, which pin nothing."""

    shape = (4, 10)

    def __init__(self):
        super().__init__()
        self.i, self.h, self.o = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        """Return logits."""
        h = x.new_zeros(len(x), 8)
        for t in range(4):
            h = torch.tanh(self.i(x[:, t]) + self.h(h))
        return self.o(h)


class LongShort(nn.Module):
    """An LSTM's cell written by hand: states of zeros, and four gates of each unit."""

    shape = (3, 5)

    def __init__(self):
        super().__init__()
        self.x, self.h, self.o = nn.Linear(5, 24), nn.Linear(6, 24), nn.Linear(6, 2)

    def forward(self, x):
        """Return logits."""
        h = c = x.new_zeros(len(x), 6)
        for t in range(3):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.o(h)


class PaddedShortcut(nn.Module):
    """The shortcut of the first CIFAR ResNets: zeros around the 4 channels of a stream."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.i, self.a = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.b, self.o = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        """Return logits."""
        x = functional.relu(self.i(x))
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = functional.relu(short + self.b(functional.relu(self.a(x))))
        return self.o(x.mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions, and a shortcut that pads channels with zeros where there are more."""

    def __init__(self, before, width):
        super().__init__()
        self.more, self.stride = (width - before) // 2, 1 + (width != before)
        self.conv1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        """Return what the block makes of an activation."""
        h = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(functional.pad(x, (0, 0, 0, 0, self.more, self.more)) + h)


class PaddedResNet(nn.Module):
    """The ResNet of the first paper on CIFAR-10, option A: 6 n + 2 layers of 16 to 64 channels."""

    shape = (3, 32, 32)

    def __init__(self, n=3, width=16):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
        self.blocks = nn.Sequential(*[_Block(*pair) for pair in itertools.pairwise(widths)])
        self.out = nn.Linear(4 * width, 10)

    def forward(self, x):
        """Return logits."""
        return self.out(self.blocks(functional.relu(self.bn(self.conv(x)))).mean((2, 3)))


class AuxiliaryHead(nn.Module):
    """A head that training alone runs."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.aux = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        """Return logits; of both heads in training."""
        h = functional.relu(self.a(x))
        return (self.b(h), self.aux(h)) if self.training else self.b(h)


class TwoHeads(nn.Module):
    """Logits of which some are 1e10 times as large as the others."""

    shape = (6,)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 10), nn.Linear(10, 3), nn.Linear(10, 2)

    def forward(self, x):
        """Return logits."""
        h = functional.relu(self.a(x))
        return torch.cat([self.b(h) * 1e10, self.c(h)], 1)


def largest_change(network, groups, shape, seed=0):
    """By how much random orders, scales and signs change a logit, as a share of its own size.

    A row of random numbers in float64, what is a buffer above 0; found here without `verify.py`.
    """
    random = torch.Generator().manual_seed(seed)
    network, layout = network.double().eval(), Layout.of(network)
    row_D = torch.randn(layout.size, generator=random, dtype=torch.float64) * 0.5
    tensors, state = layout.unflatten(row_D), network.state_dict()
    moved = {member.name for group in groups for member in group.members}
    for entry in layout.entries:
        if not entry.is_learnt:
            tensors[entry.name].abs_().add_(0.1)
            if entry.name not in moved:
                tensors[entry.name].copy_(state[entry.name])
    images = torch.randn(8, *shape, generator=random, dtype=torch.float64)

    def logits(row_D):
        return torch.func.functional_call(network, layout.unflatten(row_D), (images,))

    changed_1D = row_D.clone()[None]
    for group in groups:
        factor_1U = torch.ones(1, group.size, dtype=torch.float64)
        if group.scales:
            factor_1U *= torch.rand(1, group.size, generator=random, dtype=torch.float64) + 0.5
        if group.signs:
            factor_1U *= torch.randint(2, (1, group.size), generator=random) * 2 - 1
        scale_units(layout.unflatten(changed_1D), group, factor_NU=factor_1U)
    orders = random_orders(groups, 1, seed=seed)
    changed_1D = permute(changed_1D, layout, groups=groups, orders=orders)
    before, after = logits(row_D), logits(changed_1D[0])
    return float(((after - before).abs().amax(0) / before.abs().amax(0)).max())
