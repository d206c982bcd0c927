from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from frossl.core.types import UserError
from frossl.runs.checkpoint import (
    load_checkpoint,
    newest_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)


def same(a, b) -> bool:
    """Equal to the last bit and type."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def back(tmp_path, state):
    return load_checkpoint(save_checkpoint(tmp_path / "checkpoints", 1, state))


STATES = {
    "scalars": {"none": None, "true": True, "int": 3, "float": 0.1 + 0.2, "text": "Größe", "nothing": ""},
    "extremes": {"inf": math.inf, "nan": math.nan, "tiny": 5e-324, "large": 2**70},
    "integer keys": {"state": {0: {"step": 1.0}, 7: {"step": torch.tensor(2.0)}}, "0": "text"},
    "empty": {"a": {}, "b": [], "c": {"d": {}}, "e": torch.empty(0, 3)},
    "lists": {"groups": [{"lr": 0.1, "params": [0, 1]}, {"x": [torch.arange(3), [torch.ones(1), None]]}]},
    "types": {
        str(t): (torch.arange(6) % 2).to(t).reshape(2, 3)
        for t in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool)
    },
    "scalar tensor": {"n": torch.tensor(5), "x": torch.tensor(math.pi)},
    "words of the format": {"tensor": "a", "dict": {"tensor": torch.ones(1)}, "list": [{"list": 1}, {"dict": []}]},
    "odd names": {"a.b": torch.ones(1), "": torch.zeros(1), "__metadata__": 3},
    "nothing at all": {},
}


@pytest.mark.parametrize("name", STATES)
def test_nested_states_come_back(tmp_path, name):
    state = STATES[name]
    assert same(state, back(tmp_path, state))


@pytest.mark.parametrize(
    "state",
    [
        {"a.b": torch.tensor([1.0]), "a": {"b": torch.tensor([2.0])}},
        {"a": {0: torch.tensor([1.0]), "0": torch.tensor([2.0])}},
        {"": {"a": torch.tensor([1.0])}, "a": torch.tensor([2.0])},
    ],
    ids=["dots", "number and text", "empty"],
)
def test_names_that_look_alike_do_not_overwrite_each_other(tmp_path, state):
    assert same(state, back(tmp_path, state))


def test_one_tensor_in_two_places_is_saved(tmp_path):
    """Tied weights, or a network and its average before the first step."""
    x = torch.randn(4)
    assert same({"a": x, "b": {"c": x}}, back(tmp_path, {"a": x, "b": {"c": x}}))


def test_an_optimizer_goes_on_from_its_state(tmp_path):
    def made():
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1)

    def steps(network, optimizer, count):
        for i in range(count):
            optimizer.zero_grad()
            network(torch.arange(3.0) + i).square().sum().backward()
            optimizer.step()

    network, optimizer = made()
    steps(network, optimizer, 3)
    state = back(tmp_path, {"network": dict(network.state_dict()), "optimizer": optimizer.state_dict()})
    again, other = made()
    again.load_state_dict(state["network"])
    other.load_state_dict(state["optimizer"])
    steps(network, optimizer, 3)
    steps(again, other, 3)
    assert torch.equal(network.weight, again.weight)


def test_the_random_state_comes_back(tmp_path):
    torch.manual_seed(3)
    torch.randn(5)
    state = back(tmp_path, {"random": random_state()})
    wanted = torch.randn(5)
    torch.manual_seed(0)
    set_random_state(state["random"])
    assert torch.equal(torch.randn(5), wanted)


def steps_in(directory) -> list[int]:
    return sorted(int(p.stem.split("-")[1]) for p in directory.iterdir())


def test_the_newest_two_stay(tmp_path):
    for step in (1, 5, 10, 200):
        save_checkpoint(tmp_path, step, {"step": step})
    assert steps_in(tmp_path) == [10, 200]


def test_as_many_stay_as_asked_and_other_files_are_left_alone(tmp_path):
    for name in ("step-best.safetensors", "notes.txt", "step-000000001.safetensors.bak"):
        (tmp_path / name).write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step}, keep=1)
    assert {p.name for p in tmp_path.iterdir()} == {
        "step-best.safetensors",
        "notes.txt",
        "step-000000001.safetensors.bak",
        "step-000000003.safetensors",
    }


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, 4, {"x": 1})
    path = save_checkpoint(tmp_path, 4, {"x": 2})
    assert steps_in(tmp_path) == [4]
    assert load_checkpoint(path) == {"x": 2}


def test_the_newest_is_that_of_the_highest_step(tmp_path):
    for step in (999, 10_000, 2_000):
        save_checkpoint(tmp_path / "checkpoints", step, {"step": step}, keep=5)
    assert load_checkpoint(newest_checkpoint(tmp_path)) == {"step": 10_000}


def test_steps_of_more_digits_than_the_name_has_are_ordered_as_numbers(tmp_path):
    for step in (999_999_998, 999_999_999, 1_000_000_000):
        path = save_checkpoint(tmp_path / "checkpoints", step, {"step": step})
    assert steps_in(tmp_path / "checkpoints") == [999_999_999, 1_000_000_000]
    assert newest_checkpoint(tmp_path) == path


@pytest.mark.parametrize("directory", [False, True])
def test_a_run_without_checkpoints_is_named(tmp_path, directory):
    if directory:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path} has no checkpoint"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["truncated", "cut header", "text", "empty", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path, kind):
    path = save_checkpoint(tmp_path, 3, {"x": torch.randn(100)})
    whole = path.read_bytes()
    changed = {"truncated": whole[:-100], "cut header": whole[:40], "text": b"hello, I am a text file\n", "empty": b""}
    path.unlink()
    if kind in changed:
        path.write_bytes(changed[kind])
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("header", "named"), [({"format": "3", "state": "{}"}, "3"), ({"format": "pt"}, "pt"), (None, "None")]
)
def test_another_format_is_refused_by_name(tmp_path, header, named):
    save_file({"x": torch.zeros(1)}, tmp_path / "step-000000001.safetensors", header)
    with pytest.raises(UserError, match=rf"checkpoint format {named}"):
        load_checkpoint(tmp_path / "step-000000001.safetensors")


def test_a_failed_save_keeps_the_checkpoints_there_are(tmp_path, monkeypatch):
    import os

    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(tmp_path, 3, {"step": 3})
    assert steps_in(tmp_path) == [1, 2]
