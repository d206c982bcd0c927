"""Muon: the momentum of a matrix, made orthogonal, as its step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

QUINTIC, ITERATIONS, EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7
"""Coefficients of Jordan's post and of torch.optim.Muon: singular values end between 0.7 and 1.2, not at 1."""


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for groups with ``orthogonal``, AdamW for others.

    For a tensor of two or more dimensions, flattened to its first one: ``buffer <- momentum buffer + (1 - momentum) g``
    and, with ``u`` the orthogonal factor of ``(1 - momentum) g + momentum buffer`` (Nesterov), about by five
    Newton-Schulz iterations in bfloat16, ``p <- (1 - lr weight_decay) p - 0.2 lr sqrt(max(rows, columns)) u``. With
    that factor a step is as large as one of AdamW (Liu et al., arXiv 2502.16982), so both take the same rate.

    A step changes nothing while the attribute ``found_inf``, a scalar tensor, is 1.
    """

    def __init__(self, params: Iterable[Any], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)
        for group in self.param_groups:
            group.setdefault("orthogonal", False)
            group.setdefault("momentum", momentum)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = self.param_groups
        for group in groups:
            if group["orthogonal"]:
                self._orthogonal_step(group)
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        found_inf = getattr(self, "found_inf", None)
        for p in group["params"]:
            if p.grad is None:
                continue
            if "momentum_buffer" not in self.state[p]:
                # AdamW reads "step" in every state that it loads.
                self.state[p] |= {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(p)}
            buffer, g, momentum = self.state[p]["momentum_buffer"], p.grad, group["momentum"]
            bad = torch.zeros((), dtype=torch.bool, device=p.device) if found_inf is None else found_inf.bool()
            g = torch.where(bad, buffer, g)  # a gradient equal to the momentum leaves it as it is
            buffer.lerp_(g, 1 - momentum)
            matrix = g.lerp(buffer, momentum).flatten(1)
            update = orthogonal(matrix).to(p.dtype).reshape(p.shape) * (0.2 * math.sqrt(max(matrix.shape)))
            p.add_((update + group["weight_decay"] * p).masked_fill(bad, 0), alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly ``U V'`` of the singular value decomposition ``U S V'`` of ``matrix``, in bfloat16."""
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
