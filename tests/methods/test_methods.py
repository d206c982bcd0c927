"""What every registered method keeps to, and what some of them promise beside that."""

import dataclasses
import json
import math
import pickle
import sys
import textwrap
from typing import Literal, get_args, get_origin, get_type_hints

import docstring_parser
import pytest
import torch

from frossl.core.config import from_plain, to_plain
from frossl.core.types import MethodSpec, StepContext, UserError
from frossl.methods import METHODS, find_method
from frossl.methods.projector import LossMethod

FEATURES, IMAGES, CLASSES = 10, 24, 3
NAMES = list(METHODS)
TRAINED = [name for name in NAMES if METHODS[name].trains]
LOSS_METHODS = [name for name in NAMES if issubclass(METHODS[name], LossMethod)]
RISES = ("mocov2plus", "corinfomax")
"""Their loss rises at first by design: MoCo's queue fills with real keys, CorInfoMax forgets its first covariance."""


def small(name: str):
    """The method's own configuration with narrow layers."""
    fields = {f.name for f in dataclasses.fields(METHODS[name].Config)}
    narrow = {"projector": "16-bn-relu-8", "predictor_width": 16, "prototypes": 12, "queue": 48, "directions": 16}
    if name == "supervised":
        narrow["projector"] = ""
    return METHODS[name].Config(**{k: v for k, v in narrow.items() if k in fields})


def built(name: str, views: int = 2, joint: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    setting = MethodSpec(features=FEATURES, views=views, classes=CLASSES, joint=joint)
    return METHODS[name](small(name), setting)


def features(count: int, images: int = IMAGES) -> torch.Tensor:
    """Views of images that share most of what they show."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, images, FEATURES, generator=generator)
    return image + 0.3 * torch.randn(count, images, FEATURES, generator=generator)


def at(h: torch.Tensor, share: float = 0.5, epoch: float = 5.0) -> StepContext:
    return StepContext(progress=share, epoch=epoch, target_VNF=h + 0.1, labels_N=torch.arange(h.shape[1]) % CLASSES)


def loss_of(method: torch.nn.Module, h: torch.Tensor):
    torch.manual_seed(7)  # of what a method draws
    return method(h, at(h))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("joint", [True, False])
def test_terms_sum_to_the_total_for_any_number_of_views(name, count, joint):
    loss = loss_of(built(name, count, joint), features(count))
    assert loss.total.ndim == 0
    assert bool(torch.isfinite(loss.total))
    assert loss.total.item() == pytest.approx(sum(term.item() for term in loss.terms.values()), rel=1e-5)
    assert not any(value.requires_grad for value in (*loss.terms.values(), *loss.state.values()))


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in RISES])
def test_forty_steps_lower_the_loss(name):
    method, h = built(name, 3), features(3)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = loss_of(method, h)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_parameter_gets_a_gradient_and_no_averaged_one(name):
    method, h = built(name), features(2).requires_grad_()
    loss_of(method, h).total.backward()
    assert bool((h.grad != 0).any())
    averaged = tuple(method.ema_pairs)
    for key, p in method.named_parameters():
        assert (p.grad is None) == key.startswith(averaged), key


@pytest.mark.parametrize("name", NAMES)
def test_a_call_changes_nothing_and_commit_does(name):
    method, h = built(name), features(2)
    before = {k: v.clone() for k, v in method.named_buffers() if "running" not in k and "tracked" not in k}
    loss = loss_of(method, h)
    after = dict(method.named_buffers())
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    method.commit(loss)
    for key, value in loss.state.items():
        assert torch.equal(dict(method.named_buffers())[key], value), key
    if loss.state:
        assert any(not torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", NAMES)
def test_all_state_is_in_the_state_dict(name):
    method, other = built(name), METHODS[name](small(name), MethodSpec(features=FEATURES, classes=CLASSES))
    h = features(2)
    method.commit(loss_of(method, h))
    other.load_state_dict(method.state_dict())
    assert torch.equal(loss_of(method, h).total, loss_of(other, h).total)


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_round_trips_and_the_method_says_what_it_is(name):
    config = small(name)
    assert from_plain(type(config), json.loads(json.dumps(to_plain(config)))) == config
    assert METHODS[name].__doc__


def others(config, name: str) -> list:
    """Other values of a field of ``config``."""
    value, kind = getattr(config, name), get_type_hints(type(config))[name]
    if get_origin(kind) is Literal:
        return [other for other in get_args(kind) if other != value]
    if value is None:
        return [12 if name == "sub_batch" else 1.0]
    if isinstance(value, str):
        return ["12-bn-relu-6"]
    return [not value if isinstance(value, bool) else 2 * value if isinstance(value, int) else 0.5 * value + 0.03]


def course(name: str, config) -> list[float]:
    """Losses of steps before and after everything that acts from some epoch on, and how targets follow."""
    torch.manual_seed(0)
    method, h = METHODS[name](config, MethodSpec(features=FEATURES, views=3, classes=CLASSES)), features(3)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    found = [method.momentum(share) for share in (0.0, 0.5, 1.0)] if method.ema_pairs else []
    for epoch in (0.75, 1.5, 10.0, 20.0):
        torch.manual_seed(7)
        loss = method(h, at(h, epoch=epoch))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        method.commit(loss)
        found.append(loss.total.item())
    assert all(map(math.isfinite, found))
    return found


@pytest.mark.filterwarnings("ignore:view_scaling='pairs'")
@pytest.mark.parametrize("name", TRAINED)
def test_every_option_changes_something(name):
    """An option that nothing reads would be a promise not kept."""
    config = small(name)
    if name == "dino":  # a warm-up between two temperatures
        config = dataclasses.replace(config, teacher_warmup=4.0, teacher_temperature=0.07)
    usual = course(name, config)
    assert course(name, config) == usual
    for field in dataclasses.fields(config):
        for other in others(config, field.name):
            changed = dataclasses.replace(config, **{field.name: other})
            assert course(name, changed) != usual, f"{field.name} {other}"


@pytest.mark.parametrize("images", [8, 24])
def test_without_a_weight_frossl_takes_four_times_images_over_width(images):
    h = features(2, images)
    chosen = loss_of(built("frossl"), h)
    torch.manual_seed(0)
    config = dataclasses.replace(small("frossl"), invariance_weight=4 * images / 8)
    written = loss_of(METHODS["frossl"](config, MethodSpec(features=FEATURES)), h)
    assert torch.equal(chosen.total, written.total)


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_prototypes_are_frozen_at_first(name):
    method, h = built(name), features(2)
    method(h, at(h, epoch=0.5)).total.backward()
    weights = [p for key, p in method.named_parameters() if "prototypes" in key or key.startswith("head.1")]
    assert weights
    assert all(p.grad is None for p in weights)


@pytest.mark.parametrize("name", ["byol", "mocov2plus", "dino"])
def test_the_averaged_network_moves_less_and_less(name):
    method = built(name)
    rates = [method.momentum(share) for share in (0.0, 0.5, 1.0)]
    assert rates == sorted(rates)
    assert 0.9 <= rates[0] <= rates[-1] <= 1
    assert method.ema_pairs


@pytest.mark.parametrize("name", ["byol", "mocov2plus", "dino", "supervised", "supcon"])
def test_what_is_missing_is_named(name):
    with pytest.raises(UserError, match=r"target_VNF|labels_N"):
        built(name)(features(2), StepContext())


@pytest.mark.parametrize("name", ["swav", "dino", "byol", "mocov2plus", "simsiam"])
def test_local_views_are_not_targets(name):
    """What a local view adds to the loss does not depend on the other, and nothing is remembered of either.

    Each is compared with the large views alone; a local view that were a target would be compared with the other.
    """
    torch.manual_seed(0)
    setting = MethodSpec(features=FEATURES, views=4, large=2, joint=False)
    method, h = METHODS[name](small(name), setting).double(), features(6).double()

    def loss(*local: int):
        return method(h[[0, 1, *local]], StepContext(epoch=5.0, target_VNF=h[:2]))

    one, other, crossed, recrossed = loss(2, 3), loss(4, 5), loss(2, 5), loss(4, 3)
    assert one.total.item() != pytest.approx(other.total.item(), rel=1e-4)
    assert (one.total + other.total).item() == pytest.approx((crossed.total + recrossed.total).item(), rel=1e-12)
    for key, value in one.state.items():
        assert torch.equal(value, other.state[key]), key
        assert value.shape == method.get_buffer(key).shape


OWN = '''
    from dataclasses import dataclass

    from frossl.core.types import Loss
    from frossl.methods import Method


    class Own(Method):
        """Pulls views together."""

        @dataclass(frozen=True, kw_only=True)
        class Config:
            strength: float = 2.0

        def __init__(self, config, setting):
            super().__init__(setting)
            self.config = config

        def forward(self, h_VNF, moment):
            total = self.config.strength * h_VNF.var(0).mean()
            return Loss(total, {"variance": total.detach()})


    class NotOne:
        pass


    def pull(z, *, strength: float = 2.0, labels=None):
        """Pulls views together.

        Args:
            z: projections.
            strength: how much it pulls.
        """
        return strength * z.var(0)[labels >= 0].mean()


    def push(z, strength):
        return -strength * z.var(0).mean()


    def nothing():
        return 0


    def lists(z, weights=[1.0]):
        return z.mean()


    def headed(z, projector: str = ""):
        return z.mean()


    def untyped(z, strength: "NoSuchType" = 1.0):
        return z.mean()
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_methods.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("own_methods", None)


def test_a_method_of_ones_own_is_found_by_module_and_class(own):
    kind = find_method("own_methods:Own")
    h = features(2)
    assert kind(kind.Config(strength=1.0), MethodSpec(features=FEATURES))(h, StepContext()).total.item() > 0


def test_a_loss_of_ones_own_is_a_method_whose_options_are_its_arguments(own):
    kind = find_method("own_methods:pull")
    assert find_method("own_methods:pull") is kind
    assert [field.name for field in dataclasses.fields(kind.Config)] == ["projector", "strength"]
    assert from_plain(kind.Config, {"strength": 1}).strength == 1.0
    assert kind.uses_labels
    assert kind.__doc__.startswith("Pulls views together.")
    losses = []
    for strength in (1.0, 3.0):
        torch.manual_seed(0)
        method = kind(kind.Config(projector="6", strength=strength), MethodSpec(features=FEATURES))
        losses.append(method(features(2), StepContext(labels_N=torch.arange(IMAGES))))
    assert losses[1].total.item() == pytest.approx(3 * losses[0].total.item())
    assert losses[1].total.requires_grad


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_a_loss_that_is_a_method_says_what_each_of_its_options_does(name):
    said = {option.arg_name for option in docstring_parser.parse(METHODS[name].Config.__doc__).params}
    assert {field.name for field in dataclasses.fields(METHODS[name].Config)} - {"projector"} <= said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_methods:push", "'strength' has no default"),
        ("own_methods:lists", "mutable default"),
        ("own_methods:headed", "projector"),
        ("own_methods:nothing", "takes projections"),
        ("own_methods:untyped", "NoSuchType"),
        ("own_methods:Missing", "Missing"),
        ("no_such_module:X", "no_such_module"),
        ("own_methods:NotOne", "derives from"),
        ("frosl", "'frossl'"),
        (":", "module:Class"),
    ],
)
def test_a_method_that_is_none_is_explained(own, name, says):
    with pytest.raises(UserError, match=says):
        find_method(name)


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_goes_to_another_process(name):
    config = METHODS[name].Config()
    assert pickle.loads(pickle.dumps(config)) == config
