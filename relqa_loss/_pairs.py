"""What a network says of prepared images, a few of them at a time where there are many."""

from __future__ import annotations

import torch
from torch import Tensor

from relqa_loss._parts import in_parts, values_in_parts
from relqa_loss.network.model import Encoding, ParityNetwork, Relation


def relations(
    network: ParityNetwork,
    image: Tensor,
    reference: Tensor,
    factors: Tensor | None,
    cells: Tensor | None,
) -> Relation:
    """Maps, scores and distances.

    Args:
        network: Frozen or not.
        image: N×3×H×W in [0, 1].
        reference: The same.
        factors: Of the channels.
        cells: Weights of the maps' cells.
    """

    def values(image: Tensor, reference: Tensor, cells: Tensor | None) -> Relation:
        encoded = encode_reference(network, reference)
        return network.relate(encoded, network.encode(image), factors, cells)

    return in_parts(values, image, reference, cells, maps=True)


def distances(
    network: ParityNetwork,
    image: Tensor,
    reference: Tensor,
    factors: Tensor | None,
    cells: Tensor | None,
    *,
    structure: bool = True,
) -> Tensor:
    """The distances of :func:`relations` alone.

    Without ``structure``, those that a loss minimises, see
    :meth:`~relqa_loss.network.ParityNetwork.encode`.
    """

    def values(image: Tensor, reference: Tensor, cells: Tensor | None) -> Tensor:
        encoded = encode_reference(network, reference, structure=structure)
        return network.distance(encoded, image, factors, cells)

    return values_in_parts(values, image, reference, cells, maps=factors is not None)


def maps_and_distances(
    network: ParityNetwork,
    image: Tensor,
    reference: Tensor,
    factors: Tensor | None,
    cells: Tensor | None,
    *,
    structure: bool = True,
) -> tuple[Tensor, Tensor]:
    """What :func:`relations` gives but for the scores, which cost a second distance.

    ``structure`` is as for :func:`distances`.
    """

    def values(image: Tensor, reference: Tensor, cells: Tensor | None) -> tuple[Tensor, Tensor]:
        encoded = encode_reference(network, reference, structure=structure)
        return network.maps_and_distance(encoded, image, factors, cells)

    return in_parts(values, image, reference, cells, maps=True)


def maps(network: ParityNetwork, image: Tensor, reference: Tensor) -> Tensor:
    """The maps of :func:`relations` alone."""
    return in_parts(network.distortion_maps, reference, image, maps=True)


def encode_reference(
    network: ParityNetwork, reference: Tensor, *, structure: bool = True
) -> Encoding:
    """The reference's encoding, recording gradients only if it asks for them."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and reference.requires_grad):
        return network.encode(reference, structure=structure)
