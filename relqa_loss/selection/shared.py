"""One selection for all processes of a run: scores are gathered, one process decides and writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist

from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.veto import check_veto

_Result = TypeVar("_Result")


class SharedSelection:
    """A :class:`CheckpointSelector` behind which any number of processes stand.

    Adapters to training frameworks are built on it. All processes make one and call
    :meth:`decide`; the first one opens the folder, and errors there are raised everywhere, so that
    no process waits for one that has stopped.

    Args:
        folder: Of the selector; ``None`` keeps scores only.
        scores: Collects the images; gives ``mode``, ``metric`` and ``version`` of the selector.
        options: Further ones of :class:`CheckpointSelector`.

    Attributes:
        scores: To be filled between decisions.
        selector: On the first process, once opened; ``None`` elsewhere.
        decision: The last one, on all processes.

    Raises:
        ValueError: If an option contradicts the scores, or a veto names no channel of theirs.

    Example:
        >>> import tempfile, torch
        >>> from relqa_loss.selection.shared import SharedSelection
        >>> selection = SharedSelection(tempfile.mkdtemp())
        >>> selection.scores.add(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
        >>> selection.decide(0, {}).chosen
        True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        scores: ImageScores | None = None,
        **options: Any,
    ) -> None:
        self.scores = ImageScores() if scores is None else scores
        for name in ("mode", "metric", "version"):
            given = options.setdefault(name, getattr(self.scores, name))
            if given != getattr(self.scores, name):
                raise ValueError(
                    f"{name}={given!r} contradicts scores of the {self.scores.metric}: leave it out"
                )
        if options.get("veto") and not self.scores.maps:
            raise ValueError(
                f"veto={options['veto']!r} needs mean signed maps, and the scores leave them out: "
                "give ImageScores(maps=True)"
            )
        # The selector would find out with the first profile, after an epoch.
        check_veto(options.get("veto"), self.scores.channels)
        self.folder = folder
        self.options = options
        self.selector: CheckpointSelector | None = None
        self.decision: Decision | None = None
        self._opened = False

    def open(self) -> None:
        """Open the folder on the first process; called by all, once they are connected.

        Raises:
            Exception: Whatever :class:`CheckpointSelector` raises.
        """
        # Not "if there is no selector": the other processes never have one.
        if not self._opened:
            self._on_first(self._open)
            self._opened = True

    def begun(self) -> bool:
        """Whether the ledger has a checkpoint after step 0, the same on all processes.

        All call it. An evaluation outside training is then of trained weights, which are not
        step 0, whatever a trainer that has just been made says.

        Raises:
            Exception: Whatever :class:`CheckpointSelector` raises.
        """
        self.open()
        return self._on_first(
            lambda: self.selector is not None and any(e.step > 0 for e in self.selector.entries)
        )

    def has(self, step: int) -> bool:
        """Whether the ledger has a checkpoint of this step, the same on all processes.

        All call it.

        Raises:
            Exception: Whatever :class:`CheckpointSelector` raises.
        """
        self.open()
        return self._on_first(
            lambda: self.selector is not None and any(e.step == step for e in self.selector.entries)
        )

    def gathered(self) -> ImageScores:
        """The scores of all processes, each of which holds those of its own images only."""
        if not _connected():
            return self.scores
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self.scores)
        return self.scores.gathered(parts)

    def decide(
        self, step: int, state: Mapping[str, Any] | None, *, gather: bool = True
    ) -> Decision:
        """Offer the checkpoint that has been scored, and forget its scores.

        Args:
            step: When it was reached.
            state: Tensors to save, used on the first process only.
            gather: Whether each process holds the scores of its own images only.

        Returns:
            The decision, the same on all processes.

        Raises:
            ValueError: If no image was scored.
            Exception: Whatever :meth:`CheckpointSelector.update` raises.
        """
        self.open()
        scores = self.gathered() if gather else self.scores

        def update() -> Decision:
            if self.selector is None:
                raise RuntimeError("the selector has not been opened on this process")
            profile = scores.profile if len(scores) and scores.maps else None
            return self.selector.update(step, scores.values, state=state, profile=profile)

        try:
            self.decision = self._on_first(update)
        finally:
            self.scores.reset()
        return self.decision

    def _open(self) -> None:
        self.selector = CheckpointSelector(self.folder, **self.options)

    def _on_first(self, act: Callable[[], _Result]) -> _Result:
        """Run on the first process and give its result, or its error, to all."""
        if not _connected():
            return act()
        message: list[Any] = [None, None]
        error: Exception | None = None
        if dist.get_rank() == 0:
            try:
                message = [act(), None]
            except Exception as caught:
                error, message = caught, [None, f"{type(caught).__name__}: {caught}"]
        dist.broadcast_object_list(message)
        if error is not None:
            raise error
        if message[1] is not None:
            raise RuntimeError(f"selection failed on the first process: {message[1]}")
        result: _Result = message[0]
        return result


def _connected() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
