"""The training loop, on Lightning Fabric: one CPU, one or many GPUs or nodes, the same code."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from relqa_loss._numbers import whole_number
from relqa_loss.distortions import get_operator, operator_names
from relqa_loss.network.model import ParityNetwork
from relqa_loss.network.pretrained import (
    WeightsRecord,
    find_weights,
    provenance,
    read_tensors,
    save_weights,
)
from relqa_loss.training.batches import Batches, read_ahead
from relqa_loss.training.calibration import calibrate_scale
from relqa_loss.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from relqa_loss.training.config import TrainConfig
from relqa_loss.training.objectives import Objectives
from relqa_loss.training.pace import Pace
from relqa_loss.training.panel import PANEL
from relqa_loss.training.photos import PhotoFolder, find_photos
from relqa_loss.training.pool import Pool, PoolSpec
from relqa_loss.training.schedule import AveragedWeights, learning_rate
from relqa_loss.training.sets import MARGIN
from relqa_loss.training.split import HELD_OUT
from relqa_loss.training.teacher import TeacherLessons
from relqa_loss.training.validation import validate

_VALIDATION_SEED = 7_919  # added to the run's seed
_UNJUDGED = "unjudged"
_UNJUDGED_SEED = 104_729
_FACTS = "facts"
FACTS_SEED = 350_382
_PIPELINES = 4  # every fourth shard of unjudged sets
_SINGLES = 2  # every other one


@dataclass(frozen=True)
class Progress:
    """Where a run reports to; every callback is optional work for the command line."""

    pool: Callable[[str, int, int], None] = lambda split, done, total: None
    step: Callable[[int, int, Mapping[str, float]], None] = lambda step, steps, losses: None
    validation: Callable[[int, Mapping[str, float]], None] = lambda step, figures: None


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended."""

    step: int
    finished: bool
    figures: dict[str, float]
    record: WeightsRecord | None
    """The written weights; ``None`` on other processes than the first."""
    pace: Pace
    """Of this call's steps."""


def train(
    photos: Path,
    out: Path,
    config: TrainConfig | None = None,
    *,
    pool_folder: Path = Path("runs/pool"),
    workers: int = 2,
    minutes: float | None = None,
    resume: bool = False,
    initial: str | Path | None = None,
    logs: Path | None = None,
    accelerator: str = "auto",
    devices: int | str = 1,
    nodes: int = 1,
    command: str = "",
    commit: str = "",
    progress: Progress | None = None,
) -> TrainResult:
    """Train a parity network on a folder of photographs.

    Args:
        photos: Folder, see :func:`relqa_loss.training.photos.find_photos`.
        out: Weights to write (``.safetensors``), with their manifest (``.json``) and the run's
            checkpoint (``.ckpt``) beside them.
        config: Settings.
        pool_folder: Where pools of ranked sets are kept and found again.
        workers: Processes that fill the pool.
        minutes: Stop after training for this long, pools that had to be made not counted, with a
            checkpoint to resume from.
        resume: Continue from the checkpoint beside ``out``, exactly.
        initial: Weights to start from instead of random ones: a shipped name, or the path of a
            ``.safetensors`` file with its manifest beside it.
        logs: Folder for TensorBoard.
        accelerator, devices, nodes: As in Lightning Fabric.
        command, commit: Recorded in the manifest.
        progress: Callbacks.

    Raises:
        ValueError: If ``out`` or a file beside it exists and ``resume`` is false, there is nothing
            to resume, the checkpoint is of another run, of other photographs or builds on other
            weights, initial weights are of another architecture, there is no usable photograph, an
            excluded operator does not exist, ``two_outputs`` has no trained distance to learn from,
            there are no ``workers``, ``minutes`` is negative, or Fabric finds no such accelerator
            or devices.
        FileNotFoundError: If initial weights or a teacher's are missing, or have no manifest.
        ImportError: If the extra ``train`` is not installed.
    """
    config = config or TrainConfig()
    progress = progress or Progress()
    if whole_number("workers", workers) < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if minutes is not None and not minutes >= 0:
        raise ValueError(f"minutes must be at least 0, got {minutes}")
    state_path = checkpoint_path(out)
    _refuse_to_overwrite(out, state_path, resume)
    for name in config.exclude:
        get_operator(name)
    start = None if initial is None else find_weights(initial)
    if config.two_outputs and config.learn == "maps" and start is None:
        raise ValueError(
            "two_outputs learns from the distance, which learn='maps' leaves as it begins: give "
            "initial weights, whose distance is trained"
        )
    teacher = None if config.teacher is None else find_weights(config.teacher)
    weights = {
        "initial": None if start is None else start.sha256,
        "teacher": None if teacher is None else teacher.sha256,
    }
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger
        from lightning.fabric.utilities.exceptions import MisconfigurationException
    except ImportError as error:
        raise ImportError(
            "training needs Lightning and TensorBoard: pip install 'relqa-loss[train]'"
        ) from error

    began = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    logger = TensorBoardLogger(logs, name="", version=out.stem) if logs else None
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=nodes, loggers=logger or []
        )
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"accelerator={accelerator!r}, devices={devices!r}, nodes={nodes!r} cannot be had "
            f"here: {error} (accelerator='auto' and devices=1 take what there is)"
        ) from error
    fabric.launch()
    pools, found = _pools(photos, pool_folder, config)
    data: dict[str, Any] = {split: folder.fingerprint for split, folder in found.items()}
    data["processes"] = fabric.world_size
    # Before the pools are filled: a run that cannot go on should not first make new ones.
    state = load_checkpoint(state_path, config.to_dict(), data, weights) if resume else None
    network = _initial_network(config, start)
    for split, pool in pools.items():
        report = partial(progress.pool, split)
        _once_a_node(fabric, partial(pool.fill, workers, report))
    if teacher is not None:
        _teach(teacher, pools, fabric, progress)
    rank, world = fabric.global_rank, fabric.world_size
    stride = 2 if config.hold_out else 1
    batches = Batches(
        pools["train"],
        config.batch,
        config.seed,
        stride=stride,
        rank=rank,
        world=world,
        window=config.window,
        unjudged=(pools[_UNJUDGED], config.unjudged_batch) if _UNJUDGED in pools else None,
        facts=(pools[_FACTS], config.fact_batch) if _FACTS in pools else None,
        luma_share=config.luma_share,
        grey_share=config.grey_share,
    )
    checks = Batches(pools["val"], config.batch, config.seed, stride=stride)
    check_steps = max(1, len(pools["val"]) // (stride * config.batch))

    shadow = deepcopy(network).to(fabric.device)  # takes the averaged weights
    objectives = Objectives(
        network,
        config.objective,
        half_maps=config.half_maps,
        learn=config.learn,
        rank_by=config.rank_by,
        two_outputs=config.two_outputs,
    )
    learned = [each for each in objectives.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=config.rate, weight_decay=1e-4)
    averaged = AveragedWeights(network, config.average)
    step = 0
    seconds = 0.0
    if state is not None:
        objectives.load_state_dict(state["objectives"])
        optimiser.load_state_dict(state["optimiser"])
        averaged.load(state["averaged"])
        step, seconds = state["step"], state["seconds"]
    wrapped, optimiser = fabric.setup(objectives, optimiser)
    averaged.state = {name: value.to(fabric.device) for name, value in averaged.state.items()}

    def checkpoint() -> None:
        if rank == 0:
            save_checkpoint(
                state_path,
                {
                    "config": config.to_dict(),
                    "data": data,
                    "weights": weights,
                    "step": step,
                    "seconds": seconds + time.monotonic() - began,
                    "objectives": objectives.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "averaged": averaged.state,
                },
            )

    figures: dict[str, float] = {}
    training_began = time.monotonic()
    pace = Pace()
    for batch in pace.batches(read_ahead(batches, range(step, config.steps))):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.rate)
        terms = wrapped(batch.to(fabric.device))
        fabric.backward(terms["total"])
        fabric.clip_gradients(wrapped, optimiser, max_norm=2.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        averaged.update(network, step)
        step += 1
        losses = {name: float(value.detach()) for name, value in terms.items()}
        pace.step_done()  # after the losses were read: an accelerator has then finished, too
        progress.step(step, config.steps, losses)
        if logger is not None and step % 10 == 0:
            fabric.log_dict({f"loss/{name}": value for name, value in losses.items()}, step)
        out_of_time = False
        if minutes is not None:
            spent = (time.monotonic() - training_began) / 60
            # The first process decides, so that all leave the loop at the same step.
            out_of_time = bool(fabric.broadcast(spent >= minutes))
        if step % config.validate_every == 0 or step == config.steps or out_of_time:
            if rank == 0:
                shadow.load_state_dict(averaged.state)
                figures = validate(shadow, checks, check_steps, fabric.device)
                progress.validation(step, figures)
                if logger is not None:
                    fabric.log_dict({f"val/{name}": v for name, v in figures.items()}, step)
            checkpoint()
            fabric.barrier()
        if out_of_time:
            break

    record = None
    if rank == 0:
        shadow.load_state_dict(averaged.state)
        if not figures:
            figures = validate(shadow, checks, check_steps, fabric.device)
        calibrate_scale(shadow, checks, check_steps, fabric.device)
        record = save_weights(
            shadow,
            out,
            config.network,
            {
                "command": command,
                "commit": commit,
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "torch": torch.__version__,
                "config": config.to_dict(),
                "initial": None if start is None else provenance(start),
                "teacher": None if teacher is None else teacher.version,
                "step": step,
                "seconds": round(seconds + time.monotonic() - began),
                "pace": {"processes": world, **pace.to_dict()},
                "photos": {
                    split: {
                        "count": len(folder.files),
                        "skipped": len(folder.skipped),
                        "sha256": folder.fingerprint,
                    }
                    for split, folder in found.items()
                },
                "operators": list(pools["train"].spec.operators),
                "held_out_operators": list(HELD_OUT) if config.hold_out else [],
                "panel": list(pools["train"].spec.members),
                "validation": figures,
            },
        )
    fabric.barrier()
    return TrainResult(step, step >= config.steps, figures, record, pace)


def _pools(
    photos: Path, folder: Path, config: TrainConfig
) -> tuple[dict[str, Pool], dict[str, PhotoFolder]]:
    operators = tuple(name for name in operator_names() if name not in config.exclude)
    pools, found = {}, {}
    for name, split, sets, offset, members in (
        ("train", "train", config.sets, 0, PANEL),
        ("val", "val", config.validation_sets, _VALIDATION_SEED, PANEL),
        (_UNJUDGED, "train", config.unjudged_sets, _UNJUDGED_SEED, ()),
        (_FACTS, "train", config.fact_sets, FACTS_SEED, ()),
    ):
        if not sets:
            continue
        if split not in found:
            found[split] = find_photos(photos, split, least_side=config.crop + MARGIN)
        spec = PoolSpec(
            photos=tuple(str(path) for path in found[split].files),
            fingerprint=found[split].fingerprint,
            operators=operators,
            held_out=HELD_OUT,
            members=members,
            crop=config.crop,
            seed=config.seed + offset,
            pipelines=_PIPELINES if name == _UNJUDGED else 0,
            facts=name == _FACTS,
            singles=_SINGLES if name == _UNJUDGED else 0,
        )
        pools[name] = Pool(spec, folder, sets)
    return pools, found


def _teach(
    record: WeightsRecord, pools: Mapping[str, Pool], fabric: Any, progress: Progress
) -> None:
    """Give the sets that distances are learned from the distances of a teacher."""
    for name in ("train", _UNJUDGED, _FACTS):
        if name in pools:
            lessons = TeacherLessons(pools[name], record)
            report = partial(progress.pool, f"{name}, taught")
            _once_a_node(fabric, partial(lessons.fill, fabric.device, report))
            pools[name].lessons = lessons


def _once_a_node(fabric: Any, work: Callable[[], None]) -> None:
    """``work`` in the first process of every node, for which the others wait.

    They meet all the while: who waits at a barrier gives up after half an hour, and a pool may take
    longer.
    """
    if fabric.world_size == 1:
        work()
        return
    with ThreadPoolExecutor(1) as executor:
        jobs = [executor.submit(work)] if fabric.local_rank == 0 else []
        busy = True
        while busy:
            wait(jobs, timeout=1)
            at_work = any(not job.done() for job in jobs)
            busy = bool(fabric.all_reduce(float(at_work), reduce_op="sum"))
    for job in jobs:
        job.result()


def _refuse_to_overwrite(out: Path, state_path: Path, resume: bool) -> None:
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, got {out}")
    if resume:
        if not state_path.is_file():
            raise ValueError(f"nothing to resume: {state_path} does not exist")
        return
    for path in (out, out.with_suffix(".json"), state_path):
        if path.exists():
            raise ValueError(f"{path} exists; choose another --out, or --resume to continue it")


def _initial_network(config: TrainConfig, start: WeightsRecord | None) -> ParityNetwork:
    """A network with the weights that the run begins with."""
    generator_state = torch.random.get_rng_state()
    # Initial weights; the caller's generator is put back, and no other device's is touched.
    torch.default_generator.manual_seed(config.seed)
    network = ParityNetwork(config.network)
    torch.random.set_rng_state(generator_state)
    if start is None:
        return network
    try:
        network.load_state_dict(read_tensors(start))
    except RuntimeError as error:
        theirs, ours = start.config.to_dict(), config.network.to_dict()
        other = ", ".join(
            f"{name} {theirs[name]} instead of {ours[name]}"
            for name in ours
            if theirs.get(name) != ours[name]
        )
        raise ValueError(
            f"the initial weights {start.path} are of another architecture than this run's "
            f"({other}); choose theirs (--network), or other weights"
        ) from error
    network.scale.fill_(1.0)
    return network
