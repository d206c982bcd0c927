"""Atomic and durable files and folders: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from frossl.core.types import UserError

MANY = 100
"""Files and folders above which flushing all disks is faster than flushing each."""


@contextmanager
def _replacing(path: Path, remove: Callable[[], object]) -> Iterator[None]:
    """Calls ``remove`` for what was written after an error, and makes a disk error a UserError; else flushes names."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            remove()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise UserError(f"could not write {path}: {reason}. Nothing there was changed.") from None
        raise
    flush_directory(path.parent)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a temporary file in the directory of ``path``, then puts it in place durably.

    Raises:
        UserError: a disk error or missing permission; what was at ``path`` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.partial")
    with _replacing(path, temporary.unlink):
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Lets ``fill`` write into a temporary folder beside ``path``, then puts it in place of what is there.

    Raises:
        UserError: a disk error or missing permission; what was at ``path`` is unchanged.
    """
    temporary, before = (path.with_name(f".{path.name}.{what}") for what in ("partial", "before"))
    with _replacing(path, lambda: shutil.rmtree(temporary, ignore_errors=True)):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
        temporary.mkdir()
        fill(temporary)
        _flush_below(temporary)
        _put_in_place(temporary, path, before)
    shutil.rmtree(before, ignore_errors=True)


def _put_in_place(folder: Path, path: Path, before: Path) -> None:
    """Renames ``folder`` to ``path``, and first ``path`` to ``before``, as no system replaces a folder in one step."""
    if not path.exists():
        os.rename(folder, path)
        return
    shutil.rmtree(before, ignore_errors=True)  # left by a process that was killed
    os.rename(path, before)
    try:
        os.rename(folder, path)
    except BaseException:
        os.rename(before, path)
        raise


def _flush_below(folder: Path) -> None:
    """Makes all that was written below ``folder`` durable; links lead to files that were there before."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    new = [path for path in paths if path.is_dir() or path.stat().st_nlink == 1]
    if len(new) > MANY and hasattr(os, "sync"):
        os.sync()
        return
    for path in new:
        if path.is_dir():
            flush_directory(path)
        else:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Makes the names in ``path`` durable, if the file system can."""
    with suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, atomically; surrogates, as of names in other encodings, become question marks."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and a header of strings, atomically."""
    whole = save(_unshared(tensors), metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(whole))


CONTROLS = dict.fromkeys((*range(9), *range(11, 32), 127, *range(128, 160)), "�")
"""For ``str.translate``: control characters, which file names may hold and a terminal would obey."""


class DamagedError(UserError):
    """A file that differs from what was written."""


SEAL = "sha256"
"""Key in the header for the checksum of all other bytes of the file."""
_OPEN = f'"{SEAL}":"'.encode()
_UNSEALED = 64 * b"0"
_LARGEST_HEADER = 100_000_000


def write_sealed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """As :func:`write_safetensors`, with a SHA-256 of all other bytes of the file in the header."""
    whole = bytearray(save(_unshared(tensors), metadata | {SEAL: _UNSEALED.decode()}))
    start = whole.index(_OPEN + _UNSEALED) + len(_OPEN)
    whole[start : start + 64] = hashlib.sha256(whole).hexdigest().encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(whole))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU and header of a safetensors file, from one read of its bytes; runs no code.

    A file without a checksum is read too; its header has no ``sha256``.

    Raises:
        DamagedError: it cannot be read, is no safetensors file, or its checksum does not match.
    """
    try:
        whole = bytearray(path.read_bytes())
        length = int.from_bytes(whole[:8], "little")
        if not 2 <= length <= min(len(whole) - 8, _LARGEST_HEADER):
            raise DamagedError(f"{path} cannot be read: it is no safetensors file, or cut off")
        header = json.loads(whole[8 : 8 + length])
        metadata = header.get("__metadata__", {})
        if SEAL in metadata:
            seal = metadata[SEAL].encode()
            start = whole.index(_OPEN + seal) + len(_OPEN)
            whole[start : start + 64] = _UNSEALED
            if hashlib.sha256(whole).hexdigest().encode() != seal:
                raise DamagedError(f"{path} cannot be read: its bytes are not those that were written (checksum)")
        return load(bytes(whole)), metadata
    except UserError:
        raise
    except (OSError, MemoryError, SafetensorError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error or type(error).__name__}") from None


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU without shared memory, which the format does not have."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in whole.items():
        if tensor.untyped_storage().data_ptr() in seen:
            whole[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    return whole


def last_line(path: Path) -> str:
    """The last line of a text file that is not blank; empty if there is none."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
