"""Groups of small architectures, written by hand: what matching is tested on, tracer or not."""

from torch import nn

from dwf.align.groups import Group, Member
from dwf.zoo.layout import Layout


def mlp_groups(widths):
    """Groups of an MLP of these widths."""
    return tuple(
        Group(
            width,
            (
                Member(f"layers.{i}.weight", 0, power=1),
                Member(f"layers.{i}.bias", 0, power=1),
                Member(f"layers.{i + 1}.weight", 1, power=-1),
            ),
            scales=True,
            signs=True,
        )
        for i, width in enumerate(widths[1:-1])
    )


def batchnorm(name):
    """Members of a BatchNorm."""
    return [
        Member(f"{name}.weight", 0, power=1),
        Member(f"{name}.bias", 0, power=1),
        Member(f"{name}.running_mean", 0, cost=False),
        Member(f"{name}.running_var", 0, cost=False),
    ]


def resnet_groups(network):
    """Groups of torchvision's ResNet of basic blocks."""
    streams = [[Member("conv1.weight", 0), *batchnorm("bn1")]]
    inner = []
    for stage in range(1, 5):
        for b, block in enumerate(getattr(network, f"layer{stage}")):
            name = f"layer{stage}.{b}"
            before = streams[-1]
            if block.downsample is not None:
                streams.append(
                    [
                        Member(f"{name}.downsample.0.weight", 0),
                        *batchnorm(f"{name}.downsample.1"),
                    ]
                )
                before.append(Member(f"{name}.downsample.0.weight", 1, power=-1))
            before.append(Member(f"{name}.conv1.weight", 1, power=-1))
            streams[-1] += [Member(f"{name}.conv2.weight", 0), *batchnorm(f"{name}.bn2")]
            inner.append(
                (
                    Member(f"{name}.conv1.weight", 0),
                    *batchnorm(f"{name}.bn1"),
                    Member(f"{name}.conv2.weight", 1, power=-1),
                )
            )
    streams[-1].append(Member("fc.weight", 1, power=-1))
    width_of = dict(network.named_parameters())

    def size(members):
        return width_of[members[0].name].shape[members[0].axis]

    groups = [Group(size(s), tuple(s), kind="stream", scales=True) for s in streams]
    return tuple(groups + [Group(size(i), i, scales=True) for i in inner])


def vit_groups(network):
    """Groups of torchvision's VisionTransformer; children before their heads."""
    width = network.hidden_dim
    stream = [
        Member("class_token", 2),
        Member("conv_proj.weight", 0),
        Member("conv_proj.bias", 0),
        Member("encoder.pos_embedding", 2),
        Member("encoder.ln.weight", 0),
        Member("encoder.ln.bias", 0),
        Member("heads.head.weight", 1),
    ]
    groups = []
    for b, layer in enumerate(network.encoder.layers):
        name = f"encoder.layers.encoder_layer_{b}"
        attention = f"{name}.self_attention"
        heads = layer.self_attention.num_heads
        head = width // heads
        for norm in ("ln_1", "ln_2"):
            stream += [Member(f"{name}.{norm}.weight", 0), Member(f"{name}.{norm}.bias", 0)]
        stream += [
            Member(f"{attention}.in_proj_weight", 1),
            Member(f"{attention}.out_proj.weight", 0),
            Member(f"{attention}.out_proj.bias", 0),
            Member(f"{name}.mlp.0.weight", 1),
            Member(f"{name}.mlp.3.weight", 0),
            Member(f"{name}.mlp.3.bias", 0),
        ]
        groups.append(
            Group(
                layer.mlp[0].out_features,
                (
                    Member(f"{name}.mlp.0.weight", 0),
                    Member(f"{name}.mlp.0.bias", 0),
                    Member(f"{name}.mlp.3.weight", 1),
                ),
            )
        )
        packed = [f"{attention}.in_proj_weight", f"{attention}.in_proj_bias"]
        parent = len(groups) + 2 * heads
        for place in range(heads):
            at = place * head
            groups.append(
                Group(
                    head,
                    tuple(
                        Member(n, 0, start=part * width + at) for n in packed for part in range(2)
                    ),
                    kind="query_key",
                    parent=parent,
                    place=place,
                )
            )
            value = tuple(Member(n, 0, start=2 * width + at) for n in packed)
            out = Member(f"{attention}.out_proj.weight", 1, start=at)
            groups.append(
                Group(head, (*value, out), kind="value_output", parent=parent, place=place)
            )
        members = tuple(
            Member(n, 0, start=part * width, inner=head) for n in packed for part in range(3)
        )
        out = Member(f"{attention}.out_proj.weight", 1, inner=head)
        groups.append(Group(heads, (*members, out), kind="heads"))
    groups.append(Group(width, tuple(stream), kind="stream"))
    return tuple(groups)


def small_vit(depth=2, width=12, heads=3, hidden=20):
    """(network, layout, groups) of a small vision transformer, images 3 x 8 x 8."""
    from torchvision.models import VisionTransformer

    network = VisionTransformer(8, 4, depth, heads, width, hidden, num_classes=5).eval()
    return network, Layout.of(network), vit_groups(network)


def small_resnet(width=4, blocks=(1, 1, 1, 1)):
    """(network, layout, groups) of a narrow ResNet, images 3 x 16 x 16."""
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, list(blocks), num_classes=5)
    narrow(network, width / 64)
    return network.eval(), Layout.of(network), resnet_groups(network)


def narrow(network, share):
    """Make every layer of a ResNet narrower, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                new = nn.Conv2d(
                    child.in_channels if child.in_channels == 3 else int(child.in_channels * share),
                    int(child.out_channels * share),
                    child.kernel_size,
                    child.stride,
                    child.padding,
                    bias=False,
                )
                setattr(module, name, new)
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(int(child.num_features * share)))
            elif isinstance(child, nn.Linear):
                new = nn.Linear(int(child.in_features * share), child.out_features)
                setattr(module, name, new)


class GroupedNet(nn.Module):
    """A convolution of blocks between two plain ones; images 3 x 6 x 6."""

    def __init__(self, blocks=3, wide=4, narrow=2):
        super().__init__()
        self.first = nn.Conv2d(3, blocks * narrow, 3)
        self.grouped = nn.Conv2d(blocks * narrow, blocks * wide, 3, groups=blocks)
        self.last = nn.Linear(blocks * wide * 4, 5)

    def forward(self, images):
        """Return logits."""
        hidden = self.grouped(self.first(images).relu()).relu()
        return self.last(hidden.flatten(1))


def grouped_net(blocks=3, wide=4, narrow=2):
    """(network, layout, groups) with blocks and units within them."""
    network = GroupedNet(blocks, wide, narrow=narrow).eval()
    groups, parent = [], 2 * blocks
    for p in range(blocks):
        groups.append(
            Group(
                narrow,
                (
                    Member("first.weight", 0, start=p * narrow),
                    Member("first.bias", 0, start=p * narrow),
                    Member("grouped.weight", 1, rows=(p * wide, (p + 1) * wide)),
                ),
                kind="units",
                parent=parent,
                place=p,
            )
        )
        groups.append(
            Group(
                wide,
                (
                    Member("grouped.weight", 0, start=p * wide),
                    Member("grouped.bias", 0, start=p * wide),
                    Member("last.weight", 1, start=p * wide * 4, inner=4),
                ),
                kind="units",
                parent=parent,
                place=p,
            )
        )
    groups.append(
        Group(
            blocks,
            (
                Member("first.weight", 0, inner=narrow),
                Member("first.bias", 0, inner=narrow),
                Member("grouped.weight", 0, inner=wide),
                Member("grouped.bias", 0, inner=wide),
                Member("last.weight", 1, inner=wide * 4),
            ),
            kind="blocks",
        )
    )
    return network, Layout.of(network), tuple(groups)
