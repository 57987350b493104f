"""Our linear layer and its gradients against torch's in float64, and where torch's is taken."""

import copy

import pytest
import torch
from torch.nn import functional

from dwf.backbones import linear
from dwf.backbones.linear import Linear


@pytest.fixture(autouse=True, params=[linear.TORCH, linear.ONEDNN])
def kernel(monkeypatch, request):
    """Each kernel in turn, without being told of."""
    monkeypatch.setattr(Linear, "kernel", request.param)


def gradients(run, x, weight, bias):
    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
    out = run(*leaves)
    out.square().sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("shape", [(5, 7, 13), (33, 13), (1, 1, 13), (0, 4, 13)])
@pytest.mark.parametrize("transposed", [False, True])
def test_equals_a_product_in_float64(shape, transposed):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator)
    if transposed:  # memory of another order
        x = x.transpose(0, -2).contiguous().transpose(0, -2)
    layer = Linear(13, 9)

    def ours(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    weight, bias = (parameter.detach() for parameter in layer.parameters())
    found = gradients(ours, x, weight=weight, bias=bias)
    wanted = gradients(functional.linear, x.double(), weight=weight.double(), bias=bias.double())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_other_precisions_take_torch_s_own():
    layer, x = Linear(8, 4), torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_without_onednn_it_is_torch_s_own(monkeypatch):
    layer, x = Linear(8, 4), torch.randn(3, 8)
    monkeypatch.delitem(linear.KERNELS, linear.ONEDNN, raising=False)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))


def test_a_module_is_told_as_a_whole():
    module = torch.nn.Sequential(Linear(2, 2), torch.nn.Sequential(Linear(2, 3)))
    linear.use_kernel(module, linear.ONEDNN)
    assert [module[0].kernel, module[1][0].kernel] == ["onednn", "onednn"]
    assert linear.kernel_of(copy.deepcopy(module)) == "onednn"
    linear.use_kernel(module, "of another version")
    assert linear.kernel_of(module) == linear.kernel_of(torch.nn.ReLU()) == "torch"


def test_gradient_is_left_out_where_none_is_wanted():
    layer = Linear(8, 4, bias=False).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 8))
    assert layer.weight.grad is None


def test_a_vector_is_mapped_as_a_row_is():
    layer, x = Linear(8, 4), torch.randn(8, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0))
    torch.testing.assert_close(layer.bias.grad, torch.ones(4))


def test_transforms_of_functions_take_torch_s_own():
    layer, x = Linear(8, 4), torch.randn(5, 8)
    torch.testing.assert_close(torch.vmap(layer)(x), functional.linear(x, layer.weight, layer.bias))
    jacobian = torch.func.vmap(torch.func.jacrev(layer))(x)
    torch.testing.assert_close(jacobian, layer.weight.expand(5, 4, 8))


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_a_torch_that_calls_the_kernel_otherwise_is_noticed(monkeypatch, error):
    def fail(*_, **__):
        raise error

    assert linear._has_onednn() == torch.backends.mkldnn.is_available()
    with torch.device("meta"):  # in which a training is planned
        assert linear._has_onednn() == torch.backends.mkldnn.is_available()
    monkeypatch.setattr(linear, "_product", fail)
    assert not linear._has_onednn()
    monkeypatch.setattr(linear, "_product", lambda x, weight: x @ weight.T + 1)
    assert not linear._has_onednn()


@pytest.mark.parametrize(("entering", "leaving"), [(5, 9), (9, 5)])
def test_slices_of_columns_are_as_good(entering, leaving):
    """What enters and the gradient of what leaves may have gaps in memory."""
    layer, generator = Linear(entering, leaving), torch.Generator().manual_seed(0)
    x = torch.randn(500, 3 * entering, generator=generator)[:, entering : 2 * entering]
    wanted = torch.randn(500, 3 * leaving, generator=generator)[:, :leaving]
    layer(x).backward(wanted)
    torch.testing.assert_close(layer.weight.grad, wanted.T @ x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.bias.grad, wanted.sum(0), rtol=1e-4, atol=1e-4)
