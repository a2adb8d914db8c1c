"""Exported programs give what the network gives, whatever the size of batch and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from relqa_loss.export import Output, export_onnx, export_program
from relqa_loss.network import find_weights, load_pretrained

SHAPES = [(1, 3, 32, 32), (3, 3, 128, 80), (2, 3, 96, 160)]


def pair(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    target = torch.rand(shape, generator=generator)
    noise = 0.1 * torch.randn(shape, generator=generator)
    return (target + noise).clamp(0, 1), target


@torch.no_grad()
def expected(preds: Tensor, target: Tensor, weights: str) -> dict[str, Tensor]:
    return dict(load_pretrained(weights)(target, preds)._asdict())


@pytest.mark.slow
def test_programs_of_torch_take_any_size() -> None:
    program = export_program(outputs=["score", "distance"]).module()
    for shape in SHAPES:
        preds, target = pair(shape)
        score, distance = program(preds, target)
        wanted = expected(preds, target, "relqa-base")
        torch.testing.assert_close(score, wanted["score"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(distance, wanted["distance"], atol=1e-4, rtol=1e-5)


@pytest.mark.slow
def test_default_device_and_dtype_do_not_matter() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            program = export_program(weights="relqa-nano", outputs=["distance"]).module()
    finally:
        torch.set_default_dtype(torch.float32)
    preds, target = pair((2, 3, 48, 64))
    wanted = expected(preds, target, "relqa-nano")["distance"]
    torch.testing.assert_close(program(preds, target)[0], wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "outputs"),
    # The maps of both come from networks of one shape, which take a minute to write.
    [("relqa-base", ("distance", "score", "maps")), ("relqa-nano", ("distance",))],
)
def test_onnx_takes_any_size(tmp_path: Path, weights: str, outputs: tuple[Output, ...]) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = export_onnx(tmp_path / "new" / "relqa.onnx", weights=weights, outputs=outputs)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in SHAPES:
        preds, target = pair(shape)
        found = session.run(None, {"preds": preds.numpy(), "target": target.numpy()})
        wanted = expected(preds, target, weights)
        errors = {
            name: np.abs(values - wanted[name].numpy())
            for name, values in zip(outputs, found, strict=True)
        }
        assert errors["distance"].max() < 1e-4
        if outputs == ("distance",):
            continue
        assert errors["maps"].max() < 1e-4
        # The sign of noise upon noise may be all but undecided, and there it turns so fast that
        # rounding shows: by 1e-4 of what the score can be, while clear cases keep the bound.
        distance, score = wanted["distance"].numpy(), wanted["score"].numpy()
        undecided = np.abs(score) < 0.5 * distance
        assert (errors["score"] < 1e-4 * np.where(undecided, distance, 1)).all()
    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["relqa_loss.weights"] == find_weights(weights).version
    assert metadata["relqa_loss.channels"].split(",") == list(load_pretrained().channels)
    assert [output.name for output in model.graph.output] == list(outputs)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="exists"):
        export_onnx(path)
    assert path.read_bytes() == before


def test_a_file_is_replaced_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    asked: list[object] = []

    class Begun(Exception):
        pass

    def begin(**options: object) -> None:
        asked.append(options)
        raise Begun

    monkeypatch.setattr("relqa_loss.export.export_program", begin)
    path = tmp_path / "there.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"exists; .* overwrite=True \(relqa export --overwrite"):
        export_onnx(path)
    assert not asked
    with pytest.raises(Begun):
        export_onnx(path, overwrite=True)
    assert path.read_bytes() == b"precious"  # until another is complete


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    for outputs in (["distances"], [], ["maps", "maps"]):
        with pytest.raises(ValueError, match="outputs must be some of"):
            export_program(outputs=outputs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(tmp_path / "network.pt")
