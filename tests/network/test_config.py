"""Architectures that cannot be built are refused before anything is."""

from __future__ import annotations

from typing import Any

import pytest

from relqa_loss.network import NetworkConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"widths": (8, 16)}, "widths"),
        ({"widths": (8, 16, 32)}, "error_widths"),
        ({"widths": (8, 16, 32), "error_widths": (8, 16, 0)}, "error_widths"),
        ({"odd_widths": (8, 16, 32, 48, 64)}, "odd_widths"),
        ({"even_widths": (8, 0, 32, 48)}, "even_widths"),
        ({"error_widths": ()}, "error_widths"),
        ({"stem_width": 0}, "stem_width"),
        ({"judgement_width": -1}, "judgement_width"),
        ({"channels": ()}, "channels"),
        ({"channels": ("blur", "blur")}, "channels"),
        ({"floor": 0.0}, "floor"),
        ({"floor": float("nan")}, "floor"),
        ({"floor": float("inf")}, "floor"),
        ({"distance": "wavelets"}, "distance"),
        ({"distance": "patches"}, "widths"),
        ({"distance": "patches", "widths": (8, 16, 32)}, "error_widths"),
        ({"contrast": True}, "contrast"),
        ({"confined": -0.1}, "confined"),
        ({"confined": 1.1}, "confined"),
        ({"confined": float("nan")}, "confined"),
    ],
)
def test_what_cannot_be_built_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must"):
        NetworkConfig(**settings)


@pytest.mark.parametrize("confined", [0.0, 1.0])
def test_the_ends_of_a_range_are_taken(confined: float) -> None:
    assert NetworkConfig(confined=confined).confined == confined


def test_dictionary_and_back() -> None:
    config = NetworkConfig(judgement_width=7, channels=("one", "two"))
    for each in (config, NetworkConfig.base(), NetworkConfig.nano()):
        assert NetworkConfig.from_dict(each.to_dict()) == each
    with pytest.raises(ValueError, match=r"\['depth'\].*upgrade"):
        NetworkConfig.from_dict(config.to_dict() | {"depth": 3})
