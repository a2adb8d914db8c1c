"""From values to opinions, with what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relqa_loss.evaluation.calibration import Calibration, calibrate, load_calibration
from relqa_loss.evaluation.logistic import Logistic, fit_logistic

TRUE = Logistic(9.0, 1.0, 0.8, 0.3)
SCENES = [k // 10 for k in range(300)]


def opinions_of(distances: np.ndarray, seed: int, scene: float = 0.3) -> np.ndarray:  # type: ignore[type-arg]
    generator = np.random.default_rng(seed)
    offsets = scene * generator.normal(size=30)
    return TRUE(distances) + offsets[np.array(SCENES)] + 0.3 * generator.normal(size=300)


@pytest.fixture(scope="module")
def distances() -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(0).uniform(0, 2, 300)


@pytest.fixture(scope="module")
def made(distances: np.ndarray) -> Calibration:  # type: ignore[type-arg]
    opinions = opinions_of(distances, 1)
    return calibrate(distances, opinions, scenes=SCENES, falling=True, about={"metric": "m:f"})


def test_the_curve_is_found_and_monotone(made: Calibration) -> None:
    x = np.linspace(0, 2, 50)
    estimate = made(x)
    assert np.abs(estimate.value - TRUE(x)).max() < 0.4
    assert (np.diff(estimate.value) < 0).all()
    assert made.rmse == pytest.approx(np.hypot(0.3, 0.3), rel=0.2)


def test_intervals_hold_what_they_promise(distances: np.ndarray) -> None:  # type: ignore[type-arg]
    # Opinions of scenes that were not fitted, over several calibrations: 30 scenes are few.
    single, mean = [], []
    truth = TRUE(distances)
    for seed in range(8):
        opinions = opinions_of(distances, seed)
        estimate = calibrate(distances, opinions, scenes=SCENES, samples=40)(distances)
        for fresh in (opinions_of(distances, 100 + 10 * seed + k) for k in range(5)):
            single.append(np.mean((fresh >= estimate.low) & (fresh <= estimate.high)))
        mean.append(np.mean((truth >= estimate.curve_low) & (truth <= estimate.curve_high)))
    assert 0.92 <= np.mean(single) <= 0.97
    assert 0.8 <= np.mean(mean) <= 0.99


def test_intervals_lie_inside_each_other(made: Calibration, distances: np.ndarray) -> None:  # type: ignore[type-arg]
    estimate = made(distances)
    assert (estimate.curve_high - estimate.curve_low).mean() < 0.5
    assert (estimate.low <= estimate.curve_low).all()
    assert (estimate.curve_low <= estimate.value).all()
    assert (estimate.value <= estimate.curve_high).all()
    assert (estimate.curve_high <= estimate.high).all()


def test_images_of_one_scene_are_not_taken_for_independent(distances: np.ndarray) -> None:  # type: ignore[type-arg]
    opinions = opinions_of(distances, 1, scene=1.0)
    together = calibrate(distances, opinions, scenes=SCENES, samples=100)([1.0])
    alone = calibrate(distances, opinions, samples=100)([1.0])
    assert (together.curve_high - together.curve_low)[0] > 1.3 * (
        alone.curve_high - alone.curve_low
    )[0]


def test_values_that_were_not_seen_are_marked(made: Calibration, distances: np.ndarray) -> None:  # type: ignore[type-arg]
    assert made.span == (distances.min(), distances.max())
    assert made([-0.1, 0.5, 2.5]).outside.tolist() == [True, False, True]
    assert made(made.span).outside.tolist() == [False, False]
    assert made(0.5).value.shape == (1,)


def test_saved_and_loaded(made: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "mos.json"
    made.save(path)
    assert load_calibration(path) == made
    assert path.stat().st_size < 40_000
    x = [0.1, 1.0, 1.9]
    for name in ("value", "low", "high", "curve_low"):
        assert np.array_equal(getattr(load_calibration(path)(x), name), getattr(made(x), name))


def test_saved_with_what_json_does_not_know(made: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "mos.json"
    replace(made, about={"offset": np.float32(0.5), "images": np.int64(3)}).save(path)
    assert load_calibration(path).about == {"offset": 0.5, "images": 3}
    with pytest.raises(TypeError, match=r"as JSON is; got \{1\}"):
        replace(made, about={"odd": {1}}).save(path)
    assert load_calibration(path).about["images"] == 3


def test_saved_with_a_name_that_is_no_utf8(made: Calibration, tmp_path: Path) -> None:
    odd = replace(made, about={"weights": "caf\udce9@c723a4c3"})  # of a file caf\xe9.safetensors
    odd.save(tmp_path / "odd.json")
    assert load_calibration(tmp_path / "odd.json") == odd


def test_twenty_images_are_enough(distances: np.ndarray) -> None:  # type: ignore[type-arg]
    opinions = opinions_of(distances, 1)
    assert calibrate(distances[:20], opinions[:20], samples=1).count == 20
    with pytest.raises(ValueError, match="at least 20 rated images, got 19"):
        calibrate(distances[:19], opinions[:19], samples=1)


def test_equal_seeds_give_equal_calibrations(distances: np.ndarray) -> None:  # type: ignore[type-arg]
    opinions = opinions_of(distances, 1)
    first, again, other = (calibrate(distances, opinions, samples=5, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_calibration_is_for_one_metric_and_one_network(made: Calibration) -> None:
    made.check("m:f", "any@1234")
    with pytest.raises(ValueError, match="for m:f, not for relqa:distance"):
        made.check("relqa:distance")
    known = Calibration(**{**vars(made), "about": {"metric": "m:f", "weights": "base@12ab"}})
    known.check("m:f", "renamed@12ab")
    known.check("m:f")
    with pytest.raises(ValueError, match="made with the weights base@12ab, these are base@ffff"):
        known.check("m:f", "base@ffff")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"opinions": np.zeros(10)}, "one length"),
        ({"values": np.arange(10.0), "opinions": np.arange(10.0)}, "at least 20 rated images"),
        ({"values": np.full(300, np.nan)}, "finite"),
        ({"opinions": np.array([np.inf, *range(299)])}, "leave the others out"),
        ({"values": np.full(300, 0.5)}, "same value, 0.5"),
        ({"opinions": np.full(300, 3.0), "falling": True}, "all images are the same, 3"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"samples": 0}, "samples must be"),
        ({"level": 1.0}, "level must be"),
        ({"scenes": [1, 2]}, "expected 300 scenes"),
        ({"falling": False}, "wrong way"),
    ],
)
def test_wrong_input(distances: np.ndarray, change: dict, sentence: str) -> None:  # type: ignore[type-arg]
    given = {"values": distances, "opinions": opinions_of(distances, 1), "samples": 2, **change}
    with pytest.raises(ValueError, match=sentence):
        calibrate(**given)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda record: [], "not a calibration"),
        (lambda record: {**record, "format": 9}, "format 9, known is 1"),
        (lambda record: {k: v for k, v in record.items() if k != "span"}, "no 'span'"),
        (lambda record: {**record, "resamples": []}, "curves are damaged"),
        (lambda record: {**record, "resamples": [[1, 2]]}, "cannot be used"),
        (lambda record: {**record, "resamples": [[9, 1, 0.8, np.nan]]}, "curves are damaged"),
        (lambda record: {**record, "residuals": [1]}, "cannot be used"),
    ],
)
def test_damaged_files(made: Calibration, tmp_path: Path, damage, sentence: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mos.json"
    made.save(path)
    path.write_text(json.dumps(damage(json.loads(path.read_text("utf-8")))), "utf-8")
    with pytest.raises(ValueError, match=sentence) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="cannot be used"):
        load_calibration(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        load_calibration(tmp_path / "none.json")
    with pytest.raises(ValueError, match="vector of finite"):
        calibrate(np.arange(40.0), -np.arange(40.0), samples=1)([[1.0]])


def test_the_error_is_that_of_scenes_left_out() -> None:
    # Six scenes that differ much: a curve fits those that it has seen better than others.
    generator = np.random.default_rng(0)
    scenes = np.repeat(np.arange(6), 5)
    ratios = []
    for _ in range(10):
        x = generator.uniform(0, 2, 30)
        y = TRUE(x) + generator.normal(size=6)[scenes] + 0.2 * generator.normal(size=30)
        made = calibrate(x, y, scenes=scenes.tolist(), samples=1)
        ratios.append(made.rmse / np.sqrt(np.mean((y - made(x).value) ** 2)))
    assert np.median(ratios) > 1.1


def test_each_of_five_scenes_is_left_out_by_itself(distances: np.ndarray) -> None:  # type: ignore[type-arg]
    opinions = opinions_of(distances, 1) + np.random.default_rng(2).exponential(size=300)
    scenes = np.arange(300) // 60
    made = calibrate(distances, opinions, scenes=scenes.tolist(), samples=1, level=0.8)
    assert made.level == 0.8
    left = []
    for scene in range(5):
        seen = scenes != scene
        curve = fit_logistic(distances[seen], opinions[seen], near=made.logistic)
        left.extend(opinions[~seen] - curve(distances[~seen]))
    assert made.residuals == pytest.approx(np.quantile(left, [0.1, 0.9]))
    assert made.rmse == pytest.approx(np.sqrt(np.mean(np.square(left))))


@pytest.mark.parametrize(("count", "together"), [(3, False), (4, False), (5, True)])
def test_of_fewer_than_five_scenes_each_image_stands_for_itself(
    distances: np.ndarray,  # type: ignore[type-arg]
    count: int,
    together: bool,
) -> None:
    opinions, scenes = opinions_of(distances, 1), (np.arange(300) % count).tolist()
    made = calibrate(distances, opinions, scenes=scenes, samples=2)
    assert (made != calibrate(distances, opinions, samples=2)) is together


def test_intervals_are_quantiles_that_hold_the_estimate(made: Calibration) -> None:
    # Curves that are their value plus 1, 2 … 100: the middle half is from 25.75 to 75.25.
    plus = tuple(Logistic(9.0 + k, 1.0 + k, 0.8, 0.3) for k in range(1, 101))
    above = replace(made, logistic=TRUE, resamples=plus, residuals=(30.0, 50.0), level=0.5)
    estimate, value = above([0.7]), TRUE(np.array([0.7]))
    assert estimate.curve_low == pytest.approx(value)
    assert estimate.curve_high == pytest.approx(value + 75.25)
    assert estimate.low == pytest.approx(value)
    assert estimate.high == pytest.approx(value + 75.25)
    minus = tuple(Logistic(9.0 - k, 1.0 - k, 0.8, 0.3) for k in range(1, 101))
    below = replace(above, resamples=minus, residuals=(-99.0, -1.0))([0.7])
    assert below.curve_low == pytest.approx(value - 75.25)
    assert below.curve_high == pytest.approx(value)
    assert below.low == pytest.approx(value - 99)
    assert below.high == pytest.approx(value)
