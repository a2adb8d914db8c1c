"""The registry: third parties' operators by decorator and by entry point, and its errors."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from relqa_loss.distortions import (
    Curve,
    DistortionEngine,
    Recipe,
    Step,
    get_operator,
    list_operators,
    operator_names,
    register,
    registry,
    unregister,
)


@pytest.fixture
def fade() -> Iterator[str]:
    name = "test_fade"

    @register(name, channel="contrast", sign=-1, curve=Curve(0.01, 0.5), side={"sharpness": -0.1})
    def test_fade(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        """Fades towards mid-grey.

        Further lines are not part of the listing.
        """
        return images + strength * (0.5 - images)

    yield name
    unregister(name)


def test_decorated_operator_is_listed(fade: str) -> None:
    operator = get_operator(fade)
    assert operator.about == "Fades towards mid-grey."
    assert operator.family == "test_registry"
    assert operator in list_operators()
    assert operator in list_operators("contrast")
    assert operator not in list_operators("noise")
    assert fade in operator_names()


def test_decorated_operator_takes_part_in_the_engine(fade: str) -> None:
    assert fade in DistortionEngine().operators
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    sample = DistortionEngine([fade]).apply(image, Recipe((Step(fade, 1.0),), seed=0))
    torch.testing.assert_close(sample.distorted, 0.5 * image + 0.25)


def test_decorator_returns_the_function(fade: str) -> None:
    @register("test_other", channel="noise", sign=1, curve=Curve(0.1, 1), family="own")
    def function(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
        return images - strength

    try:
        assert get_operator("test_other").apply is function
        assert get_operator("test_other").family == "own"
        assert float(function(torch.ones(1), 0.25, torch.Generator())) == 0.75
    finally:
        unregister("test_other")


@pytest.mark.parametrize(
    "option",
    [
        {"differentiable": False},
        {"runs_on": "host"},
        {"mildest": True},
        {"one_directional": False},
        {"hard_mask": True},
    ],
    ids=str,
)
def test_what_is_said_of_an_operator_is_kept(option: dict[str, Any]) -> None:
    side = {"sharpness": -0.25}
    curve = Curve(0.1, 1)
    register("test_said", channel="noise", sign=-1, curve=curve, side=side, **option)(
        lambda images, strength, generator: images
    )
    try:
        side["sharpness"] = 0.5  # theirs, not the operator's
        operator = get_operator("test_said")
        assert operator.direction() == {"noise": -1.0, "sharpness": -0.25}
        assert operator.curve is curve
        defaults = {"differentiable": True, "runs_on": "torch", "mildest": False}
        defaults |= {"one_directional": True, "hard_mask": False}
        assert {name: getattr(operator, name) for name in defaults} == defaults | option
    finally:
        unregister("test_said")


def test_a_taken_name_is_refused_and_the_first_stays(fade: str) -> None:
    first = get_operator(fade)
    with pytest.raises(ValueError, match="'test_fade' is already registered"):
        register(fade, channel="noise", sign=1, curve=Curve(0.1, 1))(first.apply)
    assert get_operator(fade) is first
    with pytest.raises(ValueError, match="already registered"):
        register("gaussian_blur", channel="noise", sign=1, curve=Curve(0.1, 1))(first.apply)


def test_an_invalid_operator_is_not_registered() -> None:
    with pytest.raises(ValueError, match="unknown channel"):
        register("test_bad", channel="smell", sign=1, curve=Curve(0.1, 1))(lambda i, s, g: i)
    assert "test_bad" not in operator_names()


def _in_a_fresh_process(*lines: str) -> list[str]:
    """What a script prints in which the bank has not been looked at yet."""
    script = "\n".join(("from relqa_loss.distortions import *", *lines))
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, encoding="utf-8"
    )
    return result.stdout.splitlines()


_REGISTERED = "@register({!r}, channel='noise', sign=1, curve=Curve(0.1, 1))"
_FUNCTION = "def own(images, strength, generator): return images"


def test_a_name_of_the_bank_is_refused_before_the_bank_is_looked_at() -> None:
    printed = _in_a_fresh_process(
        "try:",
        f"    {_REGISTERED.format('webp')}",
        f"    {_FUNCTION}",
        "except ValueError as error:",
        "    print(error)",
        "print(get_operator('webp').family)",
        "unregister('webp')",
        _REGISTERED.format("webp"),
        _FUNCTION,
        "print(get_operator('webp').family)",
    )
    assert "'webp' is already registered (family 'compression')" in printed[0]
    assert printed[1:] == ["compression", "__main__"]


@pytest.fixture(scope="module")
def usual() -> list[str]:
    return _in_a_fresh_process("print(*operator_names())", "print(DistortionEngine().draw(1))")


@pytest.mark.parametrize(
    "before",
    [
        ("import relqa_loss.distortions.geometry",),
        ("import relqa_loss.distortions.tone", "import relqa_loss.distortions.blur"),
        (_REGISTERED.format("own"), _FUNCTION),
    ],
)
def test_the_order_of_the_bank_does_not_depend_on_what_came_first(
    before: tuple[str, ...], usual: list[str]
) -> None:
    after = [*usual[0].split(), "own"] if "own" in before[0] else usual[0].split()
    printed = _in_a_fresh_process(
        *before,
        "print(*operator_names())",
        "print(DistortionEngine(exclude={'own'} & set(operator_names())).draw(1))",
    )
    assert printed[0].split() == after
    assert printed[1] == usual[1]


def test_threads_that_look_at_the_bank_at_once_all_see_the_whole_of_it() -> None:
    printed = _in_a_fresh_process(
        "import threading",
        "from concurrent.futures import ThreadPoolExecutor",
        "start = threading.Barrier(8)",
        "def count(number):",
        "    start.wait()",
        "    return len(operator_names())",
        "with ThreadPoolExecutor(8) as threads:",
        "    counts = set(threads.map(count, range(8)))",
        "print(counts == {len(operator_names())})",
    )
    assert printed == ["True"]


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="no operator named 'nonsense'"):
        get_operator("nonsense")
    with pytest.raises(ValueError, match="no operator named 'nonsense'"):
        unregister("nonsense")


def test_an_unknown_channel_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(ValueError, match="no channel named 'sharpnes'"):
        list_operators("sharpnes")


def test_unregistered_operator_is_gone() -> None:
    register("test_brief", channel="noise", sign=1, curve=Curve(0.1, 1))(lambda i, s, g: i)
    unregister("test_brief")
    assert "test_brief" not in operator_names()


def test_listing_is_a_copy() -> None:
    count = len(list_operators())
    list_operators().clear()
    assert len(list_operators()) == count


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip would leave it on the path, not loaded yet."""
    (tmp_path / "relqa_third_party.py").write_text(
        "from relqa_loss.distortions import Curve, register\n"
        "@register('test_dim', channel='luminance', sign=-1, curve=Curve(0.01, 0.5))\n"
        "def dim(images, strength, generator):\n"
        "    '''Takes light away.'''\n"
        "    return images * (1 - strength)\n"
    )
    information = tmp_path / "relqa_third_party-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: relqa-third-party\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        f"[{registry.ENTRY_POINT_GROUP}]\nextra = relqa_third_party\n"
    )
    list_operators()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.setitem(registry._state, "loaded", False)
    yield
    registry._operators.pop("test_dim", None)
    sys.modules.pop("relqa_third_party", None)


@pytest.mark.usefixtures("installed_package")
def test_operator_by_entry_point() -> None:
    assert "test_dim" in operator_names()
    assert get_operator("test_dim").family == "relqa_third_party"
    assert "test_dim" in DistortionEngine().operators
    sample = DistortionEngine(["test_dim"]).sample(torch.ones(3, 16, 16), seed=1)
    assert sample.recipe.steps[0].operator == "test_dim"
    assert float(sample.distorted.min()) < 1


@pytest.mark.usefixtures("installed_package")
def test_an_operator_by_entry_point_can_be_removed_before_anything_else() -> None:
    unregister("test_dim")
    assert "test_dim" not in operator_names()


@pytest.mark.usefixtures("installed_package")
def test_entry_points_load_once() -> None:
    count = len(list_operators())
    # A second load would raise, since the name is taken.
    assert len(list_operators()) == count


@pytest.mark.usefixtures("installed_package")
def test_a_broken_package_is_not_hidden(tmp_path: Path) -> None:
    module = tmp_path / "relqa_third_party.py"
    whole = module.read_text()
    module.write_text(f"{whole}\nraise RuntimeError('broken package')\n")
    for _ in range(2):  # the error is not swallowed by a half-finished first load
        with pytest.raises(ImportError, match=r"relqa-third-party.*RuntimeError: broken package"):
            list_operators()
    module.write_text(whole)
    importlib.invalidate_caches()
    assert "test_dim" in operator_names()
