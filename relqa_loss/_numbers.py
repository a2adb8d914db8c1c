"""Numbers of whatever kind they come in."""

from __future__ import annotations

import operator


def whole_number(name: str, value: int) -> int:
    """A number as Python's integer, whatever kind of integer it is.

    Raises:
        TypeError: For anything else, such as the 1000.0 that YAML makes of ``1.0e+3``.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
