"""``relqa maps``: a picture of what changed, where and in which direction."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from relqa_loss._files import encoded, write_atomically
from relqa_loss._html import figure_png, shortened, signed
from relqa_loss.cli._common import (
    add_missing_option,
    add_network_options,
    progress,
    refuse_inputs,
    resolve_device,
    say,
    say_notes,
)

_LONGEST = 80  # letters of a name in a title, which shrinks to fit


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "maps",
        help="a picture of what changed, where and in which direction",
        description="Draw the signed distortion maps of an image against its reference. With "
        "folders, matched by name, --out is a folder of pictures.",
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="file or folder")
    parser.add_argument("image", type=Path, metavar="IMAGE", help="file or folder")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="file or folder")
    parser.add_argument(
        "--channels",
        metavar="NAMES",
        default="6",
        help="comma-separated names, `all`, or how many of the strongest (default: %(default)s)",
    )
    parser.add_argument(
        "--npz", type=Path, metavar="FILE", help="also write the maps as numbers (single images)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing pictures")
    add_missing_option(parser)
    add_network_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from relqa_loss.cli._pairs import Examiner, Failure, pair_up
    from relqa_loss.plotting import plot_relation

    single = not arguments.image.is_dir()
    if single and arguments.out.suffix.lower() != ".png":
        raise ValueError(f"--out {arguments.out}: the picture of a single image must end in .png")
    if not single and arguments.out.is_file():
        raise ValueError(f"--out {arguments.out} is a file; give a folder for folders of images")
    if arguments.npz is not None and not single:
        raise ValueError("--npz goes with a single image, not with folders")
    if arguments.npz is not None and arguments.npz.resolve() == arguments.out.resolve():
        raise ValueError(f"--npz {arguments.npz} would replace the picture; choose another name")
    folders = (arguments.reference.resolve(), arguments.image.resolve())
    if not single and arguments.out.resolve() in folders:
        raise ValueError(f"--out {arguments.out} holds the images; choose another folder")
    pairs, failures = pair_up(
        arguments.reference,
        [arguments.image],
        allow_missing=arguments.allow_missing,
        out=arguments.out,
    )
    files = [path for pair in pairs for path in pair]
    targets = {
        pair: arguments.out
        if single
        # With its ending, so that a.png and a.jpg do not get the same picture.
        else arguments.out / f"{pair.image.relative_to(arguments.image)}.png"
        for pair in pairs
    }
    outputs = [("--out", target) for target in targets.values()]
    if arguments.npz is not None:
        outputs.append(("--npz", arguments.npz))
    for option, target in outputs:
        refuse_inputs(target, files, option)
        if target.exists() and not arguments.force:
            raise ValueError(f"{target} exists; choose another {option} or give --force")
    examine = Examiner(arguments.weights, resolve_device(arguments.device))
    channels = _channels(arguments.channels, examine.network.channels)
    with progress("drawing", len(pairs)) as advance:
        for pair in pairs:
            try:
                outcome = examine(pair, distance_map=True)
            except (ValueError, MemoryError) as error:
                failures.append(Failure(pair.image, str(error), pair.reference))
                continue
            distance, score = float(outcome.relation.distance), float(outcome.relation.score)
            # Matplotlib draws no surrogates.
            name = shortened(encoded(pair.image.name).decode(), _LONGEST)
            figure = plot_relation(
                outcome.reference,
                outcome.image,
                outcome.relation,
                channels=channels,
                distance_map=outcome.distance_map,
                names=examine.network.channels,
                title=f"{name}: distance {distance:.4f}, score {signed(score, 4)}",
            )
            write_atomically(targets[pair], figure_png(figure))
            if arguments.npz is not None:
                _write_npz(arguments.npz, outcome.relation.maps[0], examine.network.channels)
            say_notes(pair.image, outcome.notes)
            print(f"{targets[pair]}: {outcome.words}")
            advance(note=pair.image.name)
    for failure in failures:
        named = str(failure.image) in failure.error
        say(f"error: {failure.error if named else f'{failure.image}: {failure.error}'}")
    return 2 if failures else 0


def _channels(text: str, known: tuple[str, ...]) -> tuple[str, ...] | int:
    if text == "all":
        return known
    if text.isdecimal():
        return int(text)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise ValueError(f"--channels: no channel named {name!r}; there are {', '.join(known)}")
    return names


def _write_npz(path: Path, maps: object, channels: tuple[str, ...]) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, maps=np.asarray(maps), channels=np.array(channels))
    write_atomically(path, buffer.getvalue())
