from __future__ import annotations

import pytest

from frossl.core.registry import Registry, unknown_name
from frossl.core.types import UserError


@pytest.fixture
def fruits() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    for number, name in enumerate(["pear", "apple", "cherry"]):
        registry.add(name, number)
    return registry


def test_registry_is_a_sorted_mapping(fruits):
    assert list(fruits) == ["apple", "cherry", "pear"]
    assert fruits.items() == [("apple", 1), ("cherry", 2), ("pear", 0)]
    assert len(fruits) == 3
    assert fruits["cherry"] == 2
    assert "pear" in fruits
    assert "plum" not in fruits


def test_register_returns_what_it_registers():
    registry = Registry("function")

    @registry.register("one")
    def one():
        return 1

    assert one() == 1
    assert registry["one"] is one


def test_duplicate_is_refused_and_the_first_stays(fruits):
    with pytest.raises(ValueError, match=r"fruit 'pear'.*twice"):
        fruits.add("pear", 9)
    with pytest.raises(ValueError, match="registered twice"):
        fruits.register("pear")(9)
    assert fruits["pear"] == 0


def test_unknown_name_suggests_the_nearest_and_lists_all(fruits):
    with pytest.raises(UserError, match=r"fruit.*'aple'.*'apple'.*: apple, cherry, pear"):
        fruits["aple"]


def test_unknown_name_far_from_all_suggests_nothing(fruits):
    with pytest.raises(UserError) as caught:
        fruits["zzzzzz"]
    assert "Did you mean" not in str(caught.value)
    assert ": apple, cherry, pear" in str(caught.value)


def test_best_suggestion_comes_first():
    message = str(unknown_name("thing", "resnet19", ["resnet50", "resnet18", "vit"]))
    assert message.index("'resnet18'") < message.index("'resnet50'")


def test_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)
