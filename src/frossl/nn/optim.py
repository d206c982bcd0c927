"""Optimisers and the learning-rate schedule."""
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.nn.ema import lerp_all
from frossl.nn.muon import Muon


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You, Gitman, Ginsburg, arXiv 1708.03888) with heavy-ball momentum.

    For tensors that are not one-dimensional: ``local = eta |p| / (|g| + weight_decay |p| + eps)``, clipped to
    ``min(local / lr, 1)`` if ``clip``, and ``g <- (g + weight_decay p) local``; one where either norm is zero.
    One-dimensional tensors (biases and norms) are neither decayed nor scaled if ``exclude_1d``, else treated as
    the others. Then ``buffer <- momentum buffer + g`` and ``p <- p - lr buffer``.

    The defaults are those of the paper's public configurations; elsewhere eta 1e-3 without the clip is usual. As in
    torch's fused optimisers, a step changes nothing while the attribute ``found_inf``, a scalar tensor, is 1. The
    parameters of a group share most of their kernels off the CPU.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.02,
        clip: bool = True,
        exclude_1d: bool = True,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "clip": clip}
        super().__init__(params, defaults | {"exclude_1d": exclude_1d, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step; norms stay on the device."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            on_cpu = all(p.device.type == "cpu" for p in gradients)
            # On the CPU one parameter at a time, whose tensors then stay in the cache.
            for part in [{p: g} for p, g in gradients.items()] if on_cpu else [gradients]:
                self._update(part, group)
        return loss

    def _update(self, gradients: dict[Tensor, Tensor], group: dict[str, Any]) -> None:
        params = list(gradients)
        scaled = [p for p in params if p.ndim != 1 or not group["exclude_1d"]]
        if scaled:
            decay = torch._foreach_mul(scaled, group["weight_decay"])
            own = [gradients[p] for p in scaled]
            decayed = torch._foreach_add(own, decay)
            gradients |= zip(scaled, torch._foreach_mul(decayed, _trust(scaled, own, group)), strict=True)
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        bad = params[0].new_zeros(()) if self.found_inf is None else self.found_inf
        heavy_ball = _heavy_ball if params[0].device.type == "cpu" else _fused_heavy_ball
        heavy_ball(params, list(gradients.values()), buffers, group, bad)


def _trust(params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> tuple[Tensor, ...]:
    """The local rate of each parameter, a scalar tensor."""
    p_norm, g_norm = _norms(params), _norms(gradients)
    local = group["eta"] * p_norm / (g_norm + group["weight_decay"] * p_norm + group["eps"])
    if group["clip"]:
        local = (local / group["lr"]).clamp_max(1) if group["lr"] > 0 else torch.ones_like(local)
    return torch.where((p_norm > 0) & (g_norm > 0), local, 1).unbind()


def _norms(tensors: list[Tensor]) -> Tensor:
    """Their L2 norms; sums of squares are faster and more exact on the CPU, elsewhere a kernel takes them together."""
    if tensors[0].device.type == "cpu":
        return torch.stack([(x * x).sum() for x in tensors]).sqrt()
    return torch.stack(torch._foreach_norm(tensors))


def _heavy_ball(
    params: list[Tensor], gradients: list[Tensor], buffers: list[Tensor], group: dict[str, Any], found_inf: Tensor
) -> None:
    """``buffer <- momentum buffer + g``, ``p <- p - lr buffer``; nothing while ``found_inf`` is 1."""
    bad = found_inf.bool()
    for p, g, buffer in zip(params, gradients, buffers, strict=True):
        momentum = torch.full((), group["momentum"], dtype=p.dtype, device=p.device)
        buffer.mul_(momentum.masked_fill(bad, 1)).add_(g.masked_fill(bad, 0))
        p.addcmul_(buffer, (~bad).to(p.dtype), value=-group["lr"])


def _fused_heavy_ball(
    params: list[Tensor], gradients: list[Tensor], buffers: list[Tensor], group: dict[str, Any], found_inf: Tensor
) -> None:
    """The same in one kernel, which on the CPU would round otherwise."""
    torch._fused_sgd_(
        params,
        gradients,
        buffers,
        lr=group["lr"],
        momentum=group["momentum"],
        weight_decay=0.0,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        found_inf=found_inf,
    )


OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
    "muon": (Muon, {}),
    "lars": (LARS, {}),
    "lars-original": (LARS, {"eta": 1e-3, "clip": False, "exclude_1d": False}),
}


def build_optimizer(
    name: str,
    modules: Iterable[nn.Module],
    *,
    lr: float,
    weight_decay: float,
    constant_lr: Iterable[nn.Module] = (),
    scales: Mapping[nn.Parameter, float] = MappingProxyType({}),
    encoder: nn.Module | None = None,
    matrices_of: nn.Module | None = None,
) -> Optimizer:
    """The optimiser ``name`` over ``modules``; no weight decay on biases and norms, as is the custom.

    ``"adam"`` adds the decay to the gradient, ``"adamw"`` to the step; ``"sgd"`` has momentum 0.9; ``"lars-original"``
    is :class:`LARS` as its authors have it, with eta 1e-3, without the clip, and with biases and norms scaled too;
    ``"muon"`` is :class:`Muon` for matrices and kernels of ``matrices_of`` and AdamW elsewhere.
    Parameters of the sub-modules ``constant_lr``, those of ``encoder`` if it is given, and those with each of
    ``scales``, factors of the rate, are in groups that say so, for the schedule of the rate.

    All of them sit a step out while their ``found_inf`` is 1, decided on the device.

    Raises:
        UserError: unknown name, or numbers out of range.
    """
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, list(OPTIMIZERS))
    if not (lr > 0 and weight_decay >= 0):
        raise UserError(f"the learning rate must be positive and the weight decay at least 0; got {lr}, {weight_decay}")
    params = [p for module in modules for p in module.parameters() if p.requires_grad]
    constant = {p for module in constant_lr for p in module.parameters()}
    inside = set(encoder.parameters()) if encoder is not None else set()
    orthogonal = set(matrices_of.parameters()) if matrices_of is not None and name == "muon" else set()
    parts: dict[tuple[bool, bool, bool, float, bool], list[nn.Parameter]] = {}
    for p in params:
        key = (p in constant, p.ndim <= 1, p in inside, scales.get(p, 1.0), p in orthogonal and p.ndim > 1)
        parts.setdefault(key, []).append(p)
    parts = parts or {(False, False, False, 1.0, False): []}  # torch takes an empty group, but not none
    names = ("steady", "flat", "encoder", "scale", "orthogonal")
    groups = [
        dict(zip(names, key, strict=True)) | {"params": part, "weight_decay": 0.0 if key[1] else weight_decay}
        for key, part in sorted(parts.items(), key=lambda item: item[0])
    ]
    kind, options = OPTIMIZERS[name]
    optimizer = kind(groups, lr=lr, **options)  # type: ignore[call-arg]
    start_momentum(optimizer)
    return optimizer


def start_momentum(optimizer: Optimizer) -> None:
    """Gives every parameter of an SGD the momentum 0 it would start with at its first gradient.

    torch's fused SGD fails where only some parameters have had a gradient, as with prototypes that are frozen at first,
    and leaves momentum unset after a first step that it sat out.
    """
    if isinstance(optimizer, torch.optim.SGD):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if optimizer.state[p].get("momentum_buffer") is None:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def layer_scales(encoder: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Factors of the learning rate by depth, ``decay`` from each layer to the one before, as timm has the layers."""
    from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]

    groups = param_groups_layer_decay(encoder, weight_decay=0.0, layer_decay=decay)
    return {p: group["lr_scale"] for group in groups for p in group["params"]}


HOST_DECIDES = {"mps"}
"""Devices on which torch's fused optimisers ignore ``found_inf``, so that a step there waits for the processor."""


def step_if(good: Tensor, optimizer: Optimizer, step: Callable[[], object] | None = None) -> None:
    """A step of ``optimizer``, by ``step`` if it is given, unless ``good``, a scalar on the device, is 0.

    That is decided on the device, but for :data:`HOST_DECIDES`.
    """
    step = step or optimizer.step
    if good.device.type in HOST_DECIDES:
        if bool(good):
            step()
        return
    optimizer.found_inf = 1 - good  # type: ignore[attr-defined]
    step()


class Anchor:
    """Pulls parameters back to where they were: decoupled from the gradient, as AdamW's decay is, but not to zero.

    L2-SP (Li, Grandvalet, Davoine, arXiv 1802.01483) adds its gradient instead, which adaptive optimisers would scale.
    """

    def __init__(self, start: Iterable[tuple[nn.Parameter, Tensor]], strength: float) -> None:
        self.start = {p: value.detach().to(p, copy=True) for p, value in start}
        self.strength = strength

    @torch.no_grad()
    def pull(self, optimizer: Optimizer, good: Tensor) -> None:
        """``p <- p + good lr strength (start - p)``, with the rate of the group of ``p``; ``good`` is on its device."""
        for group in optimizer.param_groups:
            pulled = [p for p in group["params"] if p in self.start]
            weight = good * min(1.0, group["lr"] * self.strength)
            lerp_all(pulled, [self.start[p] for p in pulled], weight)


def warmup_cosine(progress: float, warmup: float) -> float:
    """Factor of the peak learning rate at ``progress`` (0 to 1): linear from 0 to 1, then half a cosine to 0.

    ``warmup`` is the fraction of the run that rises.

    >>> [round(warmup_cosine(p, 0.1), 2) for p in (0, 0.05, 0.1, 0.55, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    done = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
