"""The benchmark of selection: its consensus, its regret, and runs that are repeatable."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import _selection_runs as training  # noqa: E402
import selection as benchmark  # noqa: E402

JUDGED = {
    # checkpoints × images: 1 is best for two judges of three, 2 for the other
    "a": np.array([[0.4, 0.6], [0.1, 0.3], [0.3, 0.3]]),
    "b": np.array([[9.0, 7.0], [1.0, 3.0], [3.0, 3.0]]),
    "c": np.array([[0.5, 0.5], [0.3, 0.3], [0.1, 0.1]]),
}


def test_consensus_is_the_best_mean_rank() -> None:
    assert benchmark.consensus(JUDGED) == 1
    assert benchmark.consensus({"c": JUDGED["c"]}) == 2
    tied = {"a": np.array([[0.2], [0.1], [0.1]])}
    assert benchmark.consensus(tied) == 1  # the earliest of equal ones


def test_regret_is_what_is_given_away() -> None:
    assert benchmark.regret(JUDGED, 0) == pytest.approx({"a": 0.3, "b": 6.0, "c": 0.4})
    assert benchmark.regret(JUDGED, 1) == pytest.approx({"a": 0.0, "b": 0.0, "c": 0.2})
    assert benchmark.relative_regret(JUDGED, 0) == pytest.approx(1.0)
    assert benchmark.relative_regret(JUDGED, 1) == pytest.approx((0 + 0 + 0.5) / 3)
    assert benchmark.relative_regret({"a": np.ones((3, 2))}, 2) == 0


def test_criteria_choose_their_own_best() -> None:
    ours = np.full((benchmark.CHECKPOINTS, 4), 2.0) + np.arange(4) / 10
    ours[4] -= 1
    familiar = {
        name: np.eye(benchmark.CHECKPOINTS)[:, [k]] * -1
        for k, name in enumerate(benchmark.FAMILIAR)
    }
    chosen = benchmark.choose(ours, familiar)
    assert set(chosen) == set(benchmark.CRITERIA)
    assert chosen["ours, best"] == chosen["ours, earliest"] == 4
    assert [chosen[name] for name in benchmark.FAMILIAR] == [0, 1, 2, 3]
    assert chosen["the last one"] == benchmark.CHECKPOINTS - 1


def test_a_veto_rules_out_what_it_names() -> None:
    ours = np.array([[3.0, 3.1], [2.0, 2.1], [1.0, 1.1]])
    profiles = [{"temperature": warmth} for warmth in (0.0, 0.0, 0.1)]
    assert benchmark.select(ours) == 2
    assert benchmark.select(ours, profiles, veto={"temperature": 0.02}) == 1


@pytest.mark.parametrize("trouble", [*training.TROUBLES, training.WARM])
def test_runs_repeat_and_trouble_comes_late(trouble: str) -> None:
    generator = torch.Generator().manual_seed(0)
    photos = [torch.rand(3, 96, 96, generator=generator) for _ in range(3)]
    run = training.Run("denoise", trouble, "l1", 5)
    before = torch.random.get_rng_state()
    states = training.train(run, photos, steps=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(states) == training.CHECKPOINTS
    for one, other in zip(states, training.train(run, photos, steps=2), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    healthy = training.train(training.Run("denoise", "none", "l1", 5), photos, steps=2)
    same = [
        all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(states, healthy, strict=True)
    ]
    late = training.TROUBLE_FROM
    assert all(same[:late])
    assert all(same) if trouble == "none" else not any(same[late:])


def test_checkpoints_survive_their_file(tmp_path: Path) -> None:
    photos = [torch.rand(3, 80, 80)]
    states = training.train(training.Run("enlarge", "none", "l2", 1), photos, steps=1)
    training.save(tmp_path / "run.safetensors", states)
    for one, other in zip(states, training.load(tmp_path / "run.safetensors"), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_at_least_twenty_runs_with_every_task_and_trouble() -> None:
    runs = training.runs(range(1, 2))
    assert len(runs) >= 20
    assert {run.trouble for run in runs} == set(training.TROUBLES)
    assert {run.task for run in runs} == set(training.TASKS)
    assert {run.loss for run in runs} == set(training.LOSSES)
    assert len({run.name for run in runs}) == len(runs)


def test_runs_on_other_photographs_are_not_taken_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"a": ("astronaut", "coffee"), "b": ("chelsea", "coffee"), "c": ("astronaut", "rocket")}
    for folder, photos in names.items():
        (tmp_path / folder).mkdir()
        rows = "file,split\n"
        for name, split in zip(photos, ("train", "val"), strict=True):
            pixels = getattr(skimage.data, name)()[:200, :200]
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
            rows += f"{name}.png,{split}\n"
        # Two to select on and two to judge on, of eight that are asked for.
        rows += 3 * f"{photos[1]}.png,val\n"
        (tmp_path / folder / "MANIFEST.csv").write_text(rows)
    monkeypatch.setattr(benchmark, "runs", lambda seeds: [training.Run("denoise", "none", "l1", 1)])
    monkeypatch.setattr(benchmark, "veto_rows", lambda *_: [])

    def start(photos: str) -> None:
        given = ["x", "--photos", str(tmp_path / photos), "--folder", str(tmp_path / "kept")]
        monkeypatch.setattr(sys, "argv", [*given, "--steps", "1", "--images", "8"])
        benchmark.main()

    start("a")
    first = capsys.readouterr().out
    assert "chosen on 2 images of 128²" in first
    start("a")
    assert capsys.readouterr().out == first
    for other in ("b", "c"):
        with pytest.raises(SystemExit):
            start(other)
        assert "choose another --folder" in capsys.readouterr().err
    manifest = tmp_path / "b" / "MANIFEST.csv"
    manifest.write_text("file,split\nchelsea.png,train\n" + 3 * "coffee.png,val\n")
    with pytest.raises(SystemExit):
        start("b")
    assert "the `val` split has 3 of 128 pixels" in capsys.readouterr().err


def test_checkpoints_cut_off_are_not_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # What is being written is put in its place when it is whole.
    monkeypatch.setattr(Path, "replace", stop)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        training.save(path, [{"weight": torch.zeros(3)}])
    assert not path.exists()
