"""A registry by name, for methods, losses, data sets, recipes and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from frossl.core.types import UserError

T = TypeVar("T")


def unknown_name(kind: str, name: str, valid: list[str], where: str = "see frossl list") -> UserError:
    """The error for an unknown name, with the nearest valid ones and up to 60 of all, or ``where`` to see them."""
    near = get_close_matches(name, valid, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    known = ", ".join(sorted(valid)) if len(valid) <= 60 else f"{len(valid):,} names, {where}"
    return UserError(f"no {kind} is called {name!r}.{hint} Known: {known}.")


class Registry(Generic[T]):
    """A mapping from names to objects that refuses duplicates and suggests names for unknown ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str, thing: T) -> T:
        if name in self._things:
            raise ValueError(f"the {self.kind} {name!r} is registered twice")
        self._things[name] = thing
        return thing

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""
        return lambda thing: self.add(name, thing)

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise unknown_name(self.kind, name, list(self._things))
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things))

    def __len__(self) -> int:
        return len(self._things)

    def items(self) -> list[tuple[str, T]]:
        return sorted(self._things.items())
