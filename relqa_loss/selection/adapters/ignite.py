"""Selection in PyTorch-Ignite: a handler between an evaluator and a trainer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from relqa_loss.selection.adapters._names import bare_names
from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.shared import SharedSelection

try:
    from ignite.engine import Engine, Events
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "relqa_loss.selection.adapters.ignite needs PyTorch-Ignite: "
        "pip install 'relqa-loss[adapters]'"
    ) from error


class RelationalSelection:
    """Chooses checkpoints by the relational loss of what an evaluator puts out.

    The mean appears in ``evaluator.state.metrics`` as ``relational_loss`` (or
    ``relational_score``), for loggers and other handlers attached after this one. Runs of the
    evaluator during a training are checkpoints, and of validation images only; before it, one is
    of the untrained model. After it, in a new process too, they give the mean and nothing else.

    Args:
        folder: For weights and ledger, on the first process.
        scores: Metric and its options; the loss by default.
        output_transform: From the evaluator's output to ``(preds, target)`` or
            ``(preds, target, keys)``.
        options: Further ones of :class:`~relqa_loss.selection.CheckpointSelector`.

    Attributes:
        decision: The last decision.

    Raises:
        ValueError: For unknown options, or outputs without images.

    Example:
        >>> import tempfile, torch
        >>> from ignite.engine import Engine
        >>> from torch import nn
        >>> from relqa_loss.selection.adapters.ignite import RelationalSelection
        >>> model = nn.Identity()
        >>> evaluator = Engine(lambda engine, image: (model(image), image))
        >>> trainer = Engine(lambda engine, image: None)
        >>> selection = RelationalSelection(tempfile.mkdtemp())
        >>> selection.attach(evaluator, trainer, model)
        >>> evaluator.run([torch.rand(2, 3, 32, 32)]).metrics
        {'relational_loss': 0.0}
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        scores: ImageScores | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        self._shared = SharedSelection(folder, scores, **options)
        self._transform = output_transform
        self._training = False

    @property
    def selector(self) -> CheckpointSelector | None:
        """On the first process, once attached."""
        return self._shared.selector

    @property
    def decision(self) -> Decision | None:
        """The last decision, on all processes."""
        return self._shared.decision

    def attach(self, evaluator: Engine, trainer: Engine, model: nn.Module) -> None:
        """Open the folder and follow the evaluator.

        Args:
            evaluator: Its output is ``(preds, target)`` or ``(preds, target, keys)``.
            trainer: Its iteration is the step.
            model: Its weights are kept; wrappers (distributed, compiled) are looked
                through.
        """
        self._shared.open()
        trainer.add_event_handler(Events.STARTED, self._set_training, True)
        trainer.add_event_handler(Events.COMPLETED, self._set_training, False)
        evaluator.add_event_handler(Events.EPOCH_STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._finish, trainer, model)

    def _set_training(self, training: bool) -> None:
        self._training = training

    def _start(self, engine: Engine) -> None:
        self._shared.scores.reset()

    def _add(self, engine: Engine) -> None:
        output: Any = engine.state.output
        images = output if self._transform is None else self._transform(output)
        if not isinstance(images, tuple | list) or len(images) not in (2, 3):
            raise ValueError(
                "RelationalSelection needs (preds, target) or (preds, target, keys) from the "
                f"evaluator: give output_transform=; got {type(images).__name__}"
            )
        self._shared.scores.add(*images)

    def _finish(self, engine: Engine, trainer: Engine, model: nn.Module) -> None:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        step, scores = trainer.state.iteration, self._shared.scores
        if self._counts(step):
            mean = self._shared.decide(step, bare_names(model.state_dict())).mean
        else:
            mean = self._shared.gathered().mean
            scores.reset()
        engine.state.metrics[scores.name] = mean

    def _counts(self, step: int) -> bool:
        """Not an evaluation of trained weights, which may be of any step and on any images."""
        if self._training:
            return True
        # A new trainer begins at step 0. Other handlers of the end of a training come after ours,
        # and one of them may validate its last step, if nothing has before.
        return not (self._shared.has(step) if step else self._shared.begun())
