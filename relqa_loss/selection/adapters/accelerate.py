"""Selection with Accelerate: every process scores its images, the first one writes."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from relqa_loss.selection.adapters._names import bare_names
from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores, Keys, names_of
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.shared import SharedSelection

try:
    from accelerate import Accelerator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "relqa_loss.selection.adapters.accelerate needs Accelerate: "
        "pip install 'relqa-loss[adapters]'"
    ) from error


class RelationalSelection:
    """Chooses checkpoints by the relational loss, in a loop written for Accelerate.

    Images that a prepared data loader repeats to fill the last batch count once.

    Args:
        accelerator: Of the loop.
        folder: For weights and ledger, on the first process.
        scores: Metric and its options; the loss by default.
        options: Further ones of :class:`~relqa_loss.selection.CheckpointSelector`.

    Attributes:
        decision: The last decision.

    Raises:
        ValueError: For unknown options.
        OSError: If the folder cannot be written to; ``RuntimeError`` on the other processes.

    Example:
        >>> import tempfile, torch
        >>> from accelerate import Accelerator
        >>> from torch import nn
        >>> from relqa_loss.selection.adapters.accelerate import RelationalSelection
        >>> accelerator = Accelerator(cpu=True)
        >>> selection = RelationalSelection(accelerator, tempfile.mkdtemp())
        >>> selection.add(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
        >>> selection.decide(0, nn.Linear(1, 1)).chosen
        True
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: str | os.PathLike[str],
        *,
        scores: ImageScores | None = None,
        **options: Any,
    ) -> None:
        self._accelerator = accelerator
        self._shared = SharedSelection(folder, scores, **options)
        self._shared.open()

    @property
    def selector(self) -> CheckpointSelector | None:
        """On the first process."""
        return self._shared.selector

    @property
    def decision(self) -> Decision | None:
        """The last decision, on all processes."""
        return self._shared.decision

    def add(self, preds: Tensor, target: Tensor, keys: Keys | None = None) -> None:
        """Score a batch on its process and gather the results; all processes call it.

        Args:
            preds: N×3×H×W or N×1×H×W in ``[0, data_range]``, sides ≥ 32.
            target: The references, of the same shape.
            keys: A name or number per image, if their order is not always the same.
        """
        scores = self._shared.scores
        rows = scores.measure(preds, target)
        if self._accelerator.num_processes == 1:
            # Nothing to gather, and a batch of a loader that was not prepared, inside the last step
            # of one that was, would be cut to the length of the other's last batch.
            scores.add_rows(rows.tolist(), keys)
            return
        rows = self._accelerator.gather_for_metrics(rows)
        if keys is not None:
            keys = self._accelerator.gather_for_metrics(names_of(keys), use_gather_object=True)
        scores.add_rows(rows.tolist(), keys)

    def reset(self) -> None:
        """Forget the images of a validation that was stopped half-way; all processes call it.

        Nothing tells this class that a validation begins: after an interrupt that the loop, or the
        notebook, survives, the next one would be added to what is left.
        """
        self._shared.scores.reset()

    def decide(self, step: int, model: nn.Module) -> Decision:
        """Offer the checkpoint that has been scored; all processes call it.

        Args:
            step: When it was reached.
            model: Prepared or not; its weights are saved as of the bare model.

        Returns:
            The decision, the same on all processes.

        Raises:
            ValueError: If no image was added, or others than at the first checkpoint; then they are
                forgotten, and the validation can be done again.
            Exception: Whatever else :meth:`~relqa_loss.selection.CheckpointSelector.update` raises;
                ``RuntimeError`` on the other processes.
        """
        state = bare_names(self._accelerator.get_state_dict(model))
        return self._shared.decide(step, state, gather=False)
