"""The package as its users get it: the wheel outside the tree, and what importing it pulls in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy
import pytest
import safetensors
import torch
import torchmetrics

ROOT = Path(__file__).resolve().parents[1]

_OPTIONAL = ("PIL", "piq", "lightning", "matplotlib", "rich", "scipy", "skimage")

_SCORE = """
import json, sys
from pathlib import Path
import torch
import relqa_loss
from relqa_loss import RelationalLoss, relational_distance, relational_score
from relqa_loss.network.pretrained import pretrained_folder

torch.manual_seed(0)
target = torch.rand(1, 3, 48, 40)
preds = (target * 0.8).requires_grad_()
loss = RelationalLoss()
loss(preds, target).backward()
alone = RelationalLoss(pixel_weight=0.0)
json.dump({
    "file": relqa_loss.__file__,
    "weights": str(pretrained_folder()),
    "distance": float(relational_distance(preds.detach(), target)),
    "loss": float(loss(preds.detach(), target)),
    "alone": float(alone(preds.detach(), target)),
    "same": float(relational_score(target, target)),
    "gradient": float(preds.grad.abs().sum()),
    "version": relqa_loss.__version__,
}, sys.stdout)
"""


def _run(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    _run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT),
        cwd=out,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_has_the_weights_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("relqa_loss/pretrained/manifest.json"))
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"relqa_loss"}
    for entry in manifest["weights"].values():
        assert f"relqa_loss/pretrained/{entry['file']}" in names
    assert "relqa_loss/pretrained/MODEL_CARD.md" in names
    assert "relqa_loss/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("test" in Path(name).parts[-1] or "/tests/" in name for name in names)
    assert not any(name.endswith((".ckpt", ".pyc")) for name in names)


@pytest.mark.slow
def test_wheel_scores_an_image_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    _run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=tmp_path)
    purelib = _run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
    )
    # Torch and the other dependencies come from the environment of the tests. A .pth line adds a
    # folder without processing the .pth files in it, so an editable install there stays invisible.
    dependencies = (torch, torchmetrics, numpy, safetensors)
    parents = {str(Path(module.__file__).parents[1]) for module in dependencies if module.__file__}
    (Path(purelib.strip()) / "dependencies.pth").write_text("\n".join(sorted(parents)) + "\n")

    answer = json.loads(_run(python, "-I", "-c", _SCORE, cwd=tmp_path))
    assert Path(answer["file"]).is_relative_to(environment)
    assert Path(answer["weights"]).is_relative_to(environment)
    assert answer["distance"] > 0
    assert answer["distance"] == pytest.approx(answer["alone"])
    assert answer["loss"] > answer["alone"]
    assert answer["same"] == 0
    assert answer["gradient"] > 0
    help_text = _run(environment / "bin" / "relqa", "--help", cwd=tmp_path)
    assert "score" in help_text
    assert "train" in help_text


@pytest.mark.parametrize("module", ["relqa_loss", "relqa_loss.cli.main"])
def test_import_needs_no_extras(module: str, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import {module}
print(sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    loaded = _run(sys.executable, "-c", code, cwd=tmp_path)
    for name in _OPTIONAL:
        assert f"'{name}'" not in loaded
    assert "'relqa_loss'" in loaded


def test_import_does_not_load_torchmetrics(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import relqa_loss
print("torchmetrics" in sys.modules)
import relqa_loss.metrics
print("torchmetrics" in sys.modules)
"""
    assert _run(sys.executable, "-c", code, cwd=tmp_path).split() == ["False", "True"]
