"""Keeping the checkpoint that a metric prefers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from torch import Tensor

from relqa_loss._files import write_atomically
from relqa_loss._numbers import whole_number
from relqa_loss.selection.store import packed, read_metadata, read_tensors

_KEY = "relqa_best"


class BestCheckpoint:
    """Saves a model's weights whenever a metric reaches a new best value.

    NaN and infinities never win. A tie keeps the earlier checkpoint. The file is replaced in one
    step, so that a reader, or a killed run, always finds a whole one; it is a safetensors file
    with the value and the step in its header.

    Args:
        path: File to keep the weights in, ``.safetensors``; its folder is made if need be.
        mode: ``min`` for a distance, ``max`` for a score.
        resume: Continue from the value in an existing file; without it, an existing file is an
            error.

    Attributes:
        value: Best value so far, or ``None``.
        step: The step at which it was reached, or ``None``.

    Raises:
        FileExistsError: If the file exists and ``resume`` is not given.
        ValueError: For an unknown mode, a path that is a folder, or if the file to resume from was
            not written by this class or under the other mode.
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from torch import nn
        >>> from relqa_loss.selection.best import BestCheckpoint
        >>> model = nn.Linear(2, 1)
        >>> best = BestCheckpoint(Path(tempfile.mkdtemp()) / "best.safetensors", mode="min")
        >>> values = (0.5, 0.3, float("nan"), 0.4)
        >>> [best.update(value, model.state_dict(), step=i) for i, value in enumerate(values)]
        [True, True, False, False]
        >>> best.value, best.step
        (0.3, 1)
        >>> _ = model.load_state_dict(best.load())
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: Literal["min", "max"] = "min",
        *,
        resume: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.path = Path(path)
        self.mode = mode
        self.value: float | None = None
        self.step: int | None = None
        if self.path.is_dir():
            raise ValueError(
                f"{self.path} is a folder; give the file to write, such as "
                f"{self.path / 'best.safetensors'}"
            )
        # Not at the first update: a folder that cannot be made is found out now.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            if not resume:
                raise FileExistsError(f"{self.path} exists; give resume=True or another path")
            self.value, self.step = self._read_header()

    def update(self, value: float, state: Mapping[str, Tensor], *, step: int) -> bool:
        """Offer weights; they are saved if ``value`` is better than every one before.

        Args:
            value: Of the metric. Anything but a finite number loses.
            state: Tensors to save, as of ``model.state_dict()``.
            step: When it was reached, reported as :attr:`step`.

        Returns:
            Whether they were saved.

        Raises:
            TypeError: If ``state`` holds something other than tensors, or ``step`` is no integer.
            OSError: If the file cannot be written; the one before is still there.
        """
        # JSON takes no numbers of NumPy; a fraction would be cut off when the file is resumed.
        value, step = float(value), whole_number("step", step)
        if not self._better(value):
            return False
        header = {_KEY: json.dumps({"value": value, "step": step, "mode": self.mode})}
        write_atomically(self.path, packed(state, header))
        self.value, self.step = value, step
        return True

    def load(self) -> dict[str, Tensor]:
        """The best weights, on the CPU.

        Raises:
            FileNotFoundError: If nothing has been saved yet.
            ValueError: If the file is damaged.
        """
        if self.value is None:
            raise FileNotFoundError(f"{self.path}: no checkpoint has been saved yet")
        return read_tensors(self.path)

    def _better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.value is None:
            return True
        return value < self.value if self.mode == "min" else value > self.value

    def _read_header(self) -> tuple[float, int]:
        try:
            record = json.loads(read_metadata(self.path)[_KEY])
            mode, value, step = record["mode"], float(record["value"]), int(record["step"])
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{self.path} was not written by BestCheckpoint") from error
        if mode != self.mode:
            raise ValueError(f"{self.path} was chosen with mode={mode!r}, not {self.mode!r}")
        return value, step
