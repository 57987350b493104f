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


def test_elsewhere_it_is_torch_s_own():
    x = torch.randn(3, 5)
    assert torch.equal(Gelu()(x.double()), functional.gelu(x.double(), approximate="tanh"))
    slopes = torch.func.vmap(torch.func.jacrev(Gelu()))(x)  # transforms of functions go through
    inner = x.clone().requires_grad_()
    Gelu()(inner).sum().backward()
    torch.testing.assert_close(slopes.diagonal(dim1=1, dim2=2), inner.grad)
