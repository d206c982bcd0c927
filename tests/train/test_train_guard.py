"""A step that is not finite leaves everything as it was before it, and can be taken again."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from test_train_loop import config, folder_of_images

import frossl.train.loop as loop
from frossl.core.types import UserError
from frossl.data.loader import Batch, training_batches
from frossl.methods import METHODS
from frossl.nn.optim import OPTIMIZERS
from frossl.runs.checkpoint import load_checkpoint
from frossl.runs.data import load_run_data
from frossl.runs.directory import read_run
from frossl.train.loop import build
from frossl.train.pretrain import pretrain
from frossl.train.probe import OnlineProbe
from frossl.train.ranks import start
from frossl.train.replay import replay
from frossl.train.step import NonFiniteError, Stepper

pytestmark = pytest.mark.usefixtures("no_reports")

TRAINED = [name for name in METHODS if METHODS[name].trains]
NARROW = {
    "projector": "16-bn-relu-8",
    "predictor_width": 16,
    "prototypes": 12,
    "queue": 16,
    "directions": 16,
    "freeze_prototypes": 0.0,
}


def narrow(name: str):
    """The method's own configuration with small layers."""
    fields = {f.name for f in dataclasses.fields(METHODS[name].Config)}
    options = {k: v for k, v in NARROW.items() if k in fields}
    if name == "supervised":
        options["projector"] = "16-bn-relu"
    if name == "wmse":
        options |= {"projector": "16-bn-relu-3"}
    return METHODS[name].Config(**options)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("images"))


def made(images, tmp_path, method: str = "frossl", **changes) -> tuple[Stepper, list[Batch]]:
    """A stepper and its first six batches."""

    how = {"precision": "32", "lr": 0.1} | changes
    c = config(images, tmp_path, method=method, objective=narrow(method), **how)
    data = load_run_data(c)
    learner, plan = build(c, data)
    take = Stepper(learner, plan, start(c), OnlineProbe(plan.spec.features, len(data.classes)))
    learner.train()
    batches = training_batches(data, plan.recipe, batch=plan.batch, seed=0)
    return take, [next(batches) for _ in range(6)]


def everything(take: Stepper) -> dict[str, torch.Tensor]:
    """All that a step may change."""
    found = {f"learner.{k}": v for k, v in take.learner.state_dict().items()}
    assert take.probe is not None
    found |= {f"probe.{k}": v for k, v in take.probe.state_dict().items()}
    for name, optimizer in (("optimizer", take.optimizer), ("probe", take.probe.optimizer)):
        for i, values in optimizer.state_dict()["state"].items():
            found |= {f"{name}.{i}.{k}": v for k, v in values.items() if isinstance(v, torch.Tensor)}
    return copy.deepcopy(found)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def in_data(take: Stepper, batch: Batch, value: float) -> Callable[[], None]:
    batch.views[0][1, 3, 0, 2, 2] = value
    return lambda: None


def in_activation(take: Stepper, batch: Batch, value: float) -> Callable[[], None]:
    layer = take.learner.backbone.layer2
    return layer.register_forward_hook(lambda module, inputs, output: output * value).remove


def in_gradient(take: Stepper, batch: Batch, value: float) -> Callable[[], None]:
    return take.learner.backbone.conv1.weight.register_hook(lambda g: g * value).remove


SOURCES = {"data": in_data, "activation": in_activation, "gradient": in_gradient}


@pytest.mark.parametrize(
    ("method", "source"),
    [(method, source) for method in TRAINED for source in ("data", "gradient")] + [("frossl", "activation")],
)
def test_a_bad_step_and_those_after_it_change_nothing(images, tmp_path, method, source):
    take, batches = made(images, tmp_path, method)
    for step in (0, 1, 2):
        take(batches[step], step, 0.5, 5.0)
    take.check()
    before = everything(take)
    end = SOURCES[source](take, batches[3], float("nan"))
    taken = take(batches[3], 3, 0.5, 5.0)
    end()
    for step in (4, 5):  # the host has not looked yet
        take(batches[step], step, 0.5, 5.0)
    assert same(before, everything(take))
    assert all(bool(v.isfinite().all()) for v in before.values())
    with pytest.raises(NonFiniteError, match="step 3: ") as caught:
        take.check()
    assert caught.value.step == 3
    if source == "gradient":
        assert "the gradient of" in str(caught.value)
    else:
        named = [
            name
            for name, value in taken.items()
            if name not in ("loss", "grad_norm", "probe_on_views") and not bool(value.isfinite())
        ]
        assert named
        assert f"the {' and '.join(named)} term of" in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinity_is_found_too(images, tmp_path, value):
    take, batches = made(images, tmp_path)
    take(batches[0], 0, 0.5, 5.0)
    before = everything(take)
    in_data(take, batches[1], value)
    take(batches[1], 1, 0.5, 5.0)
    assert same(before, everything(take))
    with pytest.raises(NonFiniteError, match="step 1: "):
        take.check()


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_sits_a_bad_step_out_and_goes_on_otherwise(images, tmp_path, optimizer, clip):
    take, batches = made(images, tmp_path, optimizer=optimizer, clip=clip)
    take(batches[0], 0, 0.5, 5.0)
    first = everything(take)
    take(batches[1], 1, 0.5, 5.0)
    second = everything(take)
    assert not torch.equal(first["learner.backbone.conv1.weight"], second["learner.backbone.conv1.weight"])
    end = in_gradient(take, batches[2], float("nan"))
    take(batches[2], 2, 0.5, 5.0)
    end()
    assert same(second, everything(take))


def test_guarded_lars_is_lars():
    """The arithmetic with a flag on the device is that without it, to the last bit or two."""
    from frossl.nn.optim import LARS

    results = []
    for found_inf in (None, torch.zeros(())):
        torch.manual_seed(0)
        network = torch.nn.Linear(5, 3, dtype=torch.float64)
        optimizer = LARS(network.parameters(), lr=0.1, weight_decay=0.01)
        optimizer.found_inf = found_inf
        for i in range(5):
            optimizer.zero_grad()
            network(torch.arange(5.0, dtype=torch.float64) + i).square().sum().backward()
            optimizer.step()
        results.append(network.weight.detach())
    torch.testing.assert_close(*results, rtol=1e-14, atol=0)


def test_an_error_within_a_step_leaves_the_batch_norms_as_they_were(images, tmp_path):
    take, batches = made(images, tmp_path)
    take(batches[0], 0, 0.5, 5.0)
    before = everything(take)
    batches[1].views[0].zero_()  # all features alike: the loss names that as an error
    with pytest.raises(UserError, match="zero or constant"):
        take(batches[1], 1, 0.5, 5.0)
    assert same(before, everything(take))


def poisoned(monkeypatch, step: int) -> None:
    """Every run's batch at ``step`` has a pixel that is not a number."""
    batches = loop.training_batches

    def changed(*what, first_step=0, **how):
        for number, batch in enumerate(batches(*what, first_step=first_step, **how), first_step):
            if number == step:
                batch.views[0][0, 2] = float("nan")
            yield batch

    monkeypatch.setattr(loop, "training_batches", changed)


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_run_stops_at_the_next_look_saves_no_poison_and_is_replayed(images, tmp_path, monkeypatch, log_every):
    whole = pretrain(config(images, tmp_path, name="whole", log_every=log_every)).run
    asked = config(images, tmp_path, name="bad", log_every=log_every, checkpoint_every="1it")
    with monkeypatch.context() as patch:
        poisoned(patch, 7)
        with pytest.raises(NonFiniteError, match=r"step 7: .*entropy and invariance term") as caught:
            pretrain(asked)
        run = tmp_path / "bad"
        found = json.loads((run / "nonfinite" / "step.json").read_text())
        assert found["step"] == 7
        assert found["images"] == caught.value.images
        assert len(set(found["images"])) == 8
        again = replay(run)
        assert again.step == 7
        assert again.images == found["images"]
        assert again.culprits == [found["images"][2]]
        assert again.module == ""  # it came in with the views
        assert all(again.values[name] != again.values[name] for name in ("loss", "entropy", "gradient norm"))
    fine = replay(run)  # without the poison
    assert fine.values == {}
    kept = load_checkpoint(run / "nonfinite" / found["state"])["learner"]
    assert all(bool(v.isfinite().all()) for v in kept.values())
    pretrain(read_run(run)[0], resume=run)  # the cause removed, it is the run that never failed
    from test_train_loop import same_weights

    assert same_weights(run, whole)


def test_the_first_module_that_gives_what_is_not_finite_is_named(images, tmp_path, monkeypatch):
    def weights(wanted: float):
        original = loop.build

        def changed(*what, **how):
            learner, plan = original(*what, **how)
            with torch.no_grad():
                learner.method.projector[0].weight.fill_(wanted)
            return learner, plan

        return changed

    asked = config(images, tmp_path, name="r", log_every=1)
    with monkeypatch.context() as patch:
        patch.setattr("frossl.train.pretrain.build", weights(3e38))
        with pytest.raises(NonFiniteError, match="step 0: "):
            pretrain(asked)
    assert replay(tmp_path / "r").module == "method.projector.0"


def test_a_run_without_a_bad_step_has_none_to_replay(images, tmp_path):
    run = pretrain(config(images, tmp_path, length="1it")).run
    with pytest.raises(UserError, match="no step"):
        replay(run)


def test_what_has_no_deterministic_algorithm_is_named(images, tmp_path, monkeypatch):
    take, batches = made(images, tmp_path)

    def fails(*_):
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation. You can turn off")

    monkeypatch.setattr(take, "model", fails)
    with pytest.raises(RuntimeError, match="cumsum_cuda_kernel"):
        take(batches[0], 0, 0.5, 5.0)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(UserError, match="--deterministic: cumsum_cuda_kernel does not have a deterministic implement"):
        take(batches[0], 0, 0.5, 5.0)
