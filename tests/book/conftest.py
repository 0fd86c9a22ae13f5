"""The built book and a browser that reads it, each made once."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
from filelock import FileLock
from links import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HTML = ROOT / "_build" / "html"
COMPLETE = ROOT / "_build" / "complete"  # written after a build without a warning, here and by `make pages`


def _newest_source() -> float:
    patterns = ("_config.yml", "_toc.yml", "CHANGELOG.md", "ibmd_lite/**/*.py", "book/**/*.*")
    sources = (path for pattern in patterns for path in ROOT.glob(pattern))
    return max(path.stat().st_mtime for path in sources if "__pycache__" not in path.parts)


@pytest.fixture(scope="session")
def pages() -> Path:
    """Folder of the built pages; built here if it is missing or older than what it is made from."""
    HTML.parent.mkdir(exist_ok=True)
    with FileLock(HTML.parent / "build.lock"):
        if not COMPLETE.exists() or COMPLETE.stat().st_mtime < _newest_source():
            COMPLETE.unlink(missing_ok=True)
            program = str(Path(sys.executable).with_name("jupyter-book"))
            command = [program, "build", ".", "--all", "-n", "-W", "--keep-going", "-q"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, f"the book does not build:\n{done.stdout}\n{done.stderr}"
            COMPLETE.touch()
    return HTML


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site(pages: Path) -> Iterator[str]:
    """Address of a server for the built pages, on this machine only."""
    handler = functools.partial(_Quiet, directory=str(pages))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests are skipped, or fail where one is required."""
    executable = chromium.path()
    if executable is None:
        reason = "browser tests need Chromium: `apt install chromium`, or set IBMD_CHROMIUM to its path"
        if os.environ.get("IBMD_REQUIRE_BROWSER") == "1" or os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with chromium.headless(executable) as browser:
        yield browser
