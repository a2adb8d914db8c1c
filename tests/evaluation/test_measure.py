"""What is measured of a data set, item by item, and the folder that keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from relqa_loss.evaluation.contenders import Contender
from relqa_loss.evaluation.measure import Item, Measured, Notebook, measure


def _picture(path: Path, pixels: NDArray[np.uint8]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def _grey(path: Path, height: int, width: int, level: int = 128) -> Path:
    return _picture(path, np.full((height, width, 3), level, np.uint8))


def _contender(metric) -> Contender:  # type: ignore[no-untyped-def]
    return Contender("own", False, metric)


@pytest.mark.parametrize("size", [(33, 40), (32, 41)])
def test_images_of_another_size_are_told_with_both_sizes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    reference = _grey(tmp_path / "r.png", 32, 40)
    other = _grey(tmp_path / "a.png", *size)
    (found,) = measure([Item(0, reference, (other,), 1.0, "x")], [_contender(lambda *_: 1.0)])
    assert found.values == {}
    assert f"{other} is {size[1]}×{size[0]}" in found.error
    assert f"{reference} is 40×32" in found.error


def test_an_item_too_large_for_memory_does_not_end_the_run(tmp_path: Path) -> None:
    reference = _grey(tmp_path / "r.png", 32, 32)
    items = [
        Item(k, reference, (_grey(tmp_path / f"{k}.png", 32, 32, 10 * k),), k, "x") for k in (0, 1)
    ]

    def metric(image: Tensor, reference: Tensor) -> float:
        if float(image.mean()) == 0:
            raise MemoryError
        return float(image.mean())

    first, second = measure(items, [_contender(metric)])
    assert first.error == "MemoryError"
    assert second.values == {"own": (pytest.approx(10 / 255),)}


def test_images_are_reduced_to_a_short_side(tmp_path: Path) -> None:
    fine = np.zeros((74, 100, 3), np.uint8)
    fine[:, ::2] = 255  # lines that a picture of half the size or less cannot show
    fine[:, 50:] = 255 * (np.arange(74) > 36)[:, None, None]  # an edge, beyond which bicubic swings
    path = _picture(tmp_path / "fine.png", fine)
    seen: list[Tensor] = []

    def metric(image: Tensor, reference: Tensor) -> float:
        seen.append(image[0])
        return 0.0

    list(measure([Item(0, path, (path,), 1.0, "x")], [_contender(metric)], short_side=16))
    (small,) = seen
    assert small.shape == (3, 16, 22)  # 100 · 16 / 74 = 21.6
    assert 0 <= float(small.min()) <= float(small.max()) <= 1
    assert float((small[..., 2:9] - 0.5).abs().max()) < 0.1


@pytest.fixture
def items() -> list[Item]:
    return [Item(k, Path("r.png"), (Path(f"{k}.png"),), 0.1 * k, "x") for k in range(4)]


def _found(item: Item, value: float | None) -> Measured:
    return Measured(item, {}, "gone") if value is None else Measured(item, {"own": (value,)})


def _notebook(folder: Path, items: list[Item], *, resume: bool = False) -> Notebook:
    return Notebook(folder, {}, items, ["own"], resume=resume)


def test_what_is_found_is_on_disk_before_the_next_is_begun(
    items: list[Item], tmp_path: Path
) -> None:
    lines: list[int] = []

    def answers() -> Iterator[Measured]:
        for item in items:
            yield _found(item, 1.0)
            lines.append(len((tmp_path / "values.part-0.csv").read_text().splitlines()))

    _notebook(tmp_path, items).keep(answers())
    assert lines == [2, 3, 4, 5]  # with a header


def test_what_another_process_could_read_counts(items: list[Item], tmp_path: Path) -> None:
    """The first image was unreadable; of two processes that resume, the second has repaired it."""
    before = _notebook(tmp_path, items)
    before.start()
    values = {3: 3.0, 0: None, 1: 1.0, 2: 2.0}
    before.keep(_found(items[number], value) for number, value in values.items())
    before.close()

    first, second = (_notebook(tmp_path, items, resume=True) for _ in range(2))
    assert [item.number for item in first.todo()] == [0]
    second.keep(iter([_found(items[0], 0.5)]), rank=1)
    rows = first.close()
    assert [row.item.number for row in rows] == [0, 1, 2, 3]
    assert [row.values for row in rows] == [{"own": (value,)} for value in (0.5, 1.0, 2.0, 3.0)]
    assert [path.name for path in sorted(tmp_path.glob("*.csv"))] == ["values.csv"]


def test_parts_hold_what_came_after_the_whole(items: list[Item], tmp_path: Path) -> None:
    before = _notebook(tmp_path, items)
    before.start()
    before.keep(_found(item, None if item.number == 2 else 1.0) for item in items)
    before.close()
    # Killed once the image had been repaired and measured, before the parts were joined.
    _notebook(tmp_path, items, resume=True).keep(iter([_found(items[2], 7.0)]))
    after = _notebook(tmp_path, items, resume=True)
    assert after.todo() == []
    assert after.close()[2].values == {"own": (7.0,)}


def test_folders_that_are_none_or_of_other_metrics_are_refused(
    items: list[Item], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("of somebody")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        _notebook(file, items)
    before = _notebook(tmp_path, items)
    before.start()
    before.keep(_found(item, 1.0) for item in items)
    with pytest.raises(ValueError, match=r"values\.part-0\.csv: its columns are not those"):
        Notebook(tmp_path, {}, items, ["other"], resume=True)
