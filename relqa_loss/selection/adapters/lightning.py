"""Selection in Lightning: a callback that scores, logs, chooses and keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.shared import SharedSelection

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "relqa_loss.selection.adapters.lightning needs Lightning: "
        "pip install 'relqa-loss[adapters]'"
    ) from error

Pairs = Callable[[Any, Any], Mapping[str, Any]]
"""``(outputs of validation_step, batch) → {"preds": …, "target": …, "keys": … or absent}``."""


class RelationalSelection(Callback):  # type: ignore[misc, unused-ignore]
    """Chooses checkpoints by the relational loss of the validation images.

    ``validation_step`` returns ``{"preds": …, "target": …}``, and ``"keys"`` if it can: with
    several processes, or shuffled images, keys are what pairs the scores. The mean is logged as
    ``val/relational_loss`` (or ``val/relational_distance``) before ``ModelCheckpoint`` looks for
    it, so ``ModelCheckpoint(monitor="val/relational_loss", mode="min")`` works as well:
    :attr:`monitor` and :attr:`mode` are what it needs. Where averaged weights are validated, as by
    Lightning's ``EMAWeightAveraging``, those are kept. Images of several validation loaders count
    together. ``trainer.validate(model)`` before
    ``trainer.fit`` makes the untrained model step 0; the sanity check does not count, nor does a
    validation of trained weights, which gives the mean and nothing else.
    ``Trainer(fast_dev_run=True)`` leaves the folder alone.

    Args:
        folder: For weights and ledger, on the first process.
        scores: Metric and its options; the loss by default.
        pairs: Takes images from the outputs of ``validation_step`` and the batch.
        options: Further ones of :class:`~relqa_loss.selection.CheckpointSelector`.

    Attributes:
        decision: The last decision.

    Raises:
        ValueError: For unknown options, or outputs without images.

    Example:
        >>> import tempfile
        >>> from relqa_loss.selection.adapters.lightning import RelationalSelection
        >>> callback = RelationalSelection(tempfile.mkdtemp(), veto={"ringing": 0.02})
        >>> callback.monitor, callback.mode
        ('val/relational_loss', 'min')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        scores: ImageScores | None = None,
        pairs: Pairs | None = None,
        **options: Any,
    ) -> None:
        self._run = self._shared = SharedSelection(folder, scores, **options)
        self._pairs = pairs
        self._counting = False

    @property
    def monitor(self) -> str:
        """The name under which the mean is logged."""
        return f"val/{self._shared.scores.name}"

    @property
    def mode(self) -> str:
        """``min`` or ``max``, for ``ModelCheckpoint``."""
        return self._shared.scores.mode

    @property
    def selector(self) -> CheckpointSelector | None:
        """On the first process, once the run has begun."""
        return self._shared.selector

    @property
    def decision(self) -> Decision | None:
        """The last decision, on all processes."""
        return self._shared.decision

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the folder, so that one that cannot be written to is found out at once."""
        if stage in ("fit", "validate"):
            # Callbacks that validate averaged weights put the trained ones back at the end of it,
            # in the order of the list: the weights that were scored have to be taken before.
            run: Any = trainer  # its class does not declare what is used here
            run.callbacks = sorted(run.callbacks, key=lambda callback: callback is not self)
            self._shared = self._run
            if run.fast_dev_run:
                # Lightning leaves no checkpoints of it; a ledger would stop the run itself.
                self._shared = SharedSelection(None, self._run.scores, **self._run.options)
            self._shared.open()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._shared.scores.reset()
        self._counting = self._counts(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score a batch."""
        if trainer.sanity_checking:
            return
        images = outputs if self._pairs is None else self._pairs(outputs, batch)
        if not isinstance(images, Mapping) or not {"preds", "target"} <= images.keys():
            raise ValueError(
                "RelationalSelection needs images: return {'preds': …, 'target': …} from "
                f"validation_step, or give pairs=; got {type(images).__name__}"
            )
        self._shared.scores.add(images["preds"], images["target"], images.get("keys"))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, if it counts, and log the mean."""
        if trainer.sanity_checking:
            return
        if self._counting:
            # On all processes: some strategies gather the weights here.
            state = trainer.strategy.lightning_module_state_dict()
            mean = self._shared.decide(trainer.global_step, state).mean
        else:
            mean = self._shared.gathered().mean
            self._shared.scores.reset()
        pl_module.log(self.monitor, mean, rank_zero_only=False, sync_dist=True)

    def _counts(self, trainer: Trainer) -> bool:
        """Not the sanity check, nor a validation after training, of whatever weights."""
        if trainer.sanity_checking:
            return False
        if trainer.state.fn == TrainerFn.FITTING:
            return True
        # A new trainer begins at step 0, whatever its model has been through.
        return trainer.global_step == 0 and not trainer.ckpt_path and not self._shared.begun()
