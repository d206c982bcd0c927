"""Exact nearest neighbours by products of blocks, on whatever device the vectors are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 2**26
"""Similarities that are held at a time: 256 MiB."""
MOST = 200_000
"""Images up to which each is compared with each."""


@torch.no_grad()
def nearest(bank_NF: Tensor, queries_QF: Tensor, count: int, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Cosine similarities and indices ``(Q, count)`` of the rows of the bank nearest to each query, the nearest first.

    With ``same`` the queries are the bank, and none is its own neighbour.
    """
    bank = normalize(bank_NF, dim=1).T.contiguous()
    size = bank.shape[1]
    values, places, start = [], [], 0
    for rows in normalize(queries_QF, dim=1).split(max(1, BLOCK // size)):
        similarity = rows @ bank
        if same:
            own = torch.arange(len(rows), device=rows.device)
            similarity[own, own + start] = -torch.inf
        found = similarity.topk(min(count, size - same), dim=1)
        values.append(found.values)
        places.append(found.indices)
        start += len(rows)
    return torch.cat(values), torch.cat(places)
