"""Which noise goes with which code in a batch, and which token of it with which unit.

Noise is as good in another order, of its vectors and, where a backbone takes a section's tokens for
a set, of its tokens: what is paired at a small distance leaves straighter paths to learn.
Networks of different architectures are never paired with each other's noise, nor a unit that a
network has with one that it lacks: the noise of each would not be Gaussian any more.

Source: Tong et al., arXiv 2302.00482, section 3.2.3 (batches); Klein et al., Equivariant flow
matching, arXiv 2306.15030, section 4.2, and Song et al., arXiv 2312.07168, section 4.2 (tokens).

Shape suffixes: B codes of a batch, K numbers of a code, U tokens of a section, C numbers of a
token.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from dwf.codecs.codes import tokens_of

PairedSections = Sequence[tuple[int, int, bool]]
"""For each section of tokens: how many, numbers of each, whether they are exchangeable."""

_NEVER = -1e30


def pair(
    kind: str,
    x0_BK: torch.Tensor,
    *,
    x1_BK: torch.Tensor,
    sections: PairedSections = (),
    kind_B: torch.Tensor | None = None,
    present_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the noise in the order in which it goes with the codes, [B, K].

    Args:
        kind: `independent`, `optimal_transport`, `tokens` or `equivariant`; see `FlowConfig`.
        x0_BK: noise.
        x1_BK: codes; of several architectures 0 where a network has no number.
        sections: of sequences, in their order.
        kind_B: which architecture each code is of; None: all of one.
        present_BK: which numbers each code has; None: all.
    """
    known = {"sections": sections, "present_BK": present_BK}
    # Autocast would round the products by which pairs are found, to a type that NumPy lacks.
    with torch.autocast(x0_BK.device.type, enabled=False):
        if kind == "optimal_transport":
            x0_BK = x0_BK[order(x0_BK, x1_BK, kind_B=kind_B)]
        if kind == "equivariant":
            x0_BK = x0_BK[order(x0_BK, x1_BK, kind_B=kind_B, **known)]
        if kind in ("tokens", "equivariant"):
            x0_BK = assign_tokens(x0_BK, x1_BK, **known)
    return x0_BK


def order(
    x0_BK: torch.Tensor,
    x1_BK: torch.Tensor,
    *,
    kind_B: torch.Tensor | None = None,
    sections: PairedSections = (),
    present_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the order of noise that lies nearest to the codes, int64 of shape [B].

    Exact: `x0_BK[order]` minimises the sum of squared distances to `x1_BK`, each after the best
    assignment of tokens if there are sections; that costs B^2 assignments of each section.

    Args:
        x0_BK: noise.
        x1_BK: codes; 0 where a network has no number.
        kind_B: architectures: each one's codes are paired among themselves.
        sections: of sequences, to assign tokens within each pair; default: none are assigned.
        present_BK: which numbers each code has; None: all.
    """
    if kind_B is None:
        return _order(x0_BK, x1_BK, sections, None)
    order_B = torch.empty_like(kind_B)
    for kind in kind_B.unique():
        rows = (kind_B == kind).nonzero().squeeze(1)
        present_K = None if present_BK is None else present_BK[rows[0]]
        order_B[rows] = rows[_order(x0_BK[rows], x1_BK[rows], sections, present_K)]
    return order_B


def _order(
    x0_BK: torch.Tensor,
    x1_BK: torch.Tensor,
    sections: PairedSections,
    present_K: torch.Tensor | None,
) -> torch.Tensor:
    # |x1 - x0|^2 = |x1|^2 + |x0|^2 - 2 x1.x0, and only the last term depends on the pairing.
    product_BB = x1_BK @ x0_BK.T
    if sections:
        product_BB = _best_products(x0_BK, x1_BK, sections, present_K)
    _, found = linear_sum_assignment(product_BB.cpu().numpy(), maximize=True)
    return torch.from_numpy(found).to(x0_BK.device)


def _best_products(
    x0_BK: torch.Tensor,
    x1_BK: torch.Tensor,
    sections: PairedSections,
    present_K: torch.Tensor | None,
) -> torch.Tensor:
    """Return x1.x0 of each code and noise, tokens assigned as they fit best, [B, B] on the CPU."""
    total_BB = torch.zeros(len(x1_BK), len(x0_BK), dtype=torch.float64)
    present_K = torch.ones_like(x1_BK[0], dtype=torch.bool) if present_K is None else present_K
    there = tokens_of(present_K.unsqueeze(0), sections)
    for x0, x1, has, (_, _, is_free) in zip(
        tokens_of(x0_BK, sections), tokens_of(x1_BK, sections), there, sections, strict=True
    ):
        if not is_free:
            total_BB += (x1.flatten(1) @ x0.flatten(1).T).cpu()
            continue
        has_U = has[0].any(1)
        x0, x1 = x0[:, has_U].transpose(1, 2), x1[:, has_U]
        for b, code_UC in enumerate(x1):
            scores = (code_UC @ x0).cpu().numpy()  # [B, U, U]
            best = np.take_along_axis(scores, _assign(scores), 2)
            total_BB[b] += torch.from_numpy(best.sum((1, 2), dtype=np.float64))
    return total_BB


def assign_tokens(
    x0_BK: torch.Tensor,
    x1_BK: torch.Tensor,
    *,
    sections: PairedSections,
    present_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return noise whose tokens are permuted within exchangeable sections, nearest to the codes.

    Args:
        x0_BK: noise, one for each code.
        x1_BK: codes.
        sections: of the sequences.
        present_BK: which numbers each code has; None: all.
    """
    moved = []
    there = [None] * len(sections) if present_BK is None else tokens_of(present_BK, sections)
    for x0, x1, has, (_, _, is_free) in zip(
        tokens_of(x0_BK, sections), tokens_of(x1_BK, sections), there, sections, strict=True
    ):
        if is_free:
            scores = x1 @ x0.transpose(1, 2)
            if has is not None:
                has_BU = has.any(2)
                scores[has_BU.unsqueeze(2) != has_BU.unsqueeze(1)] = _NEVER
            found = torch.from_numpy(_assign(scores.cpu().numpy())).to(x0.device)
            x0 = x0.gather(1, found.expand(x0.shape))
        moved.append(x0.flatten(1))
    return torch.cat(moved, 1)


def _assign(scores: np.ndarray) -> np.ndarray:
    """Return for each matrix the columns of the assignment of highest sum, [B, U, 1]."""
    return np.stack([linear_sum_assignment(one, maximize=True)[1] for one in scores])[:, :, None]
