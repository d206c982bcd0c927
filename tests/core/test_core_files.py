from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from frossl.core.files import write_atomically, write_folder, write_safetensors, write_text
from frossl.core.types import UserError

FULL = OSError(errno.ENOSPC, "No space left on device")


def refuse(*_, **__):
    raise FULL


def half_then_fail(temporary: Path) -> None:
    temporary.write_text("ha")
    raise FULL


@pytest.fixture(params=[True, False], ids=["over a file", "new"])
def path(request, tmp_path) -> Path:
    if request.param:
        (tmp_path / "file").write_text("old")
    return tmp_path / "file"


def contents(path: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in path.parent.iterdir()}


def test_success_leaves_the_file_and_nothing_else(path):
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert contents(path) == {"file": "new"}


def test_text_with_a_name_in_another_code_is_written(tmp_path):
    write_text(tmp_path / "file", "a folder: caf\udce9")
    assert (tmp_path / "file").read_text() == "a folder: caf?"


def test_the_file_is_not_touched_before_all_is_written(path):
    before = contents(path)

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent
        assert contents(path) == before
        temporary.write_text("new")
        assert path.exists() is bool(before)

    write_atomically(path, write)


def test_a_write_that_fails_midway_changes_nothing_and_names_the_file(path):
    before = contents(path)
    with pytest.raises(UserError) as caught:
        write_atomically(path, half_then_fail)
    assert str(path) in str(caught.value)
    assert "No space left" in str(caught.value)
    assert contents(path) == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_refuses_changes_nothing_and_the_file_is_named(path, step, monkeypatch):
    before = contents(path)
    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert contents(path) == before


def test_nothing_is_said_to_be_unchanged_that_was_changed(path, monkeypatch):
    """Some file systems cannot flush a directory; by then the new file is in place."""
    before, flush = contents(path), os.fsync

    def not_directories(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", not_directories)
    try:
        write_text(path, "new")
    except UserError as error:
        if "Nothing there was changed" in str(error):
            assert contents(path) == before
    else:
        assert contents(path) == {"file": "new"}


def test_another_error_passes_and_leaves_no_stray_file(path):
    before = contents(path)

    def write(temporary: Path) -> None:
        temporary.write_text("ha")
        raise KeyError("mistake in a program")

    with pytest.raises(KeyError):
        write_atomically(path, write)
    assert contents(path) == before


@pytest.mark.parametrize("parent", ["missing", "a_file"])
def test_a_place_that_cannot_hold_a_file_is_named(parent, tmp_path):
    (tmp_path / "a_file").write_text("not a directory")
    path = tmp_path / parent / "file"
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)


def test_data_are_flushed_before_the_rename_and_the_directory_after_it(path, monkeypatch):
    done, flush, rename = [], os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append("flush directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "flush file")
        flush(handle)

    def replace(a, b) -> None:
        done.append("rename")
        rename(a, b)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_text(path, "new")
    assert done == ["flush file", "rename", "flush directory"]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "file", "Größe ✓\n")
    assert (tmp_path / "file").read_bytes() == "Größe ✓\n".encode()


def test_tensors_of_any_layout_and_type_are_written_with_their_header(tmp_path):
    x = torch.randn(2, 3, 4, 5)
    tensors = {
        "channels last": x.to(memory_format=torch.channels_last),
        "transposed": x[0, 0].T,
        "parameter": torch.nn.Parameter(x[0, 0].clone()),
        "bf16": x.bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 2),
    }
    write_safetensors(tmp_path / "t.safetensors", tensors, {"key": "value"})
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert file.metadata() == {"key": "value"}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor.detach())
            assert file.get_tensor(name).dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def fill(place: Path) -> None:
    (place / "new").write_text("new")


def fill_many(place: Path) -> None:
    for i in range(60):
        (place / str(i)).mkdir()
        (place / str(i) / "new").write_text("new")


def fill_half(place: Path) -> None:
    fill(place)
    raise FULL


def below(place: Path) -> dict[str, str]:
    return {str(p.relative_to(place)): p.read_text() for p in place.rglob("*") if p.is_file()}


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_is_whole_and_takes_the_place_of_what_was_there(tmp_path, there):
    path = tmp_path / "deep" / "folder"
    for left_over in (path, path.with_name(".folder.partial"), path.with_name(".folder.before")):
        left_over.mkdir(parents=True)
        (left_over / "old").write_text("old")
    if not there:
        (path / "old").unlink()
        path.rmdir()
    write_folder(path, fill)
    assert below(tmp_path) == {"deep/folder/new": "new"}


@pytest.mark.parametrize("fails", ["fill", "fsync", "rename"])
def test_a_folder_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch, fails):
    path, rename = tmp_path / "folder", os.rename
    path.mkdir()
    (path / "old").write_text("old")

    def not_new(source, target):
        return refuse() if str(source).endswith(".partial") else rename(source, target)

    if fails != "fill":
        monkeypatch.setattr(os, fails, refuse if fails == "fsync" else not_new)
    with pytest.raises(UserError, match=r"could not write .*folder: No space left"):
        write_folder(path, fill_half if fails == "fill" else fill)
    assert below(tmp_path) == {"folder/old": "old"}


def test_folders_of_folders_are_flushed_but_not_the_files_that_they_link_to(tmp_path, monkeypatch):
    """A file of another person's can be linked to, but not opened for writing."""
    other, flushed = tmp_path / "other", []
    other.write_text("other")

    def link(place: Path) -> None:
        (place / "deep").mkdir()
        (place / "deep" / "new").write_text("new")
        (place / "deep" / "hard").hardlink_to(other)
        (place / "deep" / "soft").symlink_to(other)

    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    write_folder(tmp_path / "folder", link)
    place = tmp_path / "folder" / "deep"
    assert {path.stat().st_ino for path in (place, place / "new")} <= set(flushed)
    assert other.stat().st_ino not in flushed
    assert below(tmp_path / "folder") == {"deep/new": "new", "deep/hard": "other", "deep/soft": "other"}


def test_many_files_are_flushed_at_once(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "sync", lambda: done.append((tmp_path / "folder").exists()))
    write_folder(tmp_path / "folder", fill_many)
    assert done == [False]
    assert len(below(tmp_path / "folder")) == 60
