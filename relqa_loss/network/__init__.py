"""The parity network: encoder, parity blocks, heads, and loading of shipped weights."""

from relqa_loss.network.config import NetworkConfig
from relqa_loss.network.model import MAP_STRIDE, Encoding, ParityNetwork, Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights, freeze, load_pretrained

__all__ = [
    "DEFAULT_WEIGHTS",
    "MAP_STRIDE",
    "Encoding",
    "NetworkConfig",
    "ParityNetwork",
    "Relation",
    "find_weights",
    "freeze",
    "load_pretrained",
]
