"""Signed maps in the logger that a training run already has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relqa_loss._inputs import check_options, check_pair
from relqa_loss._numbers import whole_number
from relqa_loss.functional import relate
from relqa_loss.network.model import Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights
from relqa_loss.network.shared import network_dtype, network_for
from relqa_loss.plotting import plot_relation
from relqa_loss.words import describe

Picture = NDArray[np.uint8]
"""H×W×3."""


def log_relation(
    logger: Any,
    preds: Tensor,
    target: Tensor,
    step: int,
    *,
    tag: str = "relqa",
    images: int = 1,
    channels: int = 6,
    data_range: float = 1.0,
    weights: str | Path = DEFAULT_WEIGHTS,
) -> None:
    """Draw target, prediction and signed maps, and hand the pictures to a logger.

    One pass of the network for ``images`` pairs without gradients, then about half a second per
    picture: see :class:`MapLogger` for a loop that cares.

    Args:
        logger: A TensorBoard ``SummaryWriter``; a W&B run, or the module ``wandb`` after ``init``;
            the module ``mlflow`` with a run that is active; a logger of Lightning for any of them;
            or a function ``(tag, picture, step)`` that takes H×W×3 arrays of 8 bits.
        preds: N×3×H×W (or N×1×H×W) in [0, ``data_range``]; values outside are clipped.
        target: The same shape.
        step: Of the training run.
        tag: Name in the logger; pictures are ``tag/0``, ``tag/1`` and so on.
        images: How many of the batch, from the first on.
        channels: How many maps, the strongest ones.
        data_range: Of the images.
        weights: Name or path.

    Raises:
        TypeError: If the logger is none of these, or ``images`` or ``channels`` no integer.
        ValueError: For images that cannot be compared, or fewer than one of them; for weights that
            are unknown.
        ImportError: If Matplotlib, or W&B for its runs, is not installed.

    Example:
        >>> import torch
        >>> from relqa_loss.loggers import log_relation
        >>> target = torch.rand(2, 3, 64, 64)
        >>> log_relation(lambda tag, picture, step: print(tag, step), 0.8 * target, target, step=10)
        relqa/0 10
    """
    log = _writer(logger)
    _check_options(images=images, channels=channels, data_range=data_range)
    check_pair(preds, target, data_range)  # as they were given: parts of two batches may fit
    first, reference = (each[:images].detach() for each in (preds, target))
    with torch.no_grad():
        relation = relate(
            first, reference, data_range=data_range, weights=weights, on_out_of_range="clamp"
        )
    # The network that has just been used, so that nothing is looked up anew.
    names = network_for(weights, first.device, network_dtype(first)).channels
    for row in range(len(first)):
        single = Relation(*(part[row : row + 1] for part in relation))
        one, other = (each[row].float() / data_range for each in (reference, first))
        words = describe(single.maps[0], one.expand(3, -1, -1).clamp(0, 1), channels=names)
        figure = plot_relation(
            one, other, single, channels=channels, names=names, title=f"step {step}: {words}"
        )
        log(f"{tag}/{row}", _rendered(figure), step)


class MapLogger:
    """:func:`log_relation`, now and then: never more than a stated share of the run's time.

    It measures what a drawing takes and sits out until that is ``share`` of the time since. Calls
    in between cost a look at the clock: no pass of the network, no copy from the device.

    Args:
        logger: As for :func:`log_relation`; ``None`` never draws, for all processes but the first.
        every: Draw at multiples of this step only.
        share: Most of the time that drawings may take, in (0, 1].
        options: Further ones of :func:`log_relation`.

    Raises:
        TypeError: If the logger is not one of those, an option is none, or ``every``, ``images`` or
            ``channels`` no integer.
        ValueError: If ``every`` is less than 1 or ``share`` outside its range, and for options that
            :func:`log_relation` refuses.
        FileNotFoundError: If weights given as a path do not exist.

    Example:
        >>> import torch
        >>> from relqa_loss.loggers import MapLogger
        >>> drawn = []
        >>> maps = MapLogger(lambda tag, picture, step: drawn.append(step), every=10)
        >>> target = torch.rand(1, 3, 64, 64)
        >>> [maps(0.8 * target, target, step) for step in (0, 5, 10)]  # 10 is too soon after 0
        [True, False, False]
    """

    def __init__(self, logger: Any, *, every: int = 1, share: float = 0.02, **options: Any) -> None:
        whole_number("every", every)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        _check_options(**options)  # not at the first drawing, after an epoch
        self._log = None if logger is None or _of_another_process(logger) else _writer(logger)
        self._every, self._share, self._options = every, share, options
        self._rest_until = -float("inf")

    def __call__(self, preds: Tensor, target: Tensor, step: int) -> bool:
        """Draw if it is time to; whether it was. Shapes as for :func:`log_relation`."""
        if self._log is None or step % self._every or time.monotonic() < self._rest_until:
            return False
        began = time.monotonic()
        log_relation(self._log, preds, target, step, **self._options)
        spent = time.monotonic() - began
        self._rest_until = began + spent / self._share
        return True


def _check_options(
    *,
    tag: str = "relqa",
    images: int = 1,
    channels: int = 6,
    data_range: float = 1.0,
    weights: str | Path | None = None,
) -> None:
    """Options of :func:`log_relation`, of which Python refuses others; weights only if given."""
    whole_number("images", images)
    whole_number("channels", channels)
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    if channels < 0:
        raise ValueError(f"channels must not be negative, got {channels}")
    check_options(data_range)
    if weights is not None:
        find_weights(weights)


def _of_another_process(logger: Any) -> bool:
    """Whether it is a logger of Lightning that throws away what it gets."""
    experiment = getattr(logger, "experiment", None)
    return type(experiment).__name__ == "_DummyExperiment"


Write = Callable[[str, Picture, int], None]


def _writer(logger: Any) -> Write:
    """How to hand over a picture, by what the logger can do."""
    if hasattr(logger, "experiment"):
        return _of_lightning(logger)
    if hasattr(logger, "add_image"):
        return lambda tag, picture, step: logger.add_image(tag, picture, step, dataformats="HWC")
    if hasattr(logger, "define_metric") and hasattr(logger, "log"):
        return _wandb_writer(logger)
    if hasattr(logger, "log_image") and hasattr(logger, "active_run"):
        return lambda tag, picture, step: logger.log_image(picture, key=tag, step=step)
    if callable(logger):
        return lambda tag, picture, step: logger(tag, picture, step)
    raise TypeError(
        "the logger must be a SummaryWriter, a W&B run, the module mlflow, a logger of Lightning "
        f"or a function (tag, picture, step), got {type(logger).__name__}"
    )


def _of_lightning(logger: Any) -> Write:
    experiment = logger.experiment
    run = getattr(logger, "run_id", None)
    if run is not None and hasattr(experiment, "log_image"):  # an MlflowClient
        return lambda tag, picture, step: experiment.log_image(run, picture, key=tag, step=step)
    return _writer(experiment)


def _wandb_writer(run: Any) -> Write:
    def write(tag: str, picture: Picture, step: int) -> None:
        import wandb

        # An axis of their own, since W&B drops what comes with an earlier step than its latest;
        # and of no more than the pictures, or curves beside them would be drawn over it.
        group = tag.rpartition("/")[0]
        axis = f"{group}/step"
        run.define_metric(f"{group}/*", step_metric=axis)
        run.log({tag: wandb.Image(picture), axis: step})

    return write


def _rendered(figure: Any) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    picture: Picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return picture
