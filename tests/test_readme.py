"""The documentation is executable: snippets run, commands parse, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)


def _blocks(page: Path, language: str) -> list[str]:
    found = []
    for match in _BLOCK.finditer(page.read_text("utf-8")):
        if match["language"] == language:
            lines = match["code"].splitlines(keepends=True)
            found.append("".join(line.removeprefix(match["indent"]) for line in lines))
    return found


def _command(name: str) -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    match = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)\n```", text, re.S)
    assert match is not None, f"README.md has no command {name!r}"
    return match[1]


SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(_blocks(page, "python"))
]
PEERS = {
    "piq": "LPIPS",
    "lpips": "LPIPS",
    "torchmetrics.image.lpip": "LearnedPerceptualImagePatchSimilarity",
}
DIFFS = [
    pytest.param(diff, id=name)
    for diff, name in zip(_blocks(ROOT / "README.md", "diff"), PEERS, strict=True)
]
COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line.partition('#')[0].strip()}")
    for page in PAGES
    for block in _blocks(page, "bash")
    for line in block.splitlines()
    if line.startswith("relqa ")
]


def test_there_is_something_to_test() -> None:
    assert len(_blocks(ROOT / "README.md", "python")) >= 4
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    exec(compile(code, "<documentation>", "exec"), {"__name__": "snippet"})


class _Overshooting(torch.nn.Conv2d):
    """All of whose outputs are above white."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 2


def test_the_first_network_learns_from_what_overshoots() -> None:
    """As the recipes have it; what is clamped before the loss has no gradient."""
    code = _blocks(ROOT / "README.md", "python")[0]
    names: dict[str, Any] = {"__name__": "snippet", "Overshooting": _Overshooting}
    exec(compile(code.replace("torch.nn.Conv2d", "Overshooting"), "<README>", "exec"), names)
    assert bool((names["network"].bias.grad > 0).all())


class _Peer(torch.nn.Module):
    """In place of LPIPS, whose weights would be downloaded: its interface, and its range."""

    def __init__(self, *, normalize: bool = False, net: str = "", reduction: str = "") -> None:
        super().__init__()
        self.low = -1.0 if net else 0.0
        self.values: list[torch.Tensor] = []

    def forward(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        for least in (float(image.detach().min()) for image in (preds, target)):
            assert least >= self.low
            assert (least < 0) == (self.low < 0)
        return (preds - target).square().mean()

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        self.values.append(self(preds, target))

    def compute(self) -> torch.Tensor:
        return torch.stack(self.values).mean()


@pytest.mark.parametrize("side", ["-", "+"])
@pytest.mark.parametrize("diff", DIFFS)
def test_both_sides_of_a_migration_run(
    diff: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, member in PEERS.items():
        peer = ModuleType(name)
        setattr(peer, member, _Peer)
        monkeypatch.setitem(sys.modules, name, peer)
    code = "".join(
        line[1:] or "\n" for line in diff.splitlines(keepends=True) if line[0] in f"{side} \n"
    )
    names: dict[str, object] = {"__name__": "snippet"}
    torch.manual_seed(0)
    exec(compile(code, "<documentation>", "exec"), names)
    value = names.get("loss", names.get("value"))
    assert isinstance(value, torch.Tensor)
    assert value.shape == ()
    assert float(value.detach()) > 0
    if "loss" in names:
        preds = names["preds"]
        assert isinstance(preds, torch.Tensor)
        assert preds.grad is not None
        assert bool(preds.grad.any())
    module = (names.get("criterion") or names.get("metric")).__class__.__module__
    assert module.startswith("relqa_loss") == (side == "+")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    from relqa_loss.cli.main import build_parser

    build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_ci_runs_the_test_command_as_written() -> None:
    command = _command("test")
    printed = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "--print-command"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert printed == command
    assert "\n" not in command


@pytest.mark.parametrize(("name", "extra"), [("demo", "demo"), ("test", "test")])
def test_commands_install_into_a_fresh_environment(name: str, extra: str) -> None:
    create, install, run = _command(name).split(" && ")
    assert create == "python3 -m venv .venv"
    assert install == f".venv/bin/pip install -e '.[{extra}]'"
    assert ".venv/bin/" in run
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text("utf-8")


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_operators", ROOT / "docs" / "generate_operators.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operators_page_is_up_to_date() -> None:
    generator = _generator()
    written = (ROOT / "docs" / "operators.md").read_text("utf-8")
    assert written == generator.operators_page(), "run python docs/generate_operators.py"


def test_operators_page_names_every_operator() -> None:
    from relqa_loss.distortions import list_operators

    page = (ROOT / "docs" / "operators.md").read_text("utf-8")
    for operator in list_operators():
        if operator.apply.__module__.startswith("relqa_loss."):
            assert f"| `{operator.name}`" in page
