"""The record of a selection: every checkpoint, its scores and the reason of every decision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any

LEDGER_VERSION = 1
"""Version of the format; files of a newer one are refused."""

_FORMAT = "relqa checkpoint ledger"

# Whatever is not read as it was written would be taken for something else, and weights that no
# entry names are cleared away.
_LEDGER_TYPES = {"settings": dict, "images": list | int | None, "checkpoints": list}
_ENTRY_TYPES = {
    "step": int,
    "values": list,
    "profile": dict | None,
    "rejected": str | None,
    "kept": bool,
    "file": str | None,
    "chosen": bool,
    "chosen_step": int | None,
    "best_step": int | None,
    "reason": str,
}


@dataclass(frozen=True)
class Decision:
    """What an update decided.

    Example:
        >>> from relqa_loss.selection import CheckpointSelector
        >>> decision = CheckpointSelector().update(100, [0.5, 0.25])
        >>> decision.chosen, decision.chosen_step
        (True, 100)
        >>> decision.reason
        'step 100: mean loss 0.375, the first candidate (2 images)'
    """

    step: int
    """The step of the checkpoint offered."""
    mean: float
    """Its mean score; NaN or infinite if any image's is."""
    chosen: bool
    """Whether the checkpoint offered is now the chosen one."""
    chosen_step: int | None
    """Step of the chosen checkpoint, or ``None`` if there was no candidate yet."""
    best_step: int | None
    """Step of the candidate with the best mean."""
    reason: str
    """The decision in one sentence."""


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the ledger."""

    step: int
    values: tuple[float, ...]
    """One score per image, in the order of :attr:`Ledger.images`."""
    mean: float
    profile: Mapping[str, float] | None
    """Mean signed map per channel."""
    rejected: str | None
    """Why it can never be chosen, or ``None`` for a candidate."""
    kept: bool
    """Whether it is among the checkpoints that retention keeps."""
    file: str | None
    """Name of its weights in the folder, if they were given and are kept."""
    decision: Decision

    def dropped(self) -> Entry:
        """The same, no longer kept."""
        return replace(self, kept=False, file=None)


@dataclass(frozen=True)
class Ledger:
    """Settings and checkpoints of one selection, in order of arrival.

    Args:
        settings: Options of the selector, as JSON values.
        images: Their keys; or their number, where scores are paired by position; or ``None``
            before the first checkpoint.
        entries: The checkpoints.
    """

    settings: Mapping[str, Any]
    images: tuple[str, ...] | int | None = None
    entries: tuple[Entry, ...] = ()

    def to_json(self) -> str:
        """JSON for people as well: one line per checkpoint, its scores at the end."""
        last = self.entries[-1].decision if self.entries else None
        head = {
            "format": _FORMAT,
            "version": LEDGER_VERSION,
            "settings": dict(self.settings),
            "chosen_step": last.chosen_step if last else None,
            "last_decision": last.reason if last else None,
            "images": list(self.images) if isinstance(self.images, tuple) else self.images,
        }
        opened = json.dumps(head, indent=2, allow_nan=False, ensure_ascii=False).removesuffix("\n}")
        lines = [
            json.dumps(_entry_to_json(entry), allow_nan=False, ensure_ascii=False)
            for entry in self.entries
        ]
        body = ",\n    ".join(lines)
        return f'{opened},\n  "checkpoints": [\n    {body}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Read what :meth:`to_json` wrote, to the last bit.

        Raises:
            ValueError: If the text is no ledger, or one of a newer version.
        """
        try:
            document = json.loads(text)
            _check_types(document, {"format": str, "version": int})
            if document["format"] != _FORMAT:
                raise ValueError(document["format"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is not a {_FORMAT}") from error
        if document["version"] > LEDGER_VERSION:
            raise ValueError(
                f"this ledger has version {document['version']} and this library reads up to "
                f"{LEDGER_VERSION}: update relqa-loss"
            )
        try:
            _check_types(document, _LEDGER_TYPES)
            images = document["images"]
            return cls(
                document["settings"],
                tuple(images) if isinstance(images, list) else images,
                tuple(_entry_from_json(line, images) for line in document["checkpoints"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this {_FORMAT} is damaged: {error!r}") from error


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    decision = entry.decision
    profile = entry.profile
    return {
        "step": entry.step,
        "mean": _number(entry.mean),
        "kept": entry.kept,
        "file": entry.file,
        "rejected": entry.rejected,
        "chosen_step": decision.chosen_step,
        "best_step": decision.best_step,
        "chosen": decision.chosen,
        "reason": decision.reason,
        "profile": None if profile is None else {k: _number(v) for k, v in profile.items()},
        "values": [_number(value) for value in entry.values],
    }


def _entry_from_json(line: Mapping[str, Any], images: list[str] | int | None) -> Entry:
    _check_types(line, _ENTRY_TYPES)
    wanted = len(images) if isinstance(images, list) else images
    if len(line["values"]) != wanted:
        raise ValueError(f"{len(line['values'])} values for images {images!r}")
    mean, profile = float(line["mean"]), line["profile"]
    return Entry(
        line["step"],
        tuple(float(value) for value in line["values"]),
        mean,
        None if profile is None else {name: float(value) for name, value in profile.items()},
        line["rejected"],
        line["kept"],
        line["file"],
        Decision(
            line["step"],
            mean,
            line["chosen"],
            line["chosen_step"],
            line["best_step"],
            line["reason"],
        ),
    )


def _check_types(document: Any, types: Mapping[str, type | UnionType]) -> None:
    if not isinstance(document, dict):
        raise TypeError(f"{document!r} is no object")
    for name, wanted in types.items():
        if not isinstance(document[name], wanted):
            raise TypeError(f"{name} is {document[name]!r}")


def _number(value: float) -> float | str:
    # JSON has no NaN and no infinities; float() reads these words back.
    return value if math.isfinite(value) else repr(value)
