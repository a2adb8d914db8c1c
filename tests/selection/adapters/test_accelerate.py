"""Selection with Accelerate, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate", reason="Accelerate is not installed")

from accelerate import Accelerator

from relqa_loss.selection import ImageScores
from relqa_loss.selection.adapters.accelerate import RelationalSelection

# Also what test_one_process runs, so that the two can be compared.
LOOP = """
def train(accelerator, folder, tiny, loader):
    import torch
    from relqa_loss.selection.adapters.accelerate import RelationalSelection
    selection = RelationalSelection(accelerator, folder, veto={"ringing": 0.5})
    optimiser = torch.optim.SGD(tiny.parameters(), lr=1e-6)
    model, optimiser, loader = accelerator.prepare(tiny, optimiser, loader)
    reasons = []
    for step, gain in enumerate((0.7, 1.2, 0.9)):
        for degraded, clean in loader:
            loss = tiny.loss(model(degraded), clean)
            optimiser.zero_grad()
            accelerator.backward(loss)
            optimiser.step()
        tiny.gain.data.fill_(gain)
        with torch.no_grad():
            for degraded, clean in loader:
                selection.add(model(degraded), clean)
        reasons.append(selection.decide(step, model).reason)
    return selection, optimiser, reasons
"""

# Five images on two processes in batches of two: the last batch is filled up with repeated ones.
WORKER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from accelerate import Accelerator
from conftest import Tiny
from test_accelerate import LOOP
import torch
from torch.utils.data import DataLoader, TensorDataset
exec(LOOP)
clean = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
folder = Path(sys.argv[2])
loader = DataLoader(TensorDataset(clean * 0.8, clean), batch_size=2)
selection, _, reasons = train(accelerator, folder / "run", Tiny(), loader)
assert (selection.selector is not None) == accelerator.is_main_process
(folder / f"reasons-{accelerator.process_index}.json").write_text(json.dumps(reasons))
# The folder exists now: the first process says so, and no other one waits for it.
try:
    RelationalSelection = type(selection)
    RelationalSelection(accelerator, folder / "run")
except (FileExistsError, RuntimeError) as error:
    (folder / f"error-{accelerator.process_index}.txt").write_text(
        f"{type(error).__name__}: {error}"
    )
accelerator.end_training()
# All that is tested is over, and gloo aborts about one shutdown in ten on a busy machine.
os._exit(0)
"""


def one_process(folder: Path, tiny: Any, loader: Any) -> Any:
    space: dict[str, Any] = {}
    exec(LOOP, space)
    return space["train"](Accelerator(cpu=True), folder, tiny, loader)


def test_one_process(tmp_path: Path, tiny: Any, loader: Any) -> None:
    selection, optimiser, _ = one_process(tmp_path / "run", tiny, loader)
    assert selection.selector.chosen.step == selection.decision.chosen_step == 1
    assert list(selection.selector.load()) == ["gain"]
    torch.testing.assert_close(selection.selector.load()["gain"], torch.full((3, 1, 1), 1.2))
    assert sum(p.numel() for g in optimiser.param_groups for p in g["params"]) == 3
    keyed = RelationalSelection(
        Accelerator(cpu=True), tmp_path / "keyed", scores=ImageScores("score"), keep=3
    )
    images = torch.rand(2, 3, 32, 32)
    keyed.add(images, images, ["b", "a"])
    assert keyed.decide(0, tiny).mean == 0
    assert keyed.selector is not None
    assert keyed.selector._ledger.images == ("a", "b")
    settings = keyed.selector._ledger.settings
    assert [settings[name] for name in ("mode", "metric", "keep")] == ["max", "score", 3]
    with pytest.raises(FileExistsError, match="resume=True"):
        RelationalSelection(Accelerator(cpu=True), tmp_path / "keyed")


def test_weights_of_a_compiled_model_are_those_of_the_bare_one(tmp_path: Path, tiny: Any) -> None:
    accelerator = Accelerator(cpu=True)
    # A part that is compiled by itself keeps its names: the model that is loaded into has them.
    model = torch.nn.Sequential(torch.compile(tiny, backend="eager"))
    selection = RelationalSelection(accelerator, tmp_path)
    selection.add(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    selection.decide(0, accelerator.prepare(torch.compile(model, backend="eager")))
    assert selection.selector is not None
    assert list(selection.selector.load()) == list(model.state_dict())


def test_two_processes_decide_as_one(tmp_path: Path, tiny: Any, loader: Any) -> None:
    alone, _, reasons = one_process(tmp_path / "alone", tiny, loader)
    subprocess.run(
        [
            sys.executable,
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("--no-python", sys.executable, "-c", WORKER, str(Path(__file__).parent)),
            str(tmp_path),
        ],
        check=True,
        timeout=240,
    )
    found = [json.loads((tmp_path / f"reasons-{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1] == reasons
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert ledger["images"] == 5
    for line, entry in zip(ledger["checkpoints"], alone.selector.entries, strict=True):
        assert line["values"] == pytest.approx(entry.values, rel=1e-5, abs=1e-6)
        assert line["profile"] == pytest.approx(entry.profile, rel=1e-5, abs=1e-6)
    assert (tmp_path / "error-0.txt").read_text().startswith("FileExistsError")
    text = (tmp_path / "error-1.txt").read_text()
    assert text.startswith("RuntimeError: selection failed on the first process: FileExistsError")


def test_every_image_of_a_loader_that_was_not_prepared_counts(
    tmp_path: Path, tiny: Any, loader: Any, data: Any
) -> None:
    accelerator = Accelerator(cpu=True)
    selection = RelationalSelection(accelerator, tmp_path)
    # The last batch of the training is of one image, those of the validation are of two.
    for step, _ in enumerate(accelerator.prepare(loader)):
        for first in range(0, 4, 2):
            images = data.tensors[1][first : first + 2]
            selection.add(images, images, [first, first + 1])
        selection.decide(step, tiny)
    assert selection.selector is not None
    assert [len(entry.values) for entry in selection.selector.entries] == [4, 4, 4]


def test_a_validation_that_was_stopped_is_forgotten(tmp_path: Path, tiny: Any) -> None:
    images = torch.rand(2, 3, 32, 32)
    selection = RelationalSelection(Accelerator(cpu=True), tmp_path / "by position")
    with pytest.raises(ValueError, match="one score per image, and there are none: score"):
        selection.decide(0, tiny)
    selection.add(images[:1], images[:1])  # and then an interrupt
    selection.reset()
    selection.add(images, images)
    selection.decide(0, tiny)
    selection.add(images[:1], images[:1])
    selection.add(images, images)
    with pytest.raises(ValueError, match=r"3 by position; reset\(\) .* stopped half-way"):
        selection.decide(1, tiny)
    selection.add(images, images)  # what was refused is forgotten
    selection.decide(1, tiny)
    assert selection.selector is not None
    assert [len(entry.values) for entry in selection.selector.entries] == [2, 2]
    keyed = RelationalSelection(Accelerator(cpu=True), tmp_path / "by key")
    keyed.add(images[:1], images[:1], ["a"])
    with pytest.raises(ValueError, match=r"after 1 others; reset\(\) .* stopped half-way"):
        keyed.add(images, images, ["a", "b"])
