"""Checkpoints that may not be chosen, however good their mean: limits per distortion channel."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from relqa_loss.channels import CHANNEL_TABLE

_WORDS = {
    sign + channel.name: words
    for channel in CHANNEL_TABLE
    for sign, words in (("", channel.more), ("-", channel.less))
}


def check_veto(
    veto: Mapping[str, float] | None, channels: Collection[str] | None = None
) -> dict[str, float]:
    """Tolerances by channel, validated.

    Args:
        veto: ``{"ringing": 0.02}`` limits more ringing, ``{"-sharpness": 0.02}`` less sharpness.
        channels: Those that there are; ``None`` where only profiles will tell.

    Raises:
        ValueError: For a tolerance that is negative or not finite, or an unknown channel.
    """
    checked = {name: float(tolerance) for name, tolerance in (veto or {}).items()}
    for name, tolerance in checked.items():
        if not 0 <= tolerance < math.inf:
            raise ValueError(
                f"veto tolerances are finite and not negative, got {name!r}: {tolerance}; for less "
                f"of a channel than the baseline write {'-' + name.lstrip('-')!r}"
            )
        if channels is not None and name.removeprefix("-") not in channels:
            raise ValueError(f"veto: no channel named {name!r}; there are {', '.join(channels)}")
    return checked


def signed_profile(
    profile: Mapping[str, object] | None, needed: Iterable[str]
) -> dict[str, float] | None:
    """Mean signed map per channel as plain numbers.

    Args:
        profile: Channel to mean signed map, or the result of ``DistortionProfile``, of which the
            signed part is taken.
        needed: Vetoed channels, with or without a minus.

    Raises:
        ValueError: If a needed channel is missing.
    """
    if profile is None:
        result = None
    else:
        result = {
            name.removesuffix("_signed"): float(value)  # type: ignore[arg-type]
            for name, value in profile.items()
            if not name.endswith("_absolute")
        }
    for name in needed:
        channel = name.removeprefix("-")
        if result is None or channel not in result:
            if result is None:
                known = "no profile"
            elif result:
                known = f"one of {', '.join(result)}"
            else:
                known = "an empty one: scores are to have maps, as of ImageScores(maps=True)"
            raise ValueError(
                f"veto on {channel!r} needs its mean signed map in profile=, got {known}"
            )
    return result


def find_vetoes(
    profile: Mapping[str, float],
    baseline: Mapping[str, float],
    veto: Mapping[str, float],
    baseline_name: str,
) -> list[str]:
    """One phrase per limit that the profile exceeds."""
    found = []
    for name, tolerance in veto.items():
        channel = name.removeprefix("-")
        sign = -1 if name.startswith("-") else 1
        excess = sign * (profile[channel] - baseline[channel])
        # "not within" also catches NaN.
        if not excess <= tolerance:
            words = _WORDS.get(name, f"{'less' if sign < 0 else 'more'} {channel}")
            found.append(f"{words} than {baseline_name} by {excess:.2g} (tolerance {tolerance:g})")
    return found
