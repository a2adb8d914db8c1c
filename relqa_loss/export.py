"""The frozen network for other runtimes: ``torch.export`` programs and ONNX files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from relqa_loss._files import write_atomically
from relqa_loss.network._layout import GRID
from relqa_loss.network.model import ParityNetwork, Relation
from relqa_loss.network.pretrained import DEFAULT_WEIGHTS, find_weights, load_pretrained

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Output = Literal["distance", "score", "maps"]

_LARGEST = 65_536  # pixels of a side; images of a batch
_TOO_SMALL = 2  # below two, torch.export takes a size for a constant


class _Exported(nn.Module):
    def __init__(self, network: ParityNetwork, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(outputs)

    def forward(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        if self.outputs == ("distance",):
            encoded = self.network.encode(target)
            return (self.network.distance(encoded, preds),)
        relation: Relation = self.network(target, preds)
        return tuple(getattr(relation, name) for name in self.outputs)


def export_program(
    *,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    outputs: Sequence[Output] = get_args(Output),
) -> ExportedProgram:
    """The network as a program of ``torch.export``, for any batch and size.

    Args:
        weights: Name of shipped weights, or path of a ``.safetensors`` file.
        outputs: Which, and in which order. The distance alone costs a fraction of the rest.

    Returns:
        A program of ``(preds, target)``, both N×3×H×W in float32 and [0, 1], H and W multiples of
        :data:`GRID` from 32 on. It gives a tuple: distance (N), score (N), maps (N×K×H/4×W/4), by
        ``outputs``. Values outside [0, 1] are not checked, and there is no gradient.

    Raises:
        ValueError: For outputs that do not exist, none, or one twice.

    Example:
        >>> import torch
        >>> from relqa_loss import relational_distance
        >>> from relqa_loss.export import export_program
        >>> program = export_program(outputs=["distance"]).module()
        >>> preds, target = torch.rand(2, 3, 3, 64, 80)
        >>> torch.allclose(program(preds, target)[0].mean(), relational_distance(preds, target))
        True
    """
    unknown = [name for name in outputs if name not in get_args(Output)]
    if unknown or not outputs or len(set(outputs)) < len(outputs):
        raise ValueError(
            f"outputs must be some of {get_args(Output)}, each once, got {tuple(outputs)}"
        )
    module = _Exported(load_pretrained(weights), outputs).eval()
    batch = torch.export.Dim("batch", min=1, max=_LARGEST)
    rows, columns = (
        GRID * torch.export.Dim(name, min=_TOO_SMALL, max=_LARGEST // GRID)
        for name in ("rows", "columns")
    )
    # Sides that differ, and two tensors: equals would be taken for one and the same.
    preds, target = (
        # Not what a program has by default, which the network does not follow.
        torch.zeros(2, 3, 4 * GRID, 6 * GRID, device="cpu", dtype=torch.float32)
        for _ in range(2)
    )
    shape = {0: batch, 2: rows, 3: columns}
    return torch.export.export(module, (preds, target), dynamic_shapes=(shape, shape))


def export_onnx(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] = DEFAULT_WEIGHTS,
    outputs: Sequence[Output] = get_args(Output),
    overwrite: bool = False,
) -> Path:
    """Write the network as an ONNX file, for any batch and size.

    Inputs are ``preds`` and ``target``, outputs are named as in ``outputs``; both are as in
    :func:`export_program`. The file is complete in itself and names the weights in its metadata.

    Args:
        path: To write, ending in ``.onnx``.
        weights: As for :func:`export_program`.
        outputs: As for :func:`export_program`.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: As :func:`export_program`; or if the path has another suffix, or exists.
        ImportError: If onnx or onnxscript is not installed.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"the file must end in .onnx, got {path}")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path} exists; choose another name, or give overwrite=True (relqa export --overwrite)"
        )
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"writing ONNX needs {error.name}, which is not installed: "
            "pip install 'relqa-loss[export]'"
        ) from error
    record = find_weights(weights)
    program = export_program(weights=record, outputs=outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names of dimensions, which are the sizes' own
        written = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["preds", "target"],
            output_names=list(outputs),
        )
    if written is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = written.model_proto
    for key, value in (
        ("relqa_loss.weights", record.version),
        ("relqa_loss.channels", ",".join(record.config.channels)),
        ("relqa_loss.range", "[0, 1]"),
        ("relqa_loss.side", f"multiple of {GRID}, at least 32"),
    ):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    write_atomically(path, model.SerializeToString())
    return path
