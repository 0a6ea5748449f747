"""Policies: how something is done, by name, where there are several ways."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from swiommu.errors import InvalidArgument
from swiommu.words import did_you_mean, spelt

__all__ = ["Policy"]


class Policy(StrEnum):
    """An enumeration of ways to do something; `InvalidArgument` lists them for a name that none has.

    >>> class ReplacementPolicy(Policy):
    ...     LRU = "lru"
    ...     FIFO = "fifo"
    >>> ReplacementPolicy("lru")
    <ReplacementPolicy.LRU: 'lru'>
    >>> ReplacementPolicy("rlu")
    Traceback (most recent call last):
    swiommu.errors.InvalidArgument: no replacement policy is named 'rlu'; did you mean 'lru'?
    """

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        words = f"no {spelt(cls.__name__)} is named {value!r}; {did_you_mean(str(value), cls)}"
        raise InvalidArgument(words)
