"""What the HTML reports share: pictures inside the page, signed numbers, one style sheet."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(image: Tensor, width: int | None = None) -> bytes:
    """A 3×H×W image in [0, 1] as PNG, reduced to ``width`` if it is wider."""
    from PIL import Image

    from relqa_loss.distortions._pillow import to_pillow

    picture = to_pillow(image)
    if width is not None and picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A figure of Matplotlib as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def inline(content: bytes) -> str:
    """A PNG as the address of a picture."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def signed(value: float, digits: int = 3) -> str:
    """With its sign, a typographic minus, and no negative zero."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−")


def shortened(name: str, most: int) -> str:
    """Without the middle of what is longer, which would cover or shrink what is beside it."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def style() -> str:
    """The style sheet."""
    return resources.files("relqa_loss").joinpath("_style.css").read_text("utf-8")
