from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frossl.core.config import from_plain, to_plain
from frossl.core.types import UserError
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.views.recipes import VIEWS, View


def through_json(value):
    return json.loads(json.dumps(to_plain(value)))


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_view_recipe_goes_through_json_and_back(name):
    for view in VIEWS[name]:
        again = from_plain(View, through_json(view))
        assert again == view
        assert [type(v) for v in vars(again).values()] == [type(v) for v in vars(view).values()]


shares = st.floats(0, 1)
pairs = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda p: (min(p), max(p)))


@given(scale=pairs, ratio=pairs, flip=shares, hue=st.floats(0, 0.5), count=st.integers(1, 500))
def test_any_view_goes_through_json_bit_for_bit(scale, ratio, flip, hue, count):
    view = View(scale=scale, ratio=ratio, flip=flip, hue=hue, count=count)
    assert from_plain(View, through_json(view)) == view


CONFIGS = [
    Config(data="folder"),
    Config(
        data="folder",
        views=4,
        crop_scale=(0.1, 0.9),
        size=64,
        batch=32,
        clip=1.0,
        optimizer="lars",
        precision="32",
        channels=3,
        labels=False,
        data_dir=Path("/somewhere/else"),
        name="mine",
        objective=METHODS["frossl"].Config(invariance_weight=1.4, view_scaling="pairs", centre=False),
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["defaults", "changed"])
def test_a_configuration_goes_through_json_and_back(config):
    """The objective's type hangs on the method, so it is read by itself, as run directories do."""
    plain = through_json(config)
    objective = from_plain(METHODS["frossl"].Config, plain.pop("objective"))
    again = dataclasses.replace(from_plain(Config, plain), objective=objective)
    assert again == config
    assert [type(v) for v in vars(again).values()] == [type(v) for v in vars(config).values()]


@dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclass(frozen=True)
class Outer:
    rate: float = 0.5
    count: int = 1
    on: bool = True
    name: str = "x"
    place: Path = Path("here")
    inner: Inner = Inner()
    perhaps: Inner | None = None
    limit: float | None = None
    pair: tuple[float, int] = (0.5, 1)
    many: tuple[int, ...] = ()
    span: tuple[float, float] | None = None
    kind: Literal["a", "b"] = "a"
    number: Literal[1, 3] | None = None


def test_nested_values_become_plain_and_come_back():
    outer = Outer(inner=Inner(3), perhaps=Inner(4), many=(1, 2, 3), span=(0.0, 1.0), limit=2.5, number=3)
    plain = to_plain(outer)
    assert plain["inner"] == {"depth": 3}
    assert plain["many"] == [1, 2, 3]
    assert plain["place"] == "here"
    assert from_plain(Outer, through_json(outer)) == outer
    assert from_plain(Outer, {}) == Outer()


def test_dictionaries_and_lists_of_dataclasses_become_plain():
    assert to_plain({"a": (Inner(1), [Inner(2)]), "b": None}) == {"a": [{"depth": 1}, [{"depth": 2}]], "b": None}


@pytest.mark.parametrize(
    ("kind", "plain", "message"),
    [
        (View, {"blurr": 0.5}, r"View.*'blurr'.*'blur'"),
        (Config, {"data": "x", "optimiser": "sgd"}, r"Config.*'optimiser'.*'optimizer'"),
        (Outer, {"inner": {"dept": 1}}, r"Inner.*'dept'.*'depth'"),
        (Outer, {"perhaps": {"dept": 1}}, r"Inner.*'dept'"),
        (Outer, {"zzz": 1}, r"Outer.*'zzz'.*: count, inner, kind"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(kind, plain, message):
    with pytest.raises(UserError, match=message):
        from_plain(kind, plain)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"count": "3"}, r"Outer\.count.*int.*'3'"),
        ({"count": 3.0}, r"Outer\.count.*int.*3\.0"),
        ({"count": True}, r"Outer\.count.*int.*True"),
        ({"rate": True}, r"Outer\.rate.*float.*True"),
        ({"rate": "0.1"}, r"Outer\.rate.*float"),
        ({"rate": None}, r"Outer\.rate.*float.*None"),
        ({"on": 1}, r"Outer\.on.*bool.*1"),
        ({"name": 3}, r"Outer\.name.*str.*3"),
        ({"inner": 3}, r"Outer\.inner.*Inner.*3"),
        ({"inner": {"depth": "x"}}, r"Inner\.depth.*int"),
        ({"limit": "none"}, r"Outer\.limit.*float"),
        ({"limit": False}, r"Outer\.limit.*float"),
        ({"pair": [1.0]}, r"Outer\.pair.*2.*1"),
        ({"pair": [1.0, 2, 3]}, r"Outer\.pair.*2.*3"),
        ({"pair": ["a", 2]}, r"Outer\.pair.*float"),
        ({"pair": "ab"}, r"Outer\.pair.*tuple"),
        ({"many": [1, "2"]}, r"Outer\.many.*int"),
        ({"many": 3}, r"Outer\.many.*tuple"),
        ({"span": [0, True]}, r"Outer\.span.*float"),
        ({"kind": "c"}, r"Outer\.kind .*'c'.*Known: a, b"),
        ({"number": 2}, r"Outer\.number .*'2'.*Known: 1, 3"),
        ({"number": True}, r"Outer\.number"),
        ({"place": 3}, r"Outer\.place"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(plain, message):
    with pytest.raises(UserError, match=message):
        from_plain(Outer, plain)


def test_whole_numbers_are_taken_for_floats_and_become_floats():
    got = from_plain(Outer, {"rate": 1, "limit": 2, "pair": [3, 4], "span": [0, 1]})
    assert (got.rate, got.limit, got.pair, got.span) == (1.0, 2.0, (3.0, 4), (0.0, 1.0))
    assert [type(v) for v in (got.rate, got.limit, got.pair[0], got.pair[1], got.span[1])] == [
        float, float, float, int, float,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["perhaps", "limit", "span", "number"])
def test_none_is_taken_where_it_may_be(name):
    assert getattr(from_plain(Outer, {name: None}), name) is None


def test_a_missing_key_is_named():
    """A configuration that was edited by hand, or an encoder of another version."""
    with pytest.raises(UserError, match="data"):
        from_plain(Config, {"seed": 3})
