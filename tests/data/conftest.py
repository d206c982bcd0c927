"""Folders for the tests of this room, written on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import picture


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write ``picture(seed)`` (or given bytes) to a path below ``tmp_path / "set"``; the kind is by extension."""

    def one(path: str, seed: int = 0, content: bytes | None = None, **options: Any) -> Path:
        file = tmp_path / "set" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            picture(seed, **options).save(file)
        else:
            file.write_bytes(content)
        return file

    return one
