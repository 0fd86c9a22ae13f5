"""A cache of their own for tests that read image files."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which no other test and no user shares."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IBMD_CACHE", str(folder))
    return folder
