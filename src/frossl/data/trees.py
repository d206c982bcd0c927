"""Folders and zips, read alike, whose files are linked or copied to elsewhere."""

from __future__ import annotations

import os
import shutil
import zlib
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal
from zipfile import BadZipFile, ZipFile

from frossl.core.types import UserError

Mode = Literal["link", "symlink", "copy"]


class FolderTree:
    """A folder, whose paths are relative, with /."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def names(self, path: str) -> list[str]:
        """What lies in a folder, sorted, hidden files left out; nothing where there is none."""
        try:
            return sorted(name for name in os.listdir(self.place / path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, path: str) -> bytes:
        return (self.place / path).read_bytes()

    def size(self, path: str) -> int:
        return os.stat(self.place / path).st_size

    def put(self, path: str, target: Path, mode: Mode) -> None:
        """Makes ``target`` a hard link, a symbolic link or a copy."""
        real = os.path.realpath(self.place / path)  # a hard link to a symbolic one would be that link
        {"link": os.link, "symlink": os.symlink, "copy": shutil.copyfile}[mode](real, target)


class ZipTree:
    """As :class:`FolderTree`, in a zip."""

    def __init__(self, place: Path) -> None:
        self.place = place
        try:
            self.archive = ZipFile(place)
        except BadZipFile as error:
            raise UserError(f"cannot read {place}: {error}; get it again") from None
        self.folders: defaultdict[str, set[str]] = defaultdict(set)
        for member in self.archive.namelist():
            parts = PurePosixPath(member).parts
            for depth, name in enumerate(parts):
                self.folders["/".join(parts[:depth])].add(name)

    def names(self, path: str) -> list[str]:
        return sorted(name for name in self.folders.get(path, ()) if not name.startswith("."))

    def read(self, path: str) -> bytes:
        try:
            return self.archive.read(path)
        except (BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last of encrypted ones
            raise UserError(f"cannot read {path} in {self.place}: {error}; get it again") from None

    def size(self, path: str) -> int:
        return self.archive.getinfo(path).file_size

    def put(self, path: str, target: Path, mode: Mode) -> None:
        """Makes ``target`` a copy, which is all that a zip allows."""
        target.write_bytes(self.read(path))


Tree = FolderTree | ZipTree


def open_tree(source: Path) -> Tree:
    """The folder or zip at ``source``.

    Raises:
        UserError: it is neither, or damaged.
    """
    if source.is_dir():
        return FolderTree(source)
    if source.is_file() and source.suffix.lower() == ".zip":
        return ZipTree(source)
    raise UserError(f"{source} is no folder and no .zip file; other archives have to be unpacked first")


def join(*parts: str) -> str:
    """Paths below a tree as one, where those that are empty are the tree itself."""
    return "/".join(part for part in parts if part)
