"""Attention against its formula in float64, by torch's kernel and by products in bf16."""

import math

import pytest
import torch

from dwf.backbones import dot_product
from dwf.backbones.dot_product import attend


def by_hand(query, key, value, heard=None):
    """softmax(q k / sqrt(D)) v, head by head, in float64."""
    query, key, value = (part.double().transpose(1, 2) for part in (query, key, value))
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    if heard is not None:
        scores = scores.masked_fill(~heard, -math.inf)
    weights = scores.exp() / scores.exp().sum(dim=3, keepdim=True)
    return (weights @ value).transpose(1, 2)


def attended(parts, heard):
    query, key, value = parts
    return attend(query, key, value_BTHD=value, heard=heard)


def parts(dtype, *, num_query=5, num_key=7):
    generator = torch.manual_seed(0)
    sizes = (num_query, num_key, num_key)
    drawn = (torch.randn(3, size, 2, 4, generator=generator) for size in sizes)
    return [part.to(dtype).requires_grad_() for part in drawn]


HEARD = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1, 0], [1] * 7]).bool()[:, None, None]


@pytest.mark.parametrize("heard", [None, HEARD, HEARD[:1]], ids=["all", "each its own", "one"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attention_and_its_gradient_are_those_of_the_formula(dtype, heard):
    tolerance = {"rtol": 0, "atol": 8 * torch.finfo(dtype).eps}
    told = parts(dtype)
    exact = [part.detach().double().requires_grad_() for part in told]
    found, wanted = attended(told, heard), by_hand(*exact, heard)
    assert found.dtype == dtype and found.shape == (3, 5, 2, 4)
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    torch.testing.assert_close(found.double(), wanted, **tolerance)
    slopes = torch.autograd.grad((found.double() * weights).sum(), told)
    right = torch.autograd.grad((wanted * weights).sum(), exact)
    for slope, each in zip(slopes, right, strict=True):
        torch.testing.assert_close(slope.double(), each, **tolerance)


def test_in_bf16_on_a_cpu_many_tokens_take_torch_s_kernel_in_float32(monkeypatch):
    told = parts(torch.bfloat16)
    monkeypatch.setattr(dot_product, "_MOST_HEARD", 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = attended(told, HEARD)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_hand(*told, HEARD), rtol=0, atol=1e-5)


def test_under_autocast_products_stay_in_bf16():
    told = parts(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = attended(told, HEARD)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, attended(told, HEARD))
