"""A folder or a zip, read alike, whose files are linked or copied to elsewhere."""

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


class Tree:
    """The files below a folder, or in a zip; paths are relative, with /.

    Raises:
        UserError: there is neither at ``place``, or the zip is damaged.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.archive = None
        if place.is_dir():
            return
        if not place.is_file() or place.suffix.lower() != ".zip":
            raise UserError(f"{place} is no folder and no .zip file; other archives have to be unpacked first")
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
        """The names in a folder, sorted, without hidden files; none where there is no such folder."""
        try:
            names = os.listdir(self.place / path) if self.archive is None else self.folders.get(path, ())
        except (FileNotFoundError, NotADirectoryError):
            names = ()
        return sorted(name for name in names if not name.startswith("."))

    def read(self, path: str) -> bytes:
        if self.archive is None:
            return (self.place / path).read_bytes()
        try:
            return self.archive.read(path)
        except (BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last of encrypted ones
            raise UserError(f"cannot read {path} in {self.place}: {error}; get it again") from None

    def size(self, path: str) -> int:
        return (self.place / path).stat().st_size if self.archive is None else self.archive.getinfo(path).file_size

    def put(self, path: str, target: Path, mode: Mode) -> None:
        """Makes ``target`` a hard link, a symbolic link or a copy; a file of a zip can only be copied."""
        if self.archive is not None:
            target.write_bytes(self.read(path))
            return
        real = os.path.realpath(self.place / path)  # a hard link to a symbolic one would be that link
        {"link": os.link, "symlink": os.symlink, "copy": shutil.copyfile}[mode](real, target)


def join(*parts: str) -> str:
    """Paths below a tree as one; empty ones are the tree itself."""
    return "/".join(part for part in parts if part)
