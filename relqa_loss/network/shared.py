"""Networks that functions share: one per weights, device and dtype, loaded at its first use."""

from __future__ import annotations

import os
import sys
import threading

import torch
from torch import Tensor

from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import WeightsRecord, find_weights, load_record, stamp

_networks: dict[tuple[str, str, torch.dtype], ParityNetwork] = {}
"""By hash of the weights, device and dtype."""
_records: dict[str, tuple[tuple[int, ...], WeightsRecord]] = {}
"""By name or path as it was given: what its files were then, and what was read of them."""
_lock = threading.Lock()


def network_for(
    weights: str | os.PathLike[str], device: torch.device, dtype: torch.dtype
) -> ParityNetwork:
    """The shared network for these weights, device and dtype; loaded at the first request, and
    when a file has been written anew."""
    record = weights if isinstance(weights, WeightsRecord) else _looked_up(weights)
    network = None if record is None else _networks.get((record.sha256, str(device), dtype))
    if network is not None:
        return network
    if record is None or torch.compiler.is_compiling():
        # Files cannot be read inside a graph. Without fullgraph=True this falls back to eager.
        raise RuntimeError(
            "call the function once before compiling it, or compile a RelationalLoss module"
        )
    # As a decorator, disable would import the compiler with this package: one second.
    started = "torch._dynamo" in sys.modules
    load = torch.compiler.disable(_load) if started else _load  # type: ignore[no-untyped-call]
    return load(record, device, dtype)


def _looked_up(weights: str | os.PathLike[str]) -> WeightsRecord | None:
    """What a name or path stands for now; while compiling, what it stood for when last asked, or
    None if it never was."""
    name = os.fspath(weights)
    known = _records.get(name)
    if not torch.compiler.is_compiling():
        now = stamp(weights)
        if known is None or (now and known[0] != now):
            known = _records[name] = (now, find_weights(weights))
    return None if known is None else known[1]


def network_dtype(preds: Tensor) -> torch.dtype:
    """Float64 for float64 images, else float32: half precision is not enough for differences."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


def _load(record: WeightsRecord, device: torch.device, dtype: torch.dtype) -> ParityNetwork:
    key = (record.sha256, str(device), dtype)
    with _lock:
        network = _networks.get(key)
        if network is None:
            network = load_record(record)
            with torch.inference_mode(False), torch._C._DisableFuncTorch():
                network = network.to(device=device, dtype=dtype)
            _networks[key] = network
        return network
