"""``unreadable.jsonl``: images that training could not read and replaced by others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from frossl.core.distributed import rank
from frossl.core.types import UserError
from frossl.data.build import MAX_UNREADABLE
from frossl.data.decide import IMAGES
from frossl.data.types import Skipped
from frossl.runs.record import read_rows

UNREADABLE = "unreadable.jsonl"


class Unreadable:
    """Lists each image that could not be read once, also over resumptions. All ranks add the same; the first writes."""

    def __init__(self, run: Path, images: int) -> None:
        self.path, self.images = run / UNREADABLE, images
        self.listed, self.met = {skip.path for skip in read_unreadable(run)}, set[str]()

    def add(self, skipped: Iterable[Skipped], read: int) -> None:
        """Appends new ones to the file; ``read`` images were tried since the run began or was resumed.

        Raises:
            UserError: more than 5 % of them, or of the first 1,000, cannot be read.
        """
        for skip in skipped:
            self.met.add(skip.path)
            if skip.path not in self.listed:
                self.listed.add(skip.path)
                if rank() == 0:
                    with open(self.path, "a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(skip)) + "\n")
            limit = max(1, MAX_UNREADABLE * min(max(read, IMAGES), self.images))
            if len(self.met) > limit:
                raise UserError(
                    f"{len(self.met):,} images cannot be read, more than {MAX_UNREADABLE:.0%} of those met, the last "
                    f"being {skip.path}: {skip.reason}. {self.path} lists them. Mend them and go on with --resume, or "
                    "remove them and start again"
                )


def read_unreadable(run: Path) -> list[Skipped]:
    """The listed images, oldest first."""
    return [Skipped(**row) for row in read_rows(run / UNREADABLE)]
