"""The registry of the promises: each is a function that breaks a running Mien on purpose and gives its figures.

The short form runs in ``make test``, the full one in ``make torture``; they differ in numbers alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.systems import WAYS, System


@dataclass
class Trial:
    """What a promise is tried on: a running system, the size, the dice, and a place for systems of its own."""

    system: System
    full: bool
    folder: Path
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    def size(self, short: int, full: int) -> int:
        """A number for this form."""
        return full if self.full else short


@dataclass(frozen=True)
class Promise:
    """One promise: its number, its name as in docs/promises.md, and the trial that gives its figures."""

    number: int
    name: str
    ways: tuple[str, ...]
    keep: Callable[[Trial], str]


PROMISES: dict[int, Promise] = {}
Keep = Callable[[int, str], str]
"""Tries one promise (by number, and way to run Mien) in its short form; gives its figures."""


def promise(
    number: int, name: str, ways: tuple[str, ...] = WAYS
) -> Callable[[Callable[[Trial], str]], Callable[[Trial], str]]:
    """Register a trial."""

    def register(keep: Callable[[Trial], str]) -> Callable[[Trial], str]:
        PROMISES[number] = Promise(number, name, ways, keep)
        return keep

    return register
