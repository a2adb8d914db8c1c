"""The registry of operators: a decorator, look-up, and third parties' entry points."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from relqa_loss.channels import CHANNELS
from relqa_loss.distortions.operator import Apply, Curve, Operator

ENTRY_POINT_GROUP = "relqa_loss.operators"
"""Packages list modules under this group; importing them registers their operators."""

# In the order of the listing, by which draws go: each follows those that it imports from.
_FAMILIES = (
    "blur",
    "sharpen",
    "noise",
    "smoothing",
    "compression",
    "ringing",
    "colour",
    "tone",
    "geometry",
    "chroma",
    "banding",
    "corruption",
    "resampling",
    "synthesis",
)

_BANK = {f"{__package__}.{family}": place for place, family in enumerate(_FAMILIES)}

_operators: dict[str, Operator] = {}
_state = {"bank": False, "loading": False, "loaded": False}
# Held while operators are loaded, so that no thread takes a part of the bank for the whole. One
# thread may take them again, since modules that are loaded look operators up. The bank has a lock
# of its own: a module that another thread imports, and that registers, waits for no more than that.
_bank_lock, _all_lock = threading.RLock(), threading.RLock()


def register(
    name: str,
    *,
    channel: str,
    sign: int,
    curve: Curve,
    family: str | None = None,
    side: Mapping[str, float] | None = None,
    differentiable: bool = True,
    runs_on: Literal["torch", "host"] = "torch",
    mildest: bool = False,
    one_directional: bool = True,
    hard_mask: bool = False,
) -> Callable[[Apply], Apply]:
    """Register the decorated function as an operator; see :class:`Operator` for the arguments.

    The first line of the function's docstring becomes its description, and its module's last name
    the family unless one is given.

    Raises:
        ValueError: If the name is taken or a channel is unknown.

    Example:
        >>> import torch
        >>> from relqa_loss.distortions import Curve, register, unregister, get_operator
        >>> @register("my_fade", channel="contrast", sign=-1, curve=Curve(0.01, 0.5))
        ... def my_fade(images, strength, generator):
        ...     '''Fades towards mid-grey.'''
        ...     return images + strength * (0.5 - images)
        >>> get_operator("my_fade").about
        'Fades towards mid-grey.'
        >>> unregister("my_fade")
    """

    def decorate(function: Apply) -> Apply:
        if function.__module__ not in _BANK:
            # The bank comes first: a name of it is refused here, not wherever the bank is first
            # looked at, and what is drawn does not depend on when that is.
            _load_bank()
        if name in _operators:
            raise ValueError(
                f"an operator named {name!r} is already registered (family "
                f"{_operators[name].family!r}); choose another name or unregister it first"
            )
        _operators[name] = Operator(
            name=name,
            family=family or function.__module__.rpartition(".")[2],
            channel=channel,
            sign=sign,
            curve=curve,
            apply=function,
            side=dict(side or {}),
            differentiable=differentiable,
            runs_on=runs_on,
            mildest=mildest,
            one_directional=one_directional,
            hard_mask=hard_mask,
            about=(function.__doc__ or "").strip().partition("\n")[0],
        )
        return function

    return decorate


def unregister(name: str) -> None:
    """Remove an operator.

    Raises:
        ValueError: If there is none of that name.
    """
    _load_all()
    if name not in _operators:
        raise ValueError(_unknown(name))
    del _operators[name]


def get_operator(name: str) -> Operator:
    """The operator called ``name``.

    Raises:
        ValueError: If there is none of that name.
    """
    _load_all()
    try:
        return _operators[name]
    except KeyError:
        raise ValueError(_unknown(name)) from None


def list_operators(channel: str | None = None) -> list[Operator]:
    """All registered operators in order of registration, or those of one dominant channel.

    Raises:
        ValueError: If there is no channel of that name.
    """
    if channel is not None and channel not in CHANNELS:
        raise ValueError(f"no channel named {channel!r}; there are {', '.join(CHANNELS)}")
    _load_all()
    return [op for op in _operators.values() if channel is None or op.channel == channel]


def operator_names() -> tuple[str, ...]:
    """Names of all registered operators, in order of registration."""
    return tuple(operator.name for operator in list_operators())


def _unknown(name: str) -> str:
    return f"no operator named {name!r}; `relqa engine list` prints the {len(_operators)} there are"


def _load_bank() -> None:
    # On first use rather than at import: the core package must import without Pillow or SciPy,
    # and a third party's module may itself import this one.
    with _bank_lock:
        if _state["bank"]:
            return
        for module in _BANK:
            importlib.import_module(module)
        # A user may have imported some of these modules before, in any order.
        ordered = sorted(_operators.values(), key=lambda operator: _BANK[operator.apply.__module__])
        _operators.clear()
        _operators.update((operator.name, operator) for operator in ordered)
        _state["bank"] = True


def _load_all() -> None:
    if _state["loaded"]:
        return
    with _all_lock:
        if _state["loaded"] or _state["loading"]:
            return
        _state["loading"] = True
        try:
            _load_bank()
            for entry in entry_points(group=ENTRY_POINT_GROUP):
                _load_entry(entry)
            _state["loaded"] = True
        finally:
            _state["loading"] = False


def _load_entry(entry: EntryPoint) -> None:
    """Let an installed package register its operators.

    Raises:
        ImportError: If that fails, for whatever reason; it names the package.
    """
    before = set(_operators)
    try:
        entry.load()
    except Exception as error:
        # Python forgets a module that fails, and runs it again when it is asked for again: what
        # it had registered would then stand in its own way, and hide why it failed.
        for name in set(_operators) - before:
            if _operators[name].apply.__module__ not in sys.modules:
                del _operators[name]
        package = entry.dist.name if entry.dist else "an installed package"
        raise ImportError(
            f"the operators of {package} (entry point {entry.name!r}, {entry.value}) cannot be "
            f"loaded: {type(error).__name__}: {error}; repair it or pip uninstall {package}"
        ) from error
