"""The ablation varies what it says it varies, and its table comes out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import skimage.data
import torch
from PIL import Image
from scripts import run_script

from relqa_loss.network import ParityNetwork
from relqa_loss.training.batch import Batch, Pairs
from relqa_loss.training.objectives import Objectives
from relqa_loss.training.panel import PANEL
from relqa_loss.training.sets import IMAGES_PER_SET, NO_ORDER

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation  # noqa: E402
from _ablation_variants import (  # noqa: E402
    BASE,
    FURTHER,
    JUDGES,
    PLAIN,
    VARIANTS,
    Recoloured,
    VariedObjectives,
    allowed,
    pairwise_loss,
    recolour,
    resized,
)

COLUMNS = (*PANEL, *FURTHER)
SLOPE = torch.tensor(2.0)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 3, 64, 64, generator=generator)
    noise = torch.randn(2, IMAGES_PER_SET, 3, 64, 64, generator=generator)
    order = torch.tensor([[1, 0], [2, 1], [3, 1], [4, 5], [NO_ORDER, NO_ORDER]])
    nothing = torch.zeros(0)
    return Batch(
        reference=reference,
        images=(reference[:, None] + 0.1 * noise).clamp(0, 1),
        maps=torch.zeros(2, IMAGES_PER_SET, 13, 16, 16),
        ranks=torch.rand(2, IMAGES_PER_SET, len(COLUMNS), generator=generator),
        order=order.expand(2, -1, -1),
        worse=torch.ones(2, IMAGES_PER_SET),
        partner=torch.ones(2, IMAGES_PER_SET, dtype=torch.long),
        pairs=Pairs(nothing, nothing, nothing, nothing),
    )


@pytest.fixture(scope="module")
def network() -> ParityNetwork:
    torch.manual_seed(0)
    return ParityNetwork()


def test_the_base_is_what_training_does(batch: Batch, network: ParityNetwork) -> None:
    varied = VariedObjectives(network, BASE, COLUMNS)(batch)
    ranks = batch.ranks[..., : len(PANEL)]
    plain = Objectives(network, learn="distance")(batch._replace(ranks=ranks))
    assert varied.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(varied[name], value)


@pytest.mark.parametrize("variant", VARIANTS[1:], ids=lambda variant: variant.name)
def test_every_variant_changes_something(variant, batch: Batch) -> None:  # type: ignore[no-untyped-def]
    if variant.facts:
        pytest.skip("facts come with the batches")
    torch.manual_seed(0)
    network = Recoloured()
    base = VariedObjectives(network, BASE, COLUMNS)(batch)
    network.colour = variant.colour
    # Only a draw of the batch decides the scale: 1 of this one.
    scales = variant.scales[1:2] if len(variant.scales) > 1 else variant.scales
    varied = VariedObjectives(network, replace(variant, scales=scales), COLUMNS)(batch)
    assert float((varied["total"] - base["total"]).detach().abs()) > 1e-5


def test_members_left_out_do_not_count(batch: Batch, network: ParityNetwork) -> None:
    variant = next(v for v in VARIANTS if v.name == "without vsi")
    changed = batch.ranks.clone()
    changed[..., COLUMNS.index("vsi")] = torch.rand(changed.shape[:2])
    terms = [
        VariedObjectives(network, variant, COLUMNS)(batch._replace(ranks=ranks))["consensus"]
        for ranks in (batch.ranks, changed)
    ]
    torch.testing.assert_close(*terms)


def test_judges_are_in_no_panel() -> None:
    assert all(not {*JUDGES} & {*variant.members} for variant in VARIANTS)
    assert len({variant.file for variant in VARIANTS}) == len(VARIANTS)


def test_orders_that_are_not_allowed_are_gone(batch: Batch) -> None:
    everything = [[1, 0], [2, 1], [3, 1], [4, 5]]

    def left(variant) -> list[list[int]]:  # type: ignore[no-untyped-def]
        return [pair for pair in allowed(batch.order, variant)[0].tolist() if NO_ORDER not in pair]

    assert left(BASE) == everything
    assert left(replace(BASE, dominance=False)) == everything[:2]
    assert left(replace(BASE, images=PLAIN)) == everything[:2]


def test_pairs_of_other_photographs_do_not_count_without_across() -> None:
    ranks = torch.tensor([[0.1, 0.9], [0.2, 0.8]])[..., None].expand(-1, -1, 4)
    distance = torch.tensor([[0.1, 0.4], [0.9, 1.2]])
    alone = replace(BASE, across=False)
    moved = distance + torch.tensor([[0.0], [0.7]])
    rows = [pairwise_loss(d[None], r[None], SLOPE, BASE) for d, r in zip(moved, ranks, strict=True)]
    both = pairwise_loss(moved, ranks, SLOPE, alone)
    torch.testing.assert_close(both, torch.stack(rows).mean())
    assert float((pairwise_loss(moved, ranks, SLOPE, BASE) - both).abs()) > 1e-3


def test_sizes_are_multiples_of_sixteen(batch: Batch) -> None:
    for scale, side in ((0.5, 32), (0.75, 48), (1.5, 96)):
        reference, images = resized(batch, (scale,))
        assert reference.shape[-2:] == images.shape[-2:] == (side, side)
        assert images.shape[:2] == batch.images.shape[:2]


def test_colours() -> None:
    grey = torch.full((1, 3, 2, 2), 0.5)
    torch.testing.assert_close(recolour(grey, "linear"), torch.full_like(grey, 0.21404))
    torch.testing.assert_close(recolour(grey, "opponent"), grey)
    red = torch.zeros(1, 3, 1, 1)
    red[:, 0] = 1
    expected = torch.tensor([0.299, 0.331264, 1.0])[None, :, None, None]
    torch.testing.assert_close(recolour(red, "opponent"), expected, atol=1e-5, rtol=0)


def test_variants_of_other_photographs_or_sets_are_not_taken_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, train in (("a", "astronaut"), ("b", "chelsea")):
        (tmp_path / folder).mkdir()
        rows = "file,split\n"
        for name, split in ((train, "train"), ("coffee", "val")):
            pixels = getattr(skimage.data, name)()[:300, :300]
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
            rows += f"{name}.png,{split}\n"
        (tmp_path / folder / "MANIFEST.csv").write_text(rows)
    monkeypatch.setattr(ablation, "pools", lambda *_, **__: None)
    trained: list[Path] = []

    def train(variant: object, data: object, steps: int, path: Path) -> None:
        trained.append(path)
        path.touch()

    monkeypatch.setattr(ablation, "train", train)
    judged: list[str] = []
    monkeypatch.setattr(ablation, "Bench", lambda photos, *_: judged.append(photos.name) or Judge)
    monkeypatch.setattr(ablation, "distance_of", lambda *_: None)

    class Judge:
        count = 1

        @staticmethod
        def figures(_: object) -> dict[str, float]:
            windows = (f"whole and {side}²" for side in ablation.WINDOWS)
            groups = (f"{m}, {g}" for m in (*PANEL, *JUDGES) for g in ("trained", "held out"))
            return dict.fromkeys(("ladders", "facts", *windows, *groups), 1.0)

    def start(photos: str, sets: int) -> None:
        given = ["x", "--photos", tmp_path / photos, "--folder", tmp_path / "kept"]
        given += ["--sets", sets, "--only", "panel of 4"]
        monkeypatch.setattr(sys, "argv", [str(each) for each in given])
        ablation.main()

    start("a", 32)
    start("a", 32)
    assert len(trained) == 1  # the second time, nothing is trained again
    for photos, sets, what in (("b", 32, "photographs"), ("a", 48, "sets")):
        with pytest.raises(SystemExit):
            start(photos, sets)
        message = capsys.readouterr().err
        assert f"other {what}" in message
        assert "choose another --folder" in message
    assert judged == ["a", "a"]


@pytest.mark.slow
def test_the_table_comes_out(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = "file,split\n"
    for split, name in (("train", "astronaut"), ("val", "coffee")):
        Image.fromarray(getattr(skimage.data, name)()[:400, :400]).save(photos / f"{name}.png")
        rows += f"{name}.png,{split}\n"
    (photos / "MANIFEST.csv").write_text(rows)
    options = ["--photos", photos, "--folder", tmp_path / "runs",
               "--pool-folder", tmp_path / "pool", "--json", tmp_path / "figures.json",
               "--sets", 32, "--steps", 2, "--count", 2,
               "--only", "panel of 4", "without vsi"]  # fmt: skip
    result = run_script(ROOT / "benchmarks" / "ablation.py", *options)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert set(figures) == {"panel of 4", "without vsi"}
    for found in figures.values():
        assert all(-1 <= value <= 1 for value in found.values())
        assert found["ladders"] > 0.9
    assert "| without vsi |" in result.stdout
    assert result.stdout.startswith("1 photographs of the `val` split")
