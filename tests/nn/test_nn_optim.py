from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from frossl.core.types import UserError
from frossl.nn import ema, optim
from frossl.nn.muon import Muon, orthogonal
from frossl.nn.optim import LARS, OPTIMIZERS, build_optimizer, step_if, warmup_cosine


def lars_step(
    p: np.ndarray, g: np.ndarray, buffer: np.ndarray, *, lr, momentum, weight_decay, eta, clip, exclude_1d, eps
) -> tuple[np.ndarray, np.ndarray]:
    """The rule of the paper's code in words of the fact sheet, section 3.1."""
    if p.ndim != 1 or not exclude_1d:
        p_norm, g_norm = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(g**2))
        local = eta * p_norm / (g_norm + weight_decay * p_norm + eps)
        if clip:
            local = min(local / lr, 1)
        if p_norm == 0 or g_norm == 0:
            local = 1
        g = (g + weight_decay * p) * local
    buffer = momentum * buffer + g
    return p - lr * buffer, buffer


SHAPES = [(6,), (4, 3), (5, 3, 2, 2), (), (1, 1)]


@pytest.mark.parametrize("exclude_1d", [True, False])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize(("lr", "eta"), [(0.3, 0.02), (0.001, 0.02), (0.3, 1e-3)])
def test_lars_is_the_rule_over_several_steps(lr, eta, weight_decay, clip, exclude_1d):
    """Gradients of many sizes, so that the clip binds and does not; one of them zero, one parameter starts at zero."""
    options = {
        "lr": lr, "momentum": 0.9, "weight_decay": weight_decay, "eta": eta, "clip": clip,
        "exclude_1d": exclude_1d, "eps": 1e-8,
    }  # fmt: skip
    random = np.random.default_rng(0)
    wanted = [random.normal(size=shape) for shape in SHAPES]
    wanted[-1] = np.zeros((1, 1))
    buffers = [np.zeros(shape) for shape in SHAPES]
    parameters = [nn.Parameter(torch.tensor(p)) for p in wanted]
    optimizer = LARS(parameters, **options)
    for step in range(5):
        for i, p in enumerate(parameters):
            g = random.normal(size=SHAPES[i]) * 10.0 ** (step - 3)
            g = np.zeros_like(g) if step == 2 else g
            p.grad = torch.tensor(g)
            wanted[i], buffers[i] = lars_step(wanted[i], g, buffers[i], **options)
        optimizer.step()
        for p, w in zip(parameters, wanted, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-12, atol=1e-14)


def test_lars_defaults_are_those_of_the_papers_configurations():
    group = LARS([nn.Parameter(torch.ones(2, 2))], lr=0.3).param_groups[0]
    assert {k: v for k, v in group.items() if k != "params"} == {
        "lr": 0.3, "momentum": 0.9, "weight_decay": 0.0, "eta": 0.02, "clip": True, "exclude_1d": True, "eps": 1e-8,
    }  # fmt: skip


def test_one_dimensional_parameters_are_neither_decayed_nor_scaled():
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    p.grad = torch.tensor([100.0, 1.0])
    LARS([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.detach(), torch.tensor([-9.0, -2.1]))


def test_lars_at_rate_zero_moves_nothing_and_stays_finite():
    """The first step of a warm-up from zero."""
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    optimizer = LARS([p], lr=0.0)
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(2, 2))
    assert optimizer.state[p]["momentum_buffer"].isfinite().all()


def test_lars_skips_parameters_without_gradient_and_returns_the_closure():
    with_grad, without = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))

    def closure() -> torch.Tensor:
        loss = (with_grad**2).sum()
        loss.backward()
        return loss

    assert LARS([with_grad, without], lr=0.1).step(closure) == 4.0
    assert not torch.equal(with_grad.detach(), torch.ones(2, 2))
    assert torch.equal(without.detach(), torch.ones(2, 2))


def test_lars_continues_from_its_state():
    def run(steps: int, parameter: nn.Parameter, optimizer: LARS, first: int = 0) -> None:
        for step in range(first, first + steps):
            parameter.grad = torch.full((2, 2), float(step + 1)) + torch.eye(2)
            optimizer.step()

    whole = nn.Parameter(torch.ones(2, 2))
    run(4, whole, LARS([whole], lr=0.1))
    part = nn.Parameter(torch.ones(2, 2))
    first = LARS([part], lr=0.1)
    run(2, part, first)
    resumed = nn.Parameter(part.detach().clone())
    second = LARS([resumed], lr=0.1)
    second.load_state_dict(first.state_dict())
    run(2, resumed, second, first=2)
    assert torch.equal(resumed.detach(), whole.detach())


# Groups


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_on_matrices_and_kernels_alone(name):
    net, head = network(), nn.Linear(3, 2)
    optimizer = build_optimizer(name, [net, head], lr=0.1, weight_decay=0.05)
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.05
    assert plain["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in plain["params"]} == {1}
    together = decayed["params"] + plain["params"]
    assert {id(p) for p in together} == {id(p) for m in (net, head) for p in m.parameters()}
    assert len(together) == len({id(p) for p in together})
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


@pytest.mark.parametrize(
    ("name", "kind", "setting"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.9, "nesterov": False, "dampening": 0}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ("muon", Muon, {"betas": (0.9, 0.999), "momentum": 0.95}),
        ("lars", LARS, {"momentum": 0.9, "eta": 0.02, "clip": True, "exclude_1d": True}),
        ("lars-original", LARS, {"momentum": 0.9, "eta": 1e-3, "clip": False, "exclude_1d": False}),
    ],
)
def test_names_give_the_optimizers_they_say(name, kind, setting):
    optimizer = build_optimizer(name, [network()], lr=0.1, weight_decay=0.0)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in setting} == setting


def test_frozen_parameters_and_empty_groups_are_left_out():
    linear = nn.Linear(3, 2)
    linear.bias.requires_grad_(False)
    optimizer = build_optimizer("sgd", [linear], lr=0.1, weight_decay=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.param_groups[0]["params"][0] is linear.weight


@pytest.mark.parametrize(("name", "near"), [("adamm", "adam"), ("lar", "lars"), ("SGD", ""), ("sgdm", "sgd")])
def test_unknown_optimizer_names_the_nearest_and_all(name, near):
    with pytest.raises(UserError, match=f"optimizer.*'{name}'.*{near}.*: adam, adamw, lars, lars-original, muon, sgd"):
        build_optimizer(name, [network()], lr=0.1, weight_decay=0.0)


@pytest.mark.parametrize(
    ("lr", "weight_decay"), [(0.0, 0.0), (-1.0, 0.0), (0.1, -0.1), (math.nan, 0.0), (0.1, math.nan)]
)
def test_numbers_out_of_range_are_refused(lr, weight_decay):
    with pytest.raises(UserError, match=r"learning rate.*weight decay"):
        build_optimizer("sgd", [network()], lr=lr, weight_decay=weight_decay)


# Schedule


@pytest.mark.parametrize(
    ("progress", "warmup", "factor"),
    [
        (0.0, 0.1, 0.0),
        (0.05, 0.1, 0.5),
        (0.1, 0.1, 1.0),
        (0.325, 0.1, (1 + math.sqrt(0.5)) / 2),
        (0.55, 0.1, 0.5),
        (1.0, 0.1, 0.0),
        (0.0, 0.0, 1.0),
        (0.5, 0.0, 0.5),
        (0.5, 1.0, 0.5),
        (1.0, 1.0, 0.0),
        (1.2, 0.1, 0.0),
    ],
)
def test_warmup_cosine_at_known_points(progress, warmup, factor):
    assert warmup_cosine(progress, warmup) == pytest.approx(factor, abs=1e-12)


@given(a=st.floats(0, 1), b=st.floats(0, 1), warmup=st.floats(0, 0.99))
def test_warmup_cosine_rises_then_falls_between_its_bounds(a, b, warmup):
    low, high = sorted((a, b))
    at_low, at_high = (warmup_cosine(p, warmup) for p in (low, high))
    assert -1e-9 <= at_low <= 1 + 1e-9
    if high < warmup:
        assert at_low <= at_high + 1e-9
    if low >= warmup:
        assert at_low >= at_high - 1e-9


@pytest.mark.parametrize("found_inf", [0.0, 1.0])
def test_the_step_of_lars_in_one_kernel_is_that_of_the_cpu(found_inf):
    torch.manual_seed(0)
    group = {"lr": 0.3, "momentum": 0.9}
    made = []
    for heavy_ball in (optim._heavy_ball, optim._fused_heavy_ball):
        generator = torch.Generator().manual_seed(0)
        p, g, buffer = ([torch.randn(s, generator=generator) for s in ((4, 3), (7,))] for _ in range(3))
        if found_inf:
            g[0].fill_(torch.nan)
        heavy_ball(p, g, buffer, group, torch.tensor(found_inf))
        made.append([*p, *buffer])
    torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("good", [0.0, 1.0])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_processor_decides_where_optimisers_ignore_found_inf(monkeypatch, name, good):
    monkeypatch.setattr(optim, "HOST_DECIDES", {"cpu"})
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(name, [layer], lr=0.1, weight_decay=0.0)
    before = layer.weight.detach().clone()
    layer(torch.ones(4, 3)).square().sum().backward()
    step_if(torch.tensor(good), optimizer)
    assert torch.equal(layer.weight, before) != bool(good)
    assert getattr(optimizer, "found_inf", None) is None


def test_averages_in_three_kernels_are_those_of_the_cpu():
    """The branch of devices, by a weight that says that it is on one."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda:0")

    xs, ends = [torch.rand(3), torch.rand(2, 2)], [torch.rand(3), torch.rand(2, 2)]
    expected = [x.lerp(end, 0.3) for x, end in zip(xs, ends, strict=True)]
    ema.lerp_all(xs, ends, torch.tensor(0.3).as_subclass(Elsewhere))
    torch.testing.assert_close([torch.Tensor(x) for x in xs], expected)


# Muon


def kernels(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 4), (4, 9), (5, 3, 3, 3))]


def with_gradients(params: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 10.0 ** (step - 1)


def muon_of(params: list[nn.Parameter], **options) -> Muon:
    return Muon([{"params": params, "orthogonal": True}], lr=0.02, weight_decay=0.1, **options)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it since 2.9")
def test_muon_is_that_of_torch_on_flattened_kernels():
    mine = kernels()
    theirs = [nn.Parameter(p.detach().flatten(1).clone()) for p in mine]
    ours = muon_of(mine)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        with_gradients(mine, step)
        for p, q in zip(mine, theirs, strict=True):
            q.grad = p.grad.flatten(1).clone()
        ours.step()
        reference.step()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p.detach().flatten(1), q.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8), (4, 20), (20, 4)])
def test_steps_of_muon_have_singular_values_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    sizes = torch.logspace(0, -1.5, min(shape))
    found = torch.linalg.svdvals(orthogonal(u * sizes @ v).float())
    assert found.min() > 0.5
    assert found.max() < 1.3


def test_muon_takes_matrices_of_the_encoder_alone_and_adamw_the_rest():
    net, head = network(), nn.Linear(3, 2)
    twins = [p.detach().clone().requires_grad_() for p in (net[1].weight, head.weight)]
    optimizer = build_optimizer("muon", [net, head], lr=0.1, weight_decay=0.0, matrices_of=net)
    chosen = {id(p) for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]}
    assert chosen == {id(net[0].weight), id(net[3].weight)}
    adamw = torch.optim.AdamW(twins, lr=0.1, weight_decay=0.0)
    for p in (p for module in (net, head) for p in module.parameters()):
        p.grad = torch.ones_like(p)
    for p in twins:
        p.grad = torch.ones_like(p)
    optimizer.step()
    adamw.step()
    assert torch.allclose(net[1].weight, twins[0])
    assert torch.allclose(head.weight, twins[1])


def test_muon_sits_a_step_out_and_keeps_its_momentum():
    params = kernels()
    optimizer = muon_of(params)
    with_gradients(params, 0)
    optimizer.step()
    before = [p.detach().clone() for p in params]
    momentum = [optimizer.state[p]["momentum_buffer"].clone() for p in params]
    params[0].grad.fill_(torch.nan)
    step_if(torch.tensor(0.0), optimizer)
    for p, value, buffer in zip(params, before, momentum, strict=True):
        assert torch.equal(p.detach(), value)
        assert torch.equal(optimizer.state[p]["momentum_buffer"], buffer)


def test_muon_continues_from_its_state():
    whole, part = kernels(), kernels()
    first = muon_of(whole)
    for step in range(4):
        with_gradients(whole, step)
        first.step()
    second = muon_of(part)
    for step in range(4):
        if step == 2:
            saved = second.state_dict()
            part = [nn.Parameter(p.detach().clone()) for p in part]
            second = muon_of(part)
            second.load_state_dict(saved)
        with_gradients(part, step)
        second.step()
    for p, q in zip(whole, part, strict=True):
        assert torch.equal(p, q)
