"""Files and folders that are whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from frossl.core.types import UserError

MANY = 100
"""Files and folders above which one flush of all disks is faster than one of each."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` fill a temporary file in the directory of ``path``, then puts it in place durably.

    Raises:
        UserError: the disk or its permissions say no; what was at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        try:
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror or error}. Nothing there was changed.") from None
    flush_directory(path.parent)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Lets ``fill`` write files and folders into a temporary folder beside ``path``, then puts that in its place.

    A folder that is there is replaced, with all that is in it.

    Raises:
        UserError: the disk or its permissions say no; what was at ``path`` is still there.
    """
    temporary, before = (path.with_name(f".{path.name}.{what}") for what in ("partial", "before"))
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
            temporary.mkdir()
            fill(temporary)
            _flush_below(temporary)
            _put_in_place(temporary, path, before)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror or error}. Nothing there was changed.") from None
    flush_directory(path.parent)
    shutil.rmtree(before, ignore_errors=True)


def _put_in_place(folder: Path, path: Path, before: Path) -> None:
    """Renames ``folder`` to ``path``; what is there, which no system replaces in one step, becomes ``before``."""
    if not path.exists():
        os.rename(folder, path)
        return
    shutil.rmtree(before, ignore_errors=True)  # of a process that was killed
    os.rename(path, before)
    try:
        os.rename(folder, path)
    except BaseException:
        os.rename(before, path)
        raise


def _flush_below(folder: Path) -> None:
    """Makes all that was written below ``folder`` durable; links are to files that were there before."""
    places, written = [], []
    for place, _, names in os.walk(folder):
        paths = [os.path.join(place, name) for name in names]
        written += [path for path in paths if not os.path.islink(path) and os.stat(path).st_nlink == 1]
        places.append(Path(place))
    if len(places) + len(written) > MANY and hasattr(os, "sync"):
        os.sync()
        return
    for path in written:
        with open(path, "rb+") as opened:
            os.fsync(opened.fileno())
    for place in places:
        flush_directory(place)


def flush_directory(path: Path) -> None:
    """Makes the names in ``path`` durable, where the file system can."""
    with suppress(OSError):
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_text(path: Path, text: str) -> None:
    """``text`` as UTF-8, atomically, with a question mark for what has no place there, as in names in other codes."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="replace"))


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Tensors and a header of strings, atomically."""
    whole = save(_apart(tensors), metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(whole))


CONTROLS = dict.fromkeys((*range(9), *range(11, 32), 127, *range(128, 160)), "�")
"""For ``str.translate``: names of files may hold control characters, which a terminal would obey."""


class DamagedError(UserError):
    """A file that is not what was once written."""


SEAL = "sha256"
"""Name in the header of the checksum of all other bytes of the file."""
_OPEN = f'"{SEAL}":"'.encode()
_UNSEALED = 64 * b"0"
_LARGEST_HEADER = 100_000_000


def write_sealed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """As :func:`write_safetensors`, with a SHA-256 in the header of every byte of the file but itself."""
    whole = bytearray(save(_apart(tensors), metadata | {SEAL: _UNSEALED.decode()}))
    start = whole.index(_OPEN + _UNSEALED) + len(_OPEN)
    whole[start : start + 64] = hashlib.sha256(whole).hexdigest().encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(whole))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, on the CPU, and header of a safetensors file, from one reading of its bytes; runs no code.

    A file of :func:`write_sealed` that differs in any bit is found out. One without a seal is read as far as its
    format goes, and its header has no ``sha256``.

    Raises:
        DamagedError: it cannot be read, is no safetensors file, or its checksum is not that of its bytes.
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


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in memory of its own: the format has no word for two names of one piece of memory."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in whole.items():
        if tensor.untyped_storage().data_ptr() in seen:
            whole[name] = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
    return whole


def last_line(path: Path) -> str:
    """The last line of a text that says something; nothing if none does."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
