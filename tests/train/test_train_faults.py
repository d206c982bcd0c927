"""What death, a full disk or rot leave of a checkpoint: the old one or the new one, whole."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import frossl.runs.checkpoint as checkpoint
from frossl.core import files
from frossl.core.files import DamagedError
from frossl.core.types import UserError
from frossl.runs.checkpoint import (
    FORMAT,
    keep_as_best,
    load_checkpoint,
    load_newest,
    newest_checkpoint,
    save_checkpoint,
)


def state(step: int) -> dict:
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "weights": torch.randn(40, 100, generator=generator), "text": "state " * 20}


def is_state(found: dict, step: int) -> bool:
    return found["step"] == step and torch.equal(found["weights"], state(step)["weights"])


def dies(work: Callable[[], object]) -> bool:
    """Runs ``work`` in a forked process; says whether it ended itself with code 9, as a kill would."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


CALLS = [(os, "fsync"), (os, "replace"), (os, "link"), (Path, "write_bytes"), (Path, "unlink"), (Path, "mkdir")]
BOUNDARIES = [*CALLS, (files, "flush_directory")]


def at_call(number: int, when: str, do: Callable[[], object], boundaries: list = BOUNDARIES) -> None:
    """Patches ``boundaries``: at the ``number``-th call of any of them, ``do`` it before or after the call."""
    count = [0]

    def patched(original: Callable) -> Callable:
        def call(*args, **kwargs):
            count[0] += 1
            mine = count[0] == number
            if mine and when == "before":
                do()
            result = original(*args, **kwargs)
            if mine and when == "after":
                do()
            return result

        return call

    for owner, name in boundaries:
        setattr(owner, name, patched(getattr(owner, name)))


def saves(directory: Path) -> None:
    keep_as_best(save_checkpoint(directory, 3, state(3)))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_at_any_boundary_leaves_the_old_or_the_new_and_the_next_save_tidies_up(tmp_path, when):
    for number in range(1, 30):
        run = tmp_path / f"{when}{number}"
        for step in (1, 2):
            save_checkpoint(run / "checkpoints", step, state(step))

        def work(run=run, number=number) -> None:
            at_call(number, when, lambda: os._exit(9))
            saves(run / "checkpoints")

        died = dies(work)
        path, found = load_newest(run, pytest.fail)
        assert is_state(found, 3) or (died and is_state(found, 2)), (number, path)
        saves(run / "checkpoints")
        save_checkpoint(run / "checkpoints", 4, state(4))
        assert {p.name for p in (run / "checkpoints").iterdir()} == {
            "step-000000003.safetensors",
            "step-000000004.safetensors",
            "best.safetensors",
        }
        if not died:
            assert number > 8  # as many boundaries were met
            return
    pytest.fail("the save never came to its end")


def test_an_error_of_the_disk_at_any_boundary_is_named_and_leaves_the_old_or_the_new(tmp_path):
    for number in range(1, 30):
        run = tmp_path / str(number)
        for step in (1, 2):
            save_checkpoint(run / "checkpoints", step, state(step))
        failed = [False]

        def fail(failed=failed) -> None:
            failed[0] = True
            raise OSError(errno.EIO, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in CALLS:  # put back at the end
                patch.setattr(owner, name, getattr(owner, name))
            at_call(number, "before", fail, CALLS)
            with suppress(UserError):
                saves(run / "checkpoints")
        found = load_newest(run, pytest.fail)[1]
        assert is_state(found, 3) or (failed[0] and is_state(found, 2)), number
        saves(run / "checkpoints")
        save_checkpoint(run / "checkpoints", 4, state(4))
        assert len(list((run / "checkpoints").iterdir())) == 3
        if not failed[0]:
            assert number > 8
            return
    pytest.fail("the save never came to its end")


def test_a_death_at_any_byte_leaves_the_old_one(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", step, state(step))
    size = newest_checkpoint(tmp_path).stat().st_size
    draw = random.Random(0)
    for offset in [0, 1, 7, 8, size - 1, *(draw.randrange(size) for _ in range(20))]:

        def work(offset=offset) -> None:
            def write(path: Path, whole: bytes) -> None:
                with open(path, "wb") as file:
                    file.write(whole[:offset])
                os._exit(9)

            Path.write_bytes = write  # type: ignore[method-assign]
            saves(tmp_path / "checkpoints")

        assert dies(work)
        assert is_state(load_newest(tmp_path, pytest.fail)[1], 2)
    saves(tmp_path / "checkpoints")
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert is_state(load_newest(tmp_path, pytest.fail)[1], 3)


def test_a_disk_that_is_full_at_any_byte_changes_nothing(tmp_path):
    """The limit on the size of files makes the system itself refuse, midway in a write."""
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", step, state(step))
    before = {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()}
    size = newest_checkpoint(tmp_path).stat().st_size
    draw = random.Random(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for offset in [0, 8, size - 1, *(draw.randrange(size) for _ in range(100))]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (offset, limits[1]))
        try:
            with pytest.raises(UserError, match="could not write"):
                save_checkpoint(tmp_path / "checkpoints", 3, state(3))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()} == before


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_old_one_goes(tmp_path, monkeypatch):
    done = []
    for owner, name in ((os, "fsync"), (os, "replace"), (files, "flush_directory"), (Path, "unlink")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *a, _name=name, _do=original, **k: (done.append(_name), _do(*a, **k))[1]
        )
    save_checkpoint(tmp_path, 1, state(1), keep=1)
    done.clear()
    save_checkpoint(tmp_path, 2, state(2), keep=1)
    assert done == ["fsync", "replace", "flush_directory", "fsync", "unlink"]


def damaged(whole: bytes) -> list[tuple[str, bytes]]:
    """200 files with one bit turned, 100 cut off, 20 with a page of zeros."""
    draw = random.Random(2)
    found = []
    for _ in range(200):
        bit = draw.randrange(8 * len(whole))
        turned = bytearray(whole)
        turned[bit // 8] ^= 1 << bit % 8
        found.append((f"bit {bit}", bytes(turned)))
    found += [(f"cut at {n}", whole[:n]) for n in (draw.randrange(len(whole)) for _ in range(100))]
    pages = 0
    while pages < 20:
        start = 512 * draw.randrange(len(whole) // 512)
        zeroed = whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :]
        if zeroed != whole:
            found.append((f"zeros at {start}", zeroed))
            pages += 1
    return found


def test_each_of_320_damages_is_found_before_anything_is_loaded_and_the_one_before_is_taken(tmp_path):
    directory = tmp_path / "checkpoints"
    for step in (1, 2):
        path = save_checkpoint(directory, step, state(step))
    whole = path.read_bytes()
    cases = damaged(whole)
    assert len(cases) == 320
    for what, content in cases:
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=f"{path}"):
            load_checkpoint(path)
        said: list[str] = []
        taken, found = load_newest(tmp_path, said.append)
        assert taken.name == "step-000000001.safetensors", what
        assert is_state(found, 1)
        assert len(said) == 1
        assert str(path) in said[0]
        assert not path.exists()  # it is set aside, so that it does not push out whole ones
    assert sorted(p.name for p in directory.iterdir()) == [
        "step-000000001.safetensors",
        "step-000000002.safetensors.damaged",
    ]


def test_the_best_one_is_the_last_resort_and_none_at_all_is_an_error(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 1, state(1))
    keep_as_best(path)
    path.unlink()  # the best is not a link that could dangle
    for step in (2, 3):
        save_checkpoint(tmp_path / "checkpoints", step, state(step)).write_bytes(b"nothing")
    said: list[str] = []
    assert is_state(load_newest(tmp_path, said.append)[1], 1)
    assert len(said) == 2
    (tmp_path / "checkpoints" / "best.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint of .* is whole"):
        load_newest(tmp_path, said.append)


def test_where_there_are_no_links_the_best_is_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    path = save_checkpoint(tmp_path, 1, state(1))
    monkeypatch.setattr(os, "link", refuse)
    keep_as_best(path)
    assert is_state(load_checkpoint(tmp_path / "best.safetensors"), 1)


def test_a_checkpoint_of_a_later_version_is_not_passed_over(tmp_path):
    save_checkpoint(tmp_path / "checkpoints", 1, state(1))
    files.write_sealed(tmp_path / "checkpoints" / "step-000000002.safetensors", {}, {"format": "3", "state": "{}"})
    with pytest.raises(UserError, match=r"checkpoint format 3"):
        load_newest(tmp_path, pytest.fail)


class Touch:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def crafted(trap: Path) -> dict[str, bytes]:
    """Files that are no checkpoint and would do harm to a reader that trusts them."""
    import io
    import pickle

    def header(length: int, text: bytes) -> bytes:
        return length.to_bytes(8, "little") + text

    zipped = io.BytesIO()
    torch.save({"a": Touch(trap)}, zipped)
    legacy = io.BytesIO()
    torch.save({"a": Touch(trap)}, legacy, _use_new_zipfile_serialization=False)
    overlapping = (
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    )
    outside = b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'
    overflow = b'{"a":{"dtype":"F64","shape":[4611686018427387904,8],"data_offsets":[0,8]}}'
    with tempfile.TemporaryDirectory() as directory:  # of its own, as several processes collect these tests
        sealed = Path(directory) / "sealed.safetensors"
        files.write_sealed(sealed, {}, {"format": FORMAT, "state": "[" * 90_000})
        nested = sealed.read_bytes()
    return {
        "pickle": pickle.dumps(Touch(trap)),
        "torch zip": zipped.getvalue(),
        "torch legacy": legacy.getvalue(),
        "header of 2^63": header(2**63, b"{}"),
        "header of 200 MB": header(200_000_000, b"{}" + b" " * 100),
        "overlapping tensors": header(len(overlapping), overlapping + b"1234"),
        "tensor outside": header(len(outside), outside + b"1234"),
        "shape that overflows": header(len(overflow), overflow + b"12345678"),
        "deep nesting": nested,
        "list for header": header(2, b"[]"),
        "metadata no dictionary": header(20, b'{"__metadata__":[1]}'),
    }


@pytest.mark.parametrize("name", crafted(Path("unused")))
def test_a_crafted_file_is_refused_and_runs_nothing(tmp_path, name):
    trap = tmp_path / "trap"
    path = tmp_path / "checkpoints" / "step-000000009.safetensors"
    save_checkpoint(path.parent, 1, state(1))
    path.write_bytes(crafted(trap)[name])
    said: list[str] = []
    assert is_state(load_newest(tmp_path, said.append)[1], 1)
    assert len(said) == 1
    assert not trap.exists()


@pytest.mark.parametrize(
    "skeleton",
    [{"tensor": "missing"}, {"dict": [[1]]}, {"dict": [[["list"], 1]]}, {"list": 3}, {"unknown": 1}, {"dict": 5}],
    ids=str,
)
def test_a_sealed_file_that_says_nonsense_is_damaged(tmp_path, skeleton):
    files.write_sealed(tmp_path / "x.safetensors", {}, {"format": "2", "state": json.dumps(skeleton)})
    with pytest.raises(DamagedError, match=r"x\.safetensors .*checkpoint"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_seal_cannot_be_taken_off(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"format": checkpoint.FORMAT, "state": "{}"})
    with pytest.raises(DamagedError, match="no checksum"):
        load_checkpoint(tmp_path / "x.safetensors")
