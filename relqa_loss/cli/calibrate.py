"""``relqa calibrate``: distances on a laboratory's own scale of opinion."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from relqa_loss._version import __version__
from relqa_loss.cli._common import check_target, columns_of


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "calibrate",
        help="put distances on the scale of your own opinion scores",
        description="Fit a monotone curve from a metric to the opinions of a data set that relqa "
        "evaluate has been run on, with its uncertainty, and save it as a small JSON file for "
        "relqa_loss.evaluation.calibration.load_calibration and, if the metric is "
        "relqa:distance, relqa score --calibration. The network is not changed.",
    )
    parser.add_argument(
        "evaluation", type=Path, metavar="FOLDER", help="the --out folder of relqa evaluate"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON to write")
    parser.add_argument(
        "--metric", default="relqa:distance", help="one that was evaluated (default: %(default)s)"
    )
    parser.add_argument("--samples", type=int, default=200, help="fits to resampled scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    import numpy as np

    from relqa_loss.evaluation.calibration import FEWEST_SCENES, calibrate
    from relqa_loss.evaluation.finished import FIGURES, read_evaluation
    from relqa_loss.evaluation.measure import SETTINGS, VALUES

    check_target(str(arguments.out), "--out")
    evaluation: Path = arguments.evaluation
    if arguments.out.resolve() in {
        (evaluation / name).resolve() for name in (VALUES, FIGURES, SETTINGS)
    }:
        raise ValueError(
            f"--out {arguments.out} would replace what relqa evaluate wrote; choose another name"
        )
    rated = read_evaluation(evaluation, arguments.metric)
    calibration = calibrate(
        rated.values,
        rated.opinions,
        scenes=rated.scenes,
        falling=rated.falling,
        samples=arguments.samples,
        seed=arguments.seed,
        level=arguments.level,
        about={**rated.about, "relqa_loss": __version__},
    )
    calibration.save(arguments.out)
    about = calibration.about
    left = "references" if about["references"] >= FEWEST_SCENES else "images"
    print(
        f"{arguments.metric} to {about['scale']}: {calibration.count} images of "
        f"{about['references']} references; error where {left} were left out of the fit: "
        f"{calibration.rmse:.3g} (root mean square)"
    )
    places = np.quantile(rated.values, [0.05, 0.25, 0.5, 0.75, 0.95])
    estimate = calibration(places)
    rows = [[arguments.metric, "opinion", "curve", "one image"]]
    for k, place in enumerate(places):
        rows.append(
            [
                f"{place:.4g}",
                f"{estimate.value[k]:.3g}",
                f"[{estimate.curve_low[k]:.3g}, {estimate.curve_high[k]:.3g}]",
                f"[{estimate.low[k]:.3g}, {estimate.high[k]:.3g}]",
            ]
        )
    sys.stdout.write(columns_of(rows, ">>>>"))
    print(f"saved: {arguments.out.resolve()}")
    return 0
