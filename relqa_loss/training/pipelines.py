"""What restoration meets: images blurred, then noisy, then cleaned or sharpened, then compressed.

Random composites of the bank hardly ever are a blur with noise on top, and that is what a denoiser
or a super-resolver is given. Its output carries the traces of every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from relqa_loss.distortions import MASK_KINDS, Operator, Recipe, Step, get_operator

_CODED = ("blocking", "ringing", "chroma_bleed")
# Chance that a pipeline has the stage, then the (channel, sign) it draws its operator from.
_STAGES: tuple[tuple[float, tuple[tuple[str, int], ...]], ...] = (
    (0.7, (("sharpness", -1),)),
    (0.7, (("noise", 1),)),
    (0.5, (("noise", -1), ("noise", -1), ("sharpness", 1))),
    (0.4, tuple((channel, 1) for channel in _CODED)),
)
_WHOLE = 0.85
_LEAST = 0.05


def draw_pipeline(operators: Sequence[str], seed: int, generator: torch.Generator) -> Recipe:
    """A recipe of two steps or more in the order in which images are taken, restored and stored.

    Args:
        operators: Names to draw from.
        seed: Of the recipe: decides masks and noise patterns.
        generator: Decides the steps.

    Returns:
        The recipe; shorter than two steps only if ``operators`` offers nothing for the stages.
    """
    bank = [get_operator(name) for name in operators]
    stages = [
        [name for kind in kinds for name in _offered(bank, *kind)] for _, kinds in _STAGES
    ]  # a kind listed twice is drawn twice as often
    offered = [index for index, stage in enumerate(stages) if stage]
    present: list[int] = []
    while len(present) < min(2, len(offered)):
        draws = torch.rand(len(_STAGES), generator=generator).tolist()
        present = [index for index in offered if draws[index] < _STAGES[index][0]]
    steps = [draw_step(stages[index], _WHOLE, generator) for index in present]
    return Recipe(tuple(replace(step, severity=max(step.severity, _LEAST)) for step in steps), seed)


def spoils(recipe: Recipe) -> bool:
    """Whether the last step certainly makes the image worse.

    Noise does. So does a codec, unless there is noise for it to remove. Nobody can tell of cleaning
    and sharpening.
    """
    *before, last = [get_operator(step.operator) for step in recipe.steps]
    if last.channel == "noise" and last.sign > 0:
        return True
    noisy = any(op.channel == "noise" and op.sign > 0 for op in before)
    return last.one_directional and last.channel in _CODED and not noisy


def _offered(bank: Sequence[Operator], channel: str, sign: int) -> list[str]:
    return [op.name for op in bank if op.channel == channel and op.sign == sign]


def draw_step(operators: Sequence[str], whole: float, generator: torch.Generator) -> Step:
    """A step by one of some operators, all drawn alike, of any severity in [0, 1].

    Args:
        operators: Names to draw from, at least one.
        whole: Share of steps that act on the whole image, others through a mask of any kind.
        generator: Decides every draw.
    """
    number = int(torch.randint(len(operators), (1,), generator=generator))
    severity, where = torch.rand(2, generator=generator).tolist()
    kind = "whole"
    if where > whole:
        kind = MASK_KINDS[int(torch.randint(len(MASK_KINDS), (1,), generator=generator))]
    return Step(operators[number], severity, kind)
