"""Images of mixed sizes: one batch for each size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor


class SizeGroup(NamedTuple):
    """Pairs of one size, in a batch."""

    rows: Tensor
    """Where they stood, int64, of shape n: ``values[group.rows] = criterion(...)``."""
    preds: Tensor
    """n×C×H×W."""
    target: Tensor
    """n×C×H×W."""


def by_size(preds: Sequence[Tensor], target: Sequence[Tensor]) -> Iterator[SizeGroup]:
    """Batches of images that have the same size, from images that have not.

    Padding images to a common size would change what is seen at their borders; this does not: the
    values are those of each pair by itself, to rounding. Gradients flow to the images that
    were given.

    Args:
        preds: N images, each C×H×W, of any sizes.
        target: As many, each of the size of its image.

    Yields:
        One group for each size, dtype and device, in the order of their first images.

    Raises:
        TypeError: If something else than tensors is given; a batch N×C×H×W has one size already.
        ValueError: If there are no pairs, or images are not of their reference's shape.

    Example:
        >>> import torch
        >>> from relqa_loss import RelationalLoss
        >>> from relqa_loss.batching import by_size
        >>> target = [torch.rand(3, 64, 64), torch.rand(3, 48, 80), torch.rand(3, 64, 64)]
        >>> preds = [image * 0.9 for image in target]
        >>> criterion, values = RelationalLoss(reduction="none"), torch.empty(3)
        >>> for group in by_size(preds, target):
        ...     values[group.rows] = criterion(group.preds, group.target)
        >>> [len(group.rows) for group in by_size(preds, target)]
        [2, 1]
    """
    _check(preds, target)
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, (image, reference) in enumerate(zip(preds, target, strict=True)):
        kinds = (each for pair in (image, reference) for each in (pair.dtype, pair.device))
        groups.setdefault((image.shape, *kinds), []).append(row)
    for rows in groups.values():
        yield SizeGroup(
            torch.tensor(rows, device=preds[rows[0]].device),
            torch.stack([preds[row] for row in rows]),
            torch.stack([target[row] for row in rows]),
        )


def _check(preds: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    given: tuple[tuple[str, object], ...] = (("preds", preds), ("target", target))
    for name, images in given:
        if isinstance(images, Tensor):
            raise TypeError(
                f"{name} must be a sequence of images C×H×W, got one tensor of shape "
                f"{tuple(images.shape)}: a batch has one size and needs no grouping"
            )
        for row, image in enumerate(cast(Sequence[object], images)):
            if not isinstance(image, Tensor):
                raise TypeError(f"{name}[{row}] must be a tensor, got {type(image).__name__}")
            if image.ndim != 3:
                raise ValueError(f"{name}[{row}] must be C×H×W, got shape {tuple(image.shape)}")
    if not len(preds) or len(preds) != len(target):
        raise ValueError(
            f"preds and target must be as many images, and at least one: got {len(preds)} and "
            f"{len(target)}"
        )
    for row, (image, reference) in enumerate(zip(preds, target, strict=True)):
        if image.shape != reference.shape:
            raise ValueError(
                f"preds[{row}] has shape {tuple(image.shape)}, target[{row}] has "
                f"{tuple(reference.shape)}: an image must be of its reference's size"
            )
