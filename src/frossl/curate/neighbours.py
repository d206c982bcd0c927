"""Exact nearest neighbours by products of blocks, on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 2**26
"""Similarities that are held at a time: 256 MiB."""
MOST = 200_000
"""Images up to which each is compared with each."""


@torch.no_grad()
def nearest(
    bank_NF: Tensor, queries_QF: Tensor, count: int, *, same: bool = False, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosine similarities and indices ``(Q, count)`` of the rows of the bank nearest to each query, the nearest first.

    With ``same`` the queries are the bank, and none is its own neighbour. Computed on ``device``, given on the CPU.
    """
    bank = normalize(bank_NF, dim=1).T.to(device).contiguous()
    size = bank.shape[1]
    values, places, start = [], [], 0
    for rows in normalize(queries_QF, dim=1).split(max(1, BLOCK // size)):
        similarity = rows.to(device) @ bank
        if same:
            own = torch.arange(len(rows), device=device)
            similarity[own, own + start] = -torch.inf
        found = similarity.topk(min(count, size - same), dim=1)
        values.append(found.values.cpu())
        places.append(found.indices.cpu())
        start += len(rows)
    return torch.cat(values), torch.cat(places)
