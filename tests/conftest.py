"""What all tests share.

Hypothesis has the same examples on every run: a change is judged by what it changed, not by luck.
``HYPOTHESIS_PROFILE=search`` looks for new ones.
"""

from __future__ import annotations

import os
import random
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from relqa_loss.network import NetworkConfig
from relqa_loss.training.join import join

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_configure(config: pytest.Config) -> None:
    # xdist begins with the files of many tests and would end with one process at the slow ones.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process waits for another at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws from a global generator is the same in any order of tests."""
    seed = zlib.crc32(item.nodeid.encode())
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@pytest.fixture(scope="session")
def structureless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network whose losses minimise just what its metrics report."""
    path = tmp_path_factory.mktemp("weights") / "structureless.safetensors"
    nano = Path("relqa-nano")
    join(nano, nano, path, network=replace(NetworkConfig.nano(), derivatives=False, contrast=False))
    return path
