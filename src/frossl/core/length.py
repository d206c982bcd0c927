"""Lengths such as "20ep", "5000it", "1e6img", "1e6view", "10min" or "5%": one parser for every option."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

from frossl.core.types import UserError

Unit = Literal["ep", "it", "img", "view", "min", "%"]
_PATTERN = re.compile(r"([0-9]*\.?[0-9]+(?:e[+]?[0-9]+)?)\s*(ep|it|img|view|min|%)")


@dataclass(frozen=True)
class Length:
    """An amount with its unit: epochs, optimiser steps (it), images, views, minutes, or a percentage of the run.

    >>> Length.parse("1e6img").steps(batch=250, images=50_000)
    4000
    >>> str(Length.parse("20ep"))
    '20ep'
    """

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Length:
        """Reads ``text``.

        Raises:
            UserError: not a number followed by ep, it, img, view, min or %.
        """
        match = _PATTERN.fullmatch(text.strip().lower())
        if not match or not math.isfinite(float(match[1])):
            raise UserError(
                f"{text!r} is not a length: write a number and a unit, such as 20ep (epochs), 5000it (steps), "
                "1e6img (images), 1e6view (views of images), 10min; within a run also 5% of it"
            )
        return cls(float(match[1]), cast(Unit, match[2]))

    def __str__(self) -> str:
        return f"{self.amount:.15g}{self.unit}"

    def as_images(self, views: int) -> Length:
        """Converts a number of views to images with ``views`` each; returns any other length unchanged."""
        return Length(self.amount / views, "img") if self.unit == "view" else self

    def steps(self, *, batch: int, images: int) -> int | None:
        """Optimiser steps of ``batch`` images over a data set of ``images``, rounded up; None for minutes.

        An epoch is ``images // batch`` steps: the incomplete last batch is dropped.
        """
        if self.unit == "%":
            raise UserError(f"{self} is a share of a run; this length must be in ep, it, img or min")
        if self.unit == "view":
            raise UserError(f"{self}: only the length of a run is counted in views; write this in ep, it, img or min")
        per_epoch = images // batch
        if self.unit == "min":
            return None
        amount = Fraction(repr(self.amount))  # as it was written: 0.7 of 10 steps are 7, not 7.000000000000001
        return math.ceil({"ep": amount * per_epoch, "it": amount, "img": amount / batch}[self.unit])

    def fraction_of(self, run: Length, *, batch: int, images: int, flag: str = "") -> float:
        """This length, given by ``flag``, as a fraction, 0 to 1, of the length of a run.

        Raises:
            UserError: it is longer, or the two cannot be compared (minutes and counted steps).
        """
        asked = f"{flag} {self}".strip()
        if self.unit != "%" and (self.unit == "min") != (run.unit == "min"):
            raise UserError(f"{asked} cannot be taken of a run of {run}: give both in min, or as a share such as 5%")
        if self.unit == "%":
            part, whole = self.amount, 100
        elif run.unit == "min":
            part, whole = self.amount, run.amount
        else:
            part, whole = (length.steps(batch=batch, images=images) or 0 for length in (self, run))
        fraction = part / whole if whole else 0.0
        if fraction > 1:
            raise UserError(f"{asked} is longer than the run of {run}")
        return fraction
