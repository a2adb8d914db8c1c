"""How metrics are held against facts."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

from relqa_loss.evaluation.facts import FACTS, Fact, Verdict, judge
from relqa_loss.evaluation.stimuli import FIXED, GRADED, Stimuli, Stimulus, psnr


@pytest.fixture(scope="module")
def stimuli() -> Stimuli:
    pixels = skimage.data.coffee()[100:292, 200:392]
    return Stimuli(torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255)


def mse(reference: Tensor, images: Tensor) -> Tensor:
    return (images - reference).square().mean((1, 2, 3))


def test_facts_are_well_formed() -> None:
    assert len({str(fact) for fact in FACTS}) == len(FACTS)
    for fact in FACTS:
        assert fact.source
        for version in (fact.worse, fact.better):
            assert version.kind in (FIXED if version.level is None else GRADED)


def test_no_fact_says_the_opposite_of_another() -> None:
    orders = {(fact.worse, fact.better) for fact in FACTS}
    assert not any((better, worse) in orders for worse, better in orders)


def test_values_are_those_of_the_metric(stimuli: Stimuli) -> None:
    facts = [fact for fact in FACTS if fact.group in ("noise", "upscaling", "contrast")]
    verdicts = judge(mse, stimuli, facts)
    assert [v.fact for v in verdicts] == facts
    assert judge(mse, stimuli, []) == []
    for verdict in verdicts:
        for value, version in (
            (verdict.worse, verdict.fact.worse),
            (verdict.better, verdict.fact.better),
        ):
            image = stimuli[version]
            assert image is not None
            assert -10 * torch.tensor(value).log10() == pytest.approx(
                psnr(image, stimuli.photo), abs=1e-3
            )


def test_a_tie_and_nan_are_failures() -> None:
    assert Verdict(FACTS[0], 2.0, 1.0).holds
    assert not Verdict(FACTS[0], 1.0, 1.0).holds
    assert not Verdict(FACTS[0], 1.0, 2.0).holds
    assert not Verdict(FACTS[0], float("nan"), 2.0).holds


def test_versions_that_look_alike_are_left_out() -> None:
    # Without colour there is none to lose, and 4:2:0 is 4:4:4.
    pixels = torch.from_numpy(skimage.data.camera()[100:292, 100:292].copy()) / 255
    verdicts = judge(mse, Stimuli(pixels.expand(3, -1, -1)))
    found = {str(v.fact) for v in verdicts}
    assert "4:2:0 at quality 10 > 4:4:4 at quality 10" not in found
    assert not [v for v in verdicts if v.fact.group == "saturation"]
    assert "nearest × 3 > Lanczos × 3" in found


def test_a_metric_is_not_shown_more_than_it_needs(stimuli: Stimuli) -> None:
    seen = []

    def count(reference: Tensor, images: Tensor) -> Tensor:
        seen.append(images.shape)
        assert reference.shape == (1, *images.shape[1:])
        assert not torch.is_grad_enabled()
        return images.mean((1, 2, 3))

    facts = [
        Fact("", Stimulus("white noise", 27.0), Stimulus("mean 14 levels up"), ""),
        Fact("", Stimulus("white noise", 27.0), Stimulus("one-pixel shift"), ""),
    ]
    assert len(judge(count, stimuli, facts)) == 2
    assert sum(shape[0] for shape in seen) == 3
