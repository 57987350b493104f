"""Our GELU and its gradient against torch's tanh form in float64."""

import torch
from torch.nn import functional

from dwf.backbones.gelu import Gelu


def test_equals_torch_s_tanh_form_in_float64_forward_and_back():
    x = torch.linspace(-20, 20, 4001).view(1, -1).requires_grad_()
    exact = x.detach().double().requires_grad_()
    weights = torch.linspace(0.5, 2, 4001)
    found, wanted = Gelu()(x), functional.gelu(exact, approximate="tanh")
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0, atol=5e-6)


def test_in_bf16_on_a_cpu_it_is_exact_to_some_roundings():
    x = torch.linspace(-6, 6, 4001).bfloat16().view(1, -1).requires_grad_()
    exact = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = Gelu()(x)
    wanted = functional.gelu(exact, approximate="tanh")
    found.sum().backward()
    wanted.sum().backward()
    assert found.dtype == torch.bfloat16
    eps = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(found.double(), wanted, rtol=2 * eps, atol=eps)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0, atol=3 * eps)


def test_elsewhere_it_is_torch_s_own():
    x = torch.randn(3, 5)
    assert torch.equal(Gelu()(x.double()), functional.gelu(x.double(), approximate="tanh"))
    slopes = torch.func.vmap(torch.func.jacrev(Gelu()))(x)  # transforms of functions go through
    inner = x.clone().requires_grad_()
    Gelu()(inner).sum().backward()
    torch.testing.assert_close(slopes.diagonal(dim1=1, dim2=2), inner.grad)
