"""Workspaces that the report's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from report_world import World, plain_world

from workbench.workspace import Workspace


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return plain_world(tmp_path_factory.mktemp("plain")).write()


@pytest.fixture
def world(tmp_path: Path) -> Callable[[], World]:
    return lambda: plain_world(tmp_path / "workspace")
