"""``relqa export``: its options; ``tests/test_export.py`` has what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relqa_loss.cli.main import main
from relqa_loss.network import find_weights


def test_options_reach_the_exporter(
    tmp_path: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[dict[str, Any]] = []

    def export(path: Path, **options: Any) -> Path:
        seen.append({"path": path, **options})
        path.write_bytes(bytes(1_500_000))
        return path

    monkeypatch.setattr("relqa_loss.export.export_onnx", export)
    out = tmp_path / "a.onnx"
    options = ("--weights", weights, "--outputs", "score", "distance", "--overwrite")
    assert main(["export", str(out), *options]) == 0
    assert capsys.readouterr().out == f"{out}: {find_weights(weights).version}, 1.5 MB\n"
    assert main(["export", str(out)]) == 0
    given = {"weights": weights, "outputs": ["score", "distance"], "overwrite": True}
    usual = {
        "weights": "relqa-base",
        "outputs": ["distance", "score", "maps"],
        "overwrite": False,
    }
    assert seen == [{"path": out, **given}, {"path": out, **usual}]
