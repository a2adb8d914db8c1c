"""Scripts in processes of their own, which import this copy of the library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**others: str) -> dict[str, str]:
    """This process's own, with the library's folder and ``others``."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, **others}


def run_script(
    script: Path, *arguments: object, cwd: Path | None = None, **others: str
) -> subprocess.CompletedProcess[str]:
    """What a script of Python said, and how it ended; ``others`` are for its environment."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=cwd,
        env=environment(**others),
        capture_output=True,
        text=True,
        timeout=300,
    )
