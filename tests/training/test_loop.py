"""The training loop: exact resumption after a kill, refusals, logs, several processes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.tensorboard  # importing these draws from the global generator
from disks import fill_disk, full_at
from lightning.fabric import Fabric  # noqa: F401
from panels import QUICK
from PIL import Image
from safetensors.torch import load_file
from scripts import run_script

from relqa_loss.distortions import operator_names
from relqa_loss.network import NetworkConfig, ParityNetwork, load_pretrained
from relqa_loss.network.pretrained import find_weights, save_weights
from relqa_loss.training import loop as loop_module
from relqa_loss.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from relqa_loss.training.config import TrainConfig
from relqa_loss.training.loop import Progress, TrainResult, train
from relqa_loss.training.objectives import MAP_PARTS, Learn, ObjectiveWeights
from relqa_loss.training.panel import PANEL
from relqa_loss.training.pool import Pool
from relqa_loss.training.schedule import learning_rate
from relqa_loss.training.sets import RankedSet
from relqa_loss.training.split import HELD_OUT

CONFIG = TrainConfig(
    steps=12,
    sets=32,
    validation_sets=32,
    crop=64,
    window=48,
    batch=2,
    validate_every=4,
    seed=5,
)


SLOW_POOLS = """
import time
from datetime import timedelta

from lightning.fabric import Fabric
from torch.distributed.distributed_c10d import _set_pg_timeout

from relqa_loss.training.pool import Pool

launch, fill = Fabric.launch, Pool.fill
Fabric.launch = lambda self: (launch(self), _set_pg_timeout(timedelta(seconds=10)))
Pool.fill = lambda *args: (time.sleep(7), fill(*args))
"""
"""Processes that wait for one another for ten seconds, not half an hour; two pools of seven."""


def _script(path: Path, prelude: str, config: TrainConfig) -> Path:
    settings = {
        name: getattr(config, name)
        for name in (
            "steps",
            "sets",
            "validation_sets",
            "crop",
            "window",
            "batch",
            "validate_every",
            "seed",
        )
    }
    path.write_text(
        f"""{prelude}
import os, signal, sys
from pathlib import Path

from relqa_loss.training import loop
from relqa_loss.training.config import TrainConfig
from relqa_loss.training.loop import Progress, train

loop.PANEL = {QUICK}
photos, out, pool_folder, kill_at, devices = sys.argv[1:]


def on_step(step, steps, losses):
    if step == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)  # no chance to clean up


if __name__ == "__main__":
    train(
        Path(photos),
        Path(out),
        TrainConfig(**{settings!r}),
        pool_folder=Path(pool_folder),
        accelerator="cpu",
        devices=int(devices),
        progress=Progress(step=on_step),
    )
"""
    )
    return path


def _run_script(
    folder: Path,
    photos: Path,
    out: Path,
    pools: Path,
    kill_at: int = -1,
    devices: int = 1,
    prelude: str = "",
    config: TrainConfig = CONFIG,
) -> subprocess.CompletedProcess[str]:
    script = _script(folder / "run.py", prelude, config)
    return run_script(script, photos, out, pools, kill_at, devices, cwd=folder)


class _Whole:
    """One run from beginning to end, and what was seen of it."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.pools, self.logs = folder / "pools", folder / "logs"
        self.out = folder / "new" / "whole.safetensors"
        self.losses: list[Mapping[str, float]] = []
        self.validations: list[int] = []
        torch.manual_seed(123)
        random.seed(123)
        before = _random_state()
        self.result: TrainResult = train(
            photos,
            self.out,
            CONFIG,
            pool_folder=self.pools,
            logs=self.logs,
            accelerator="cpu",
            command="a command",
            commit="a commit",
            progress=Progress(
                step=lambda step, steps, losses: self.losses.append(losses),
                validation=lambda step, figures: self.validations.append(step),
            ),
        )
        self.random_state_kept = all(map(np.array_equal, before, _random_state()))


def _random_state() -> list[object]:
    kind, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    assert kind == "MT19937"
    return [torch.random.get_rng_state().numpy(), keys, position, random.getstate()[1]]


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Whole]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "PANEL", QUICK)  # for the runs on its pools, too
        yield _Whole(tmp_path_factory.mktemp("run"), photos)


def test_weights_are_written_and_can_be_used(whole: _Whole) -> None:
    assert whole.result.finished
    assert whole.result.step == CONFIG.steps
    network = load_pretrained(whole.out)
    assert 0 < network.floor < float("inf")
    image = torch.rand(1, 3, 32, 32)
    assert float(network(image, image).distance) == 0
    # Training did something.
    with torch.random.fork_rng():
        torch.manual_seed(CONFIG.seed)
        start = ParityNetwork(CONFIG.network).state_dict()
    assert not all(torch.equal(start[k], v) for k, v in load_file(whole.out).items())


def test_what_ships_is_the_average_in_its_unit_and_the_rate_has_fallen(whole: _Whole) -> None:
    state = load_checkpoint(checkpoint_path(whole.out), CONFIG.to_dict())
    shipped, last = load_file(whole.out), state["objectives"]
    scale = shipped.pop("scale")
    assert scale.ne(1).all()
    assert all(torch.equal(state["averaged"][name], value) for name, value in shipped.items())
    assert not all(torch.equal(last[f"network.{name}"], value) for name, value in shipped.items())
    (group,) = state["optimiser"]["param_groups"]
    assert group["lr"] == learning_rate(CONFIG.steps - 1, CONFIG.steps, CONFIG.rate)


def test_manifest_tells_how_the_weights_were_made(whole: _Whole) -> None:
    record = json.loads(whole.out.with_suffix(".json").read_text("utf-8"))
    training = record["training"]
    assert whole.result.record is not None
    assert record["sha256"] == whole.result.record.sha256
    assert training["command"] == "a command"
    assert training["commit"] == "a commit"
    assert training["config"]["steps"] == CONFIG.steps
    assert training["photos"]["train"]["count"] == 2
    assert training["photos"]["val"]["count"] == 1
    assert set(training["validation"]) == set(whole.result.figures)
    assert training["pace"]["processes"] == 1
    assert 0 < training["pace"]["seconds_per_step"] * (CONFIG.steps - 1) < training["seconds"] + 1
    assert 0 <= training["pace"]["waiting"] < 1


def test_progress_is_reported(whole: _Whole) -> None:
    assert len(whole.losses) == CONFIG.steps
    assert all(np.isfinite(value) for losses in whole.losses for value in losses.values())
    assert whole.validations == [4, 8, 12]


def test_global_random_state_is_left_alone(whole: _Whole) -> None:
    assert whole.random_state_kept


def test_tensorboard_log_holds_losses_and_figures(whole: _Whole) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole.logs / "whole"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/total", "loss/maps", "val/srcc_panel"} <= tags
    assert [event.step for event in events.Scalars("val/srcc_panel")] == whole.validations


def test_a_small_network_is_trained_by_a_large_one(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    config = replace(
        CONFIG, steps=3, learn="distance", teacher="relqa-base", network=NetworkConfig.nano()
    )
    out = tmp_path / "nano.safetensors"
    result = train(photos, out, config, pool_folder=whole.pools, accelerator="cpu")
    assert result.finished
    record = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert record["training"]["teacher"] == find_weights().version
    assert record["training"]["config"]["teacher"] == "relqa-base"
    assert load_pretrained(out).config == NetworkConfig.nano()


def test_killed_and_resumed_gives_the_same_weights(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed.safetensors"
    killed = _run_script(tmp_path, photos, out, whole.pools, kill_at=6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    state = load_checkpoint(checkpoint_path(out), CONFIG.to_dict())
    assert state["step"] == 4  # two further steps are lost and must be made again alike
    steps: list[int] = []
    result = train(
        photos,
        out,
        CONFIG,
        pool_folder=whole.pools,
        resume=True,
        accelerator="cpu",
        progress=Progress(step=lambda step, total, losses: steps.append(step)),
    )
    assert result.finished
    assert steps == list(range(5, CONFIG.steps + 1))
    assert out.read_bytes() == whole.out.read_bytes()
    assert result.figures == whole.result.figures
    first, second = (torch.load(checkpoint_path(path)) for path in (whole.out, out))
    for part in ("objectives", "averaged"):
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part])


def test_time_limit_stops_with_a_checkpoint(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "short.safetensors"
    result = train(photos, out, CONFIG, pool_folder=whole.pools, minutes=0.0, accelerator="cpu")
    assert not result.finished
    assert result.step == 1
    assert out.is_file()
    assert load_checkpoint(checkpoint_path(out), CONFIG.to_dict())["step"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minutes": -1.0}, "minutes must be at least 0, got -1"),
        ({"minutes": float("nan")}, "minutes must be at least 0, got nan"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused_at_once(
    options: dict[str, float], said: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        train(photos, tmp_path / "no.safetensors", CONFIG, pool_folder=tmp_path, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def _train(photos: Path, out: Path, whole: _Whole, **options: object) -> TrainResult:
    options = {"config": CONFIG, "pool_folder": whole.pools, "accelerator": "cpu", **options}
    return train(photos, out, **options)  # type: ignore[arg-type]


def test_existing_files_are_not_overwritten(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    content = whole.out.read_bytes()
    with pytest.raises(ValueError, match="exists; choose another --out, or --resume"):
        _train(photos, whole.out, whole)
    assert whole.out.read_bytes() == content
    out = tmp_path / "only.safetensors"
    checkpoint_path(out).write_bytes(b"a checkpoint of somebody")
    with pytest.raises(ValueError, match=r"only\.ckpt exists"):
        _train(photos, out, whole)
    assert checkpoint_path(out).read_bytes() == b"a checkpoint of somebody"
    settings = tmp_path / "settings.json"
    settings.write_text("of somebody")
    with pytest.raises(ValueError, match=r"settings\.json exists"):
        _train(photos, settings.with_suffix(".safetensors"), whole)
    assert settings.read_text() == "of somebody"


def test_nothing_to_resume_is_an_error(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to resume"):
        _train(photos, tmp_path / "new.safetensors", whole, resume=True)


def test_resuming_with_other_settings_is_refused(whole: _Whole, photos: Path) -> None:
    before = whole.out.read_bytes(), checkpoint_path(whole.out).read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(rate differ\)"):
        _train(photos, whole.out, whole, resume=True, config=replace(CONFIG, rate=1e-3))
    assert (whole.out.read_bytes(), checkpoint_path(whole.out).read_bytes()) == before


def test_a_setting_that_came_later_does_not_stop_a_run(tmp_path: Path) -> None:
    path = tmp_path / "state.ckpt"
    earlier = CONFIG.to_dict()
    del earlier["luma_share"]
    save_checkpoint(path, {"config": earlier})
    assert load_checkpoint(path, CONFIG.to_dict()) == {"config": earlier}
    with pytest.raises(ValueError, match=r"other settings \(luma_share differ\)"):
        load_checkpoint(path, replace(CONFIG, luma_share=0.5).to_dict())
    del earlier["objective"]["outputs"]
    save_checkpoint(path, {"config": earlier})
    assert load_checkpoint(path, CONFIG.to_dict()) == {"config": earlier}
    save_checkpoint(path, {"config": earlier | {"of_tomorrow": 1}})
    with pytest.raises(ValueError, match=r"other settings \(of_tomorrow differ\)"):
        load_checkpoint(path, CONFIG.to_dict())


def test_a_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.ckpt"
    state = {"config": CONFIG.to_dict()}
    save_checkpoint(path, state)
    assert list(tmp_path.iterdir()) == [path]

    fill_disk(monkeypatch, room=9)
    with pytest.raises(OSError, match=full_at(path)):
        save_checkpoint(path, state | {"step": 1})
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path, CONFIG.to_dict()) == state


def test_outputs_are_not_told_apart_by_a_distance_that_is_not_trained(
    photos: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, learn="maps", two_outputs=True)
    with pytest.raises(ValueError, match="give initial weights"):
        train(photos, tmp_path / "out.safetensors", config, pool_folder=tmp_path / "pool")


def test_resuming_with_other_photographs_is_refused(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "photos"
    shutil.copytree(photos, other)
    changed = next(path for path in sorted(other.iterdir()) if path.suffix == ".png")
    Image.open(changed).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    pools = tmp_path / "pools"
    # Of the split that has changed, and of nothing else.
    what = r"other data: photographs to train on \w{12}, now \w{12}; resume with"
    with pytest.raises(ValueError, match=what):
        _train(other, whole.out, whole, resume=True, pool_folder=pools)
    assert not pools.exists()
    many = {"train": "a", "val": "b", "processes": 2}
    save_checkpoint(tmp_path / "many.ckpt", {"config": CONFIG.to_dict(), "data": many})
    with pytest.raises(ValueError, match="other data: processes 2, now 1; resume with"):
        load_checkpoint(tmp_path / "many.ckpt", CONFIG.to_dict(), many | {"processes": 1})


def test_resuming_from_other_initial_weights_is_refused(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.safetensors"
    _train(photos, out, whole, initial=whole.out, minutes=0.0)
    other = tmp_path / "other.safetensors"
    save_weights(ParityNetwork(CONFIG.network), other, CONFIG.network, {})
    for initial in (None, other):
        with pytest.raises(ValueError, match=r"other weights \(initial .*--initial"):
            _train(photos, out, whole, initial=initial, resume=True)
    resumed = _train(photos, out, whole, initial=whole.out, resume=True, minutes=0.0)
    assert resumed.step == 2
    assert resumed.record is not None
    assert whole.result.record is not None
    assert resumed.record.training["initial"]["sha256"] == whole.result.record.sha256
    with pytest.raises(ValueError, match=r"initial none, now"):
        _train(photos, whole.out, whole, initial=other, resume=True)


def test_resuming_with_a_replaced_teacher_is_refused(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    teacher, out = tmp_path / "teacher.safetensors", tmp_path / "taught.safetensors"
    save_weights(ParityNetwork(CONFIG.network), teacher, CONFIG.network, {})
    config = replace(CONFIG, teacher=str(teacher))
    _train(photos, out, whole, config=config, minutes=0.0)
    save_weights(ParityNetwork(CONFIG.network), teacher, CONFIG.network, {})
    with pytest.raises(ValueError, match=r"other weights \(teacher .*--teacher"):
        _train(photos, out, whole, config=config, resume=True)


def test_checkpoints_that_name_no_weights_are_resumed(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "old.safetensors"
    state = load_checkpoint(checkpoint_path(whole.out), CONFIG.to_dict())
    del state["weights"]
    torch.save(state, checkpoint_path(out))
    assert _train(photos, out, whole, resume=True).finished


def test_damaged_checkpoint_is_named(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "damaged.safetensors"
    checkpoint_path(out).write_bytes(checkpoint_path(whole.out).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged\.ckpt cannot be read"):
        _train(photos, out, whole, resume=True)


def test_other_suffixes_are_refused(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        _train(photos, tmp_path / "weights.pt", whole)


def test_unknown_excluded_operator_is_refused(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gausian_blur"):
        _train(
            photos,
            tmp_path / "x.safetensors",
            whole,
            config=replace(CONFIG, exclude=("gausian_blur",)),
        )


def test_folder_without_photographs_is_refused(whole: _Whole, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no usable photograph"):
        _train(empty, tmp_path / "x.safetensors", whole)


@pytest.mark.parametrize(
    "change",
    [
        {"crop": 70},
        {"crop": 48},
        {"window": 40},
        {"window": 16},
        {"window": 80},
        {"steps": 0},
        {"sets": 0},
        {"batch": 0},
        {"validate_every": 0},
        {"validation_sets": 0},
        {"learn": "all"},
        {"rank_by": "triples"},
        {"unjudged_sets": 32},
        {"unjudged_batch": 2},
        {"fact_sets": 32},
        {"fact_batch": 2},
        {"unjudged_sets": -32},
        {"fact_batch": -2},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"average": 1.0},
        {"seed": 2**32},
        {"seed": -(2**31) - 1},
        {"luma_share": 1.1},
        {"luma_share": float("nan")},
        {"grey_share": -0.1},
        {"luma_share": 0.6, "grey_share": 0.6},
        {"two_outputs": True, "learn": "distance"},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CONFIG, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["steps", "batch", "fact_sets", "seed"])
def test_fractions_are_refused_where_numbers_are_whole(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an integer, got 32.0"):
        replace(CONFIG, **{name: 32.0})  # type: ignore[arg-type]


def test_shares_may_leave_no_set_as_it_is() -> None:
    config = replace(CONFIG, luma_share=0.5, grey_share=0.5)
    assert config.luma_share + config.grey_share == 1


def test_settings_may_be_numbers_of_numpy_and_paths(tmp_path: Path) -> None:
    objective = ObjectiveWeights(maps=np.float64(5.0))
    numpy = {"rate": np.float64(1e-3), "average": np.float32(0.5), "seed": np.int64(7)}
    config = replace(CONFIG, objective=objective, teacher=tmp_path / "t.safetensors", **numpy)  # type: ignore[arg-type]
    state = {"config": config.to_dict(), "rate": learning_rate(3, 10, config.rate)}
    save_checkpoint(tmp_path / "state.ckpt", state)
    # Checkpoints hold no other kinds of objects, and manifests neither.
    assert load_checkpoint(tmp_path / "state.ckpt", config.to_dict()) == state
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert config.teacher == str(tmp_path / "t.safetensors")
    assert torch.Generator().manual_seed(config.seed).initial_seed() == 7


def test_initial_weights_are_the_start(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    _train(
        photos,
        tmp_path / "tuned.safetensors",
        whole,
        initial=whole.out,
        minutes=0.0,
        progress=Progress(step=lambda step, total, losses: seen.append(losses["total"])),
    )
    assert seen[0] < whole.losses[0]["total"]
    other = replace(CONFIG, network=replace(CONFIG.network, judgement_width=8))
    pools = tmp_path / "pools"
    with pytest.raises(ValueError, match=r"of another architecture .*judgement_width \d+ instead"):
        _train(
            photos,
            tmp_path / "b.safetensors",
            whole,
            initial=whole.out,
            config=other,
            pool_folder=pools,
        )
    assert not pools.exists()  # before any work


def test_weights_of_another_distance_start_a_network_of_the_same_tensors(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "without.safetensors"
    config = replace(NetworkConfig.base(), derivatives=False, contrast=False, confined=0.0)
    network = ParityNetwork(config)
    save_weights(network, path, config, {})
    out = tmp_path / "with.safetensors"
    _train(photos, out, whole, initial=path, minutes=0.0)
    found = load_pretrained(out)
    assert found.config == NetworkConfig.base()
    maps, started = found.mapper.odd_head.weight, network.mapper.odd_head.weight
    torch.testing.assert_close(maps, started, rtol=0, atol=5e-3)


def test_weights_without_a_manifest_are_refused_at_once(photos: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"alone\.json does not exist"):
        train(photos, tmp_path / "out.safetensors", CONFIG, pool_folder=tmp_path, initial=alone)
    config = replace(CONFIG, teacher=str(alone))
    with pytest.raises(FileNotFoundError, match=r"alone\.json does not exist"):
        train(photos, tmp_path / "out.safetensors", config, pool_folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [alone.name]  # before any work


def test_half_precision_is_for_the_maps_alone(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []
    _train(
        photos,
        tmp_path / "half.safetensors",
        whole,
        config=replace(CONFIG, half_maps=True),
        minutes=0.0,
        progress=Progress(step=lambda step, total, losses: seen.append(losses)),
    )
    assert seen[0]["maps"] != whole.losses[0]["maps"]
    assert seen[0]["maps"] == pytest.approx(whole.losses[0]["maps"], rel=0.05)
    assert seen[0]["consensus"] == whole.losses[0]["consensus"]


@pytest.mark.parametrize("learn", ["maps", "distance"])
def test_the_half_that_is_not_learned_stays_as_it_began(
    whole: _Whole, photos: Path, tmp_path: Path, learn: Learn
) -> None:
    out = tmp_path / "half.safetensors"
    _train(photos, out, whole, config=replace(CONFIG, learn=learn), minutes=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(CONFIG.seed)
        start = ParityNetwork(CONFIG.network).state_dict()
    parts = tuple(part.removeprefix("network.") for part in MAP_PARTS)
    changed = {
        name.startswith(parts)
        for name, value in load_file(out).items()
        if name != "scale" and not torch.equal(value, start[name])
    }
    assert changed == {learn == "maps"}


def test_objectives_are_those_asked_for(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    weights = ObjectiveWeights(maps=3.0, consensus=0.5)
    seen: list[Mapping[str, float]] = []
    _train(
        photos,
        tmp_path / "other.safetensors",
        whole,
        config=replace(CONFIG, rank_by="pairs", two_outputs=True, objective=weights),
        minutes=0.0,
        progress=Progress(step=lambda step, total, losses: seen.append(losses)),
    )
    terms = {name: value for name, value in seen[0].items() if name != "total"}
    assert terms.keys() - whole.losses[0].keys() == {"outputs"}
    changed = {name for name, value in terms.items() if whole.losses[0].get(name) != value}
    assert changed == {"outputs", "consensus"}
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    assert seen[0]["total"] == pytest.approx(total)


def test_operators_that_are_held_out_are_met_nowhere(
    whole: _Whole, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[str, int]] = set()
    plain = Pool.__getitem__

    def recorded(pool: Pool, index: int) -> RankedSet:
        read.add((pool.spec.fingerprint, index))
        return plain(pool, index)

    monkeypatch.setattr(Pool, "__getitem__", recorded)
    config = replace(CONFIG, hold_out=True)
    result = _train(photos, tmp_path / "held.safetensors", whole, config=config, minutes=0.0)
    assert len({fingerprint for fingerprint, _ in read}) == 2  # to train and to validate on
    assert {index % 2 for _, index in read} == {0}
    assert result.record is not None
    assert result.record.training["held_out_operators"] == list(HELD_OUT)


def test_each_pool_holds_what_it_is_for(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "PANEL", PANEL)
    further = {"unjudged_sets": 32, "unjudged_batch": 1, "fact_sets": 64, "fact_batch": 1}
    config = replace(CONFIG, exclude=("haze",), **further)
    pools, found = loop_module._pools(photos, tmp_path, config)
    specs = {name: pool.spec for name, pool in pools.items()}
    assert {name: len(pool) for name, pool in pools.items()} == {
        "train": 32,
        "val": 32,
        "unjudged": 32,
        "facts": 64,
    }
    assert [name for name, spec in specs.items() if spec.members == PANEL] == ["train", "val"]
    assert [name for name, spec in specs.items() if spec.facts] == ["facts"]
    assert [name for name, spec in specs.items() if spec.pipelines] == ["unjudged"]
    assert [name for name, spec in specs.items() if spec.singles] == ["unjudged"]
    assert len({spec.seed for spec in specs.values()}) == len(specs)
    for name, spec in specs.items():
        assert {Path(photo).stem for photo in spec.photos} == (
            {"coffee"} if name == "val" else {"astronaut", "chelsea"}
        )
        assert {*operator_names()} - {*spec.operators} == {"haze"}
        assert (spec.held_out, spec.crop) == (HELD_OUT, CONFIG.crop)
    assert set(found) == {"train", "val"}


def test_photographs_must_be_larger_than_a_crop_by_its_margin(photos: Path, tmp_path: Path) -> None:
    fits, too_large = (replace(CONFIG, crop=crop) for crop in (144, 160))
    loop_module._pools(photos, tmp_path, fits)  # of photographs of 180×160
    with pytest.raises(ValueError, match="2 could not be read or have a side under 168 pixels"):
        loop_module._pools(photos, tmp_path, too_large)


@pytest.mark.slow
def test_two_processes_train_together(whole: _Whole, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    run = _run_script(tmp_path, photos, out, whole.pools, devices=2)
    assert run.returncode == 0, run.stderr
    network = load_pretrained(out)
    assert bool(torch.isfinite(network(*torch.rand(2, 1, 3, 32, 32)).distance))
    assert load_checkpoint(checkpoint_path(out), CONFIG.to_dict())["step"] == CONFIG.steps
    # Twice as many sets a step: not the run of one process.
    assert out.read_bytes() != whole.out.read_bytes()


@pytest.mark.slow
def test_processes_wait_for_a_pool_as_long_as_it_takes(
    whole: _Whole, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "slow.safetensors"
    config = replace(CONFIG, steps=1)
    run = _run_script(
        tmp_path, photos, out, whole.pools, devices=2, prelude=SLOW_POOLS, config=config
    )
    assert run.returncode == 0, run.stderr
    assert load_checkpoint(checkpoint_path(out), config.to_dict())["step"] == 1
