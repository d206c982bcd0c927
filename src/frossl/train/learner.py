"""The module that is trained: the encoder, the method around it, and their moving averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frossl.core.axes import over_views
from frossl.core.length import Length
from frossl.core.types import Loss, StepContext
from frossl.methods import Method
from frossl.nn.ema import ema_update, frozen_copy
from frossl.nn.modes import kept_in_eval, train_mode
from frossl.nn.optim import build_optimizer, layer_scales
from frossl.train.plan import Plan


class Learner(nn.Module):
    """Backbone and method as the one module that is trained, and the averaged backbone of methods that have one."""

    def __init__(self, backbone: nn.Module, method: Method) -> None:
        super().__init__()
        self.backbone, self.method = backbone, method
        self.target = None if method.momentum(0.0) is None else frozen_copy(backbone)
        self.loss: Loss | None = None
        self.kept = kept_in_eval(backbone)

    def train(self, mode: bool = True) -> Learner:
        """Sets train or eval mode; sub-modules of the backbone that came in eval mode stay in it."""
        super().train(mode)
        for network in (self.backbone, self.target) if mode else ():
            if network is not None:
                train_mode(network, self.kept)
        return self

    def forward(
        self, views: list[Tensor], progress: float = 0.0, epoch: float = 0.0, labels_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Views ``(V, N, C, S, S)`` by resolution, largest first, to loss and features ``(V, N, F)``."""
        h_VNF = torch.cat([self.encode(self.backbone, x) for x in views])
        target_VNF = None
        if self.target is not None:
            with torch.no_grad():
                target_VNF = self.encode(self.target, views[0])
        return self.objective(h_VNF, target_VNF, progress, epoch, labels_N).total, h_VNF

    def objective(
        self, h_VNF: Tensor, target_VNF: Tensor | None, progress: float, epoch: float, labels_N: Tensor | None
    ) -> Loss:
        """The method's loss of features, kept for :meth:`remember`."""
        labels_N = labels_N if self.method.uses_labels else None
        context = StepContext(progress=progress, epoch=epoch, target_VNF=target_VNF, labels_N=labels_N)
        self.loss = loss = self.method(h_VNF, context)
        return loss

    def encode(self, network: nn.Module, x_VNCHW: Tensor) -> Tensor:
        """Features ``(V, N, F)``."""
        return over_views(lambda x: network(x.to(memory_format=torch.channels_last)), x_VNCHW, self.method.spec.joint)

    def networks(self) -> list[nn.Module]:
        """The networks that a step calls: the encoder, heads, and their moving averages."""
        return [m for m in (self.backbone, self.target, *self.method.children()) if m is not None]

    def remember(self, progress: float, good: Tensor) -> None:
        """If the step was ``good``, commits the method's new state and updates the moving averages."""
        assert self.loss is not None
        self.method.commit(self.loss, good)
        self.loss = None
        momentum = self.method.momentum(progress)
        if momentum is not None and self.target is not None:
            ema_update(self.target, self.backbone, momentum, good)
            for target, online in self.method.ema_pairs.items():
                ema_update(getattr(self.method, target), getattr(self.method, online), momentum, good)

    def changing_buffers(self) -> list[Tensor]:
        """The buffers that a forward pass may change, as those of batch norms; the method commits its own."""
        own = {id(b) for b in self.method.buffers(recurse=False)}
        return [b for b in self.buffers() if id(b) not in own]

    def optimizer(self, plan: Plan) -> torch.optim.Optimizer:
        """The optimiser of all parameters."""
        config = plan.config
        groups = {
            "constant_lr": [getattr(self.method, name) for name in self.method.constant_lr],
            "scales": {} if config.layer_decay == 1 else layer_scales(self.backbone, config.layer_decay),
            "encoder": self.backbone if Length.parse(config.freeze).amount else None,
            "matrices_of": self.backbone,
        }
        return build_optimizer(config.optimizer, [self], lr=plan.lr, weight_decay=config.weight_decay, **groups)


def place(learner: Learner, plan: Plan) -> None:
    """Moves ``learner`` to the device of the plan, and to float64 in that precision."""
    learner.to(plan.device, torch.float64 if plan.precision == "64" else None)
