"""``relqa export``: the network as a file for other runtimes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "export",
        help="write the network as ONNX",
        description="Write the network as an ONNX file: preds and target, N×3×H×W in [0, 1], for "
        "any batch and for sides that are multiples of 16.",
    )
    parser.add_argument("out", type=Path, help="file to write (.onnx)")
    parser.add_argument("--weights", default="relqa-base", help="name or path")
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=["distance", "score", "maps"],
        choices=["distance", "score", "maps"],
        help="what it gives; the distance alone is the quickest",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.export import export_onnx
    from relqa_loss.network.pretrained import find_weights

    # The exporter reports every graph pass that it skips.
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    path = export_onnx(
        arguments.out,
        weights=arguments.weights,
        outputs=arguments.outputs,
        overwrite=arguments.overwrite,
    )
    size = path.stat().st_size / 1e6
    print(f"{path}: {find_weights(arguments.weights).version}, {size:.1f} MB")
    return 0
