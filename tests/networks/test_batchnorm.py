"""Re-estimated running statistics against PyTorch's in training mode and a closed form."""

import pytest
import torch

from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks import batchnorm, functional
from dwf.networks.batchnorm import recalibrate
from dwf.networks.functional import batchnorm_buffers, build_network, run_under_vmap
from dwf.randomness import torch_stream
from tests.networks.published import NARROW
from tests.networks.test_functional import image_data, state_of

WITH_BATCHNORM = ("cnn_batchnorm", "resnet_cifar", "resnet50", "mobilenet_v2", "densenet")


def plain_statistics(config, state, data, batches, i) -> dict[str, torch.Tensor]:
    """PyTorch's own way: a new module in training mode with the cumulative average."""
    network = build_network(config)
    network.load_state_dict({n: t[i] for n, t in state.items()}, strict=False)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
            module.train()
    with torch.no_grad():
        for positions in batches:
            images, _ = data.train.batch(positions)
            network(data.prepare(images))
    return {n: network.state_dict()[n] for n in batchnorm_buffers(network)}


@pytest.mark.parametrize("name", WITH_BATCHNORM)
def test_statistics_equal_a_plain_loop_in_training_mode(name):
    config, data = NARROW[name], image_data(16)
    network = build_network(config)
    state = state_of(network, 3)
    before = {n: t.clone() for n, t in state.items()}
    new = recalibrate(network, state, data=data, num_images=23, batch=10)
    order = torch.randperm(30, generator=torch_stream(0, "recalibrate"))
    batches = [order[:8], order[8:16], order[16:23]]  # equal to within one image
    for i in range(3):
        for n, expected in plain_statistics(config, state, data=data, batches=batches, i=i).items():
            assert torch.equal(new[n][i], expected), n
    buffers = batchnorm_buffers(network)
    assert all(new[n] is t for n, t in state.items() if n not in buffers)
    assert all(torch.equal(state[n], t) for n, t in before.items()), "the given state was changed"
    assert not network.training and all(
        m.momentum == 0.1 and m.num_batches_tracked == 0
        for m in network.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    )


@pytest.mark.parametrize("name", WITH_BATCHNORM)
def test_networks_batched_give_the_statistics_of_networks_in_turn(name, monkeypatch):
    network, data = build_network(NARROW[name]).double(), image_data(16)
    state = {n: t.double() for n, t in state_of(network, 3).items()}
    monkeypatch.setattr(type(data), "prepare", lambda self, images: images.double() / 255)
    in_turn = recalibrate(network, state, data=data, num_images=30, batch=9)
    monkeypatch.setattr(batchnorm, "run_networks", run_under_vmap)
    monkeypatch.setattr(batchnorm, "portion", lambda *_, **__: functional.Portion(2, 100))
    batched = recalibrate(network, state, data=data, num_images=30, batch=9)
    for n in batchnorm_buffers(network):
        torch.testing.assert_close(batched[n], in_turn[n])


def test_statistics_of_a_linear_map_are_those_of_all_images():
    """The first BatchNorm sees a convolution of the images: its mean has a closed form."""
    network, data = build_network(NARROW["cnn_batchnorm"]), image_data(16)
    state = state_of(network, 2)
    new = recalibrate(network, state, data=data, num_images=30, batch=30)
    images = data.prepare(data.train.images[data.train.index]).double()
    for i in range(2):
        weight, bias = (state[f"convs.0.{leaf}"][i].double() for leaf in ("weight", "bias"))
        maps = torch.nn.functional.conv2d(images, weight, bias).transpose(0, 1).flatten(1)
        torch.testing.assert_close(new["norms.0.running_mean"][i].double(), maps.mean(1))
        torch.testing.assert_close(new["norms.0.running_var"][i].double(), maps.var(1))


def test_dropout_is_off_and_stored_statistics_play_no_part():
    config = NARROW["cnn_batchnorm"]
    network, data = build_network(config), image_data(16)
    state = state_of(network, 2)
    without = {n: t for n, t in state.items() if n not in batchnorm_buffers(network)}
    new, again = (
        recalibrate(network, state, data=data, num_images=20),
        recalibrate(network, without, data=data, num_images=20),
    )
    assert all(torch.equal(again[n], t) for n, t in new.items())
    other = recalibrate(network, state, data=data, num_images=20, seed=1)
    assert not torch.equal(other["norms.0.running_mean"], new["norms.0.running_mean"])


@pytest.mark.parametrize(("num", "batch"), [(3, 2), (2, 1), (7, 3), (30, 29)])
def test_no_batch_has_a_single_image(num, batch):
    # The map behind this network's last convolution has one pixel: one image has no variance.
    network, data = build_network(NARROW["densenet"]), image_data(2)
    new = recalibrate(network, state_of(network, 1), data=data, num_images=num, batch=batch)
    assert all(t.isfinite().all() for t in new.values())


def test_one_image_too_many_images_and_no_batchnorm_are_refused():
    network, data = build_network(NARROW["cnn_batchnorm"]), image_data(16)
    state = state_of(network, 2)
    for num in (0, 1, 31):
        with pytest.raises(ConfigError, match=f"on {num} images.*at least 2.*the 30 training"):
            recalibrate(network, state, data=data, num_images=num)
    plain = build_network(NARROW["vit"])
    with pytest.raises(ConfigError, match="ViT has no BatchNorm"):
        recalibrate(plain, state_of(plain, 2), data=data, num_images=10)
    del state["convs.0.bias"]
    with pytest.raises(ShapeMismatch, match=r"lacks convs\.0\.bias"):
        recalibrate(network, state, data=data, num_images=10)
