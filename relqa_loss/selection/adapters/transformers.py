"""Selection in the Hugging Face Trainer: ``compute_metrics`` and a callback that share scores."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from relqa_loss.selection.ledger import Decision
from relqa_loss.selection.scores import ImageScores
from relqa_loss.selection.selector import CheckpointSelector
from relqa_loss.selection.shared import SharedSelection

try:
    from transformers import (
        EvalPrediction,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "relqa_loss.selection.adapters.transformers needs transformers and accelerate: "
        "pip install 'relqa-loss[adapters]'"
    ) from error

# Images go through the network in batches of this many.
_BATCH = 8


class RelationalMetrics:
    """``compute_metrics`` for a ``Trainer`` whose model restores images.

    Gives ``relational_loss`` (or ``relational_score``) and the mean signed map of every
    channel. Works with ``batch_eval_metrics=True``, which holds one batch of images in memory
    instead of all of them.

    Args:
        scores: Metric and its options; the loss by default.
        metric_prefix: Of the evaluation that decides, as the trainer puts it before the names of
            its metrics: ``"eval"``, or ``"eval_hard"`` for one of
            ``eval_dataset={"easy": …, "hard": …}``.

    Example:
        >>> import torch
        >>> from transformers import EvalPrediction
        >>> from relqa_loss.selection.adapters.transformers import RelationalMetrics
        >>> metrics, images = RelationalMetrics(), torch.rand(2, 3, 32, 32).numpy()
        >>> metrics(EvalPrediction(images, images))["relational_loss"]
        0.0
        >>> metrics.best_model_arguments()
        {'metric_for_best_model': 'eval_relational_loss', 'greater_is_better': False}
    """

    def __init__(self, scores: ImageScores | None = None, *, metric_prefix: str = "eval") -> None:
        self.scores = ImageScores() if scores is None else scores
        self.metric_prefix = metric_prefix
        self._complete = True

    def reset(self) -> None:
        """Forget the batches of an evaluation that was stopped half-way; the next begins anew."""
        self.scores.reset()
        self._complete = True

    def best_model_arguments(self) -> dict[str, Any]:
        """For ``TrainingArguments``, which takes any metric not named ``…loss`` for a gain."""
        return {
            "metric_for_best_model": f"{self.metric_prefix}_{self.scores.name}",
            "greater_is_better": self.scores.mode == "max",
        }

    def __call__(
        self, prediction: EvalPrediction, compute_result: bool | None = None
    ) -> dict[str, float]:
        """Score all images, or one batch of them.

        Args:
            prediction: ``predictions`` and ``label_ids``, each N×3×H×W.
            compute_result: ``None`` for all images; for one batch, whether it is the last.

        Returns:
            The metrics; none before the last batch.

        Raises:
            ValueError: For anything but images.
        """
        if compute_result is None or self._complete:
            self.scores.reset()
        preds, target = _tensor(prediction.predictions), _tensor(prediction.label_ids)
        for start in range(0, max(len(preds), len(target)), _BATCH):
            part = slice(start, start + _BATCH)
            self.scores.add(preds[part], target[part])
        self._complete = compute_result is not False
        if not self._complete:
            return {}
        profile = {f"{name}_signed": value for name, value in self.scores.profile.items()}
        return {self.scores.name: self.scores.mean, **profile}


class RelationalSelection(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Chooses checkpoints by the scores that :class:`RelationalMetrics` has just computed.

    Independent of ``load_best_model_at_end``: it saves what it keeps itself. ``trainer.evaluate()``
    before ``trainer.train()`` makes the untrained model step 0; after a training, in a new trainer
    too, it does not count. Nor do evaluations under another prefix than that of ``metrics``, so of
    several validation sets one decides.

    Args:
        folder: For weights and ledger, on the first process.
        metrics: What the trainer has as ``compute_metrics``.
        options: Further ones of :class:`~relqa_loss.selection.CheckpointSelector`.

    Attributes:
        decision: The last decision.

    Raises:
        ValueError: For unknown options, if the trainer does not use ``metrics``, or if it evaluates
            sets of which none has the prefix.

    Example:
        >>> import tempfile
        >>> from relqa_loss.selection.adapters.transformers import (
        ...     RelationalMetrics,
        ...     RelationalSelection,
        ... )
        >>> metrics = RelationalMetrics()
        >>> callback = RelationalSelection(tempfile.mkdtemp(), metrics)
        >>> # Trainer(..., compute_metrics=metrics, callbacks=[callback])
    """

    def __init__(
        self, folder: str | os.PathLike[str], metrics: RelationalMetrics, **options: Any
    ) -> None:
        self._shared = SharedSelection(folder, metrics.scores, **options)
        self._metrics = metrics
        self._others: set[str] = set()
        self._training = self._decided = False

    @property
    def selector(self) -> CheckpointSelector | None:
        """On the first process, once the run has begun."""
        return self._shared.selector

    @property
    def decision(self) -> Decision | None:
        """The last decision, on all processes."""
        return self._shared.decision

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the folder, so that one that cannot be written to is found out at once."""
        self._training, self._decided, self._others = True, False, set()
        # A training that was interrupted in an evaluation, as in a notebook, leaves a part of it.
        self._metrics.reset()
        self._shared.open()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluations from here on are of whatever weights: they do not count."""
        self._training = False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide."""
        # A new trainer begins at step 0, whatever its model has been through.
        if not self._training and (state.global_step > 0 or self._shared.begun()):
            return
        scores, ending = self._shared.scores, f"_{self._shared.scores.name}"
        prefixes = {key.removesuffix(ending) for key in kwargs["metrics"] if key.endswith(ending)}
        if not len(scores) or not prefixes:
            raise ValueError(
                "RelationalSelection found no scores: give the trainer the same object as "
                "compute_metrics=, or return what it returns"
            )
        if self._metrics.metric_prefix not in prefixes:
            scores.reset()
            self._pass_over(prefixes)
            return
        model = kwargs["model"]
        # Predictions were gathered by the trainer: every process holds the scores of all images.
        self._shared.decide(state.global_step, model.state_dict(), gather=False)
        self._decided = True

    def _pass_over(self, prefixes: set[str]) -> None:
        """Note an evaluation that does not decide; in training, only such ones are an error."""
        ours = self._metrics.metric_prefix
        # What the trainer evaluates by itself begins so.
        found = {prefix for prefix in prefixes if prefix.startswith("eval_")}
        again = found & self._others
        self._others |= found
        # The trainer tells a callback nothing of its sets. It evaluates all of them in turn, so
        # one that comes again before ours has come, and any but a single one, tell as much.
        if self._training and not self._decided and (again or (found and ours == "eval")):
            others = sorted(self._others)
            raise ValueError(
                f"RelationalSelection goes by the evaluation {ours!r}, and the trainer makes "
                f"{', '.join(others)}: say which one decides, as by "
                f"RelationalMetrics(metric_prefix={others[0]!r}), and evaluate further images "
                "under a prefix that does not begin with eval_"
            )


def _tensor(images: Any) -> Tensor:
    if isinstance(images, tuple | list) and len(images) == 1:
        images = images[0]
    try:
        tensor = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "RelationalMetrics needs predictions and labels to be images N×3×H×W, got "
            f"{type(images).__name__}; preprocess_logits_for_metrics can pick them"
        ) from error
    return tensor
