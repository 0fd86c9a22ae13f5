"""Every slider of the book, moved in a real JupyterLab: the picture beside it changes.

Chapters run at quick size in a copy of their folder; chapters that have not changed are left out, as in `test_runs`,
all but a short one. `make quick` moves every slider.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from chapters import quick_parameters, skip_unchanged
from links import ROOT, notebooks
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.notebook, pytest.mark.filterwarnings("default")]

PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent)"
STARTED = f"() => {PROMPTS}.some(text => /[*\\d]/.test(text))"
ALL_DONE = f"cells => {PROMPTS}.filter(text => /\\[\\d+\\]/.test(text)).length === cells"
SLIDER = re.compile(r"^(?:display\.)?explore\(", re.MULTILINE)


def sliders(path: Path) -> int:
    cells = nbformat.read(path, as_version=4).cells
    return sum(len(SLIDER.findall(cell.source)) for cell in cells if cell.cell_type == "code")


WITH_SLIDERS = [path for path in notebooks(ROOT) if sliders(path)]
ALWAYS = "three-curves"


def test_one_chapter_is_always_moved_and_make_quick_moves_all() -> None:
    assert ALWAYS in [path.stem for path in WITH_SLIDERS]
    (recipe,) = re.findall(r"^quick:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf8"), re.MULTILINE)
    assert "IBMD_EVERY_NOTEBOOK=1" in recipe
    assert str(Path(__file__).relative_to(ROOT)) in recipe


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of a JupyterLab server that keeps every cell in the page."""
    folder, settings = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("settings")
    tracker = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [
        "--ServerApp.token=",
        "--ServerApp.disable_check_xsrf=True",
        "--LabApp.news_url=",
        "--ServerApp.port_retries=0",
        f"--notebook-dir={folder}",
    ]
    environment = {key: value for key, value in os.environ.items() if key != "IBMD_STATIC"}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"{address}/api/status", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.5)
            else:
                pytest.fail("JupyterLab did not answer within a minute")
            yield address, folder
        finally:
            server.terminate()


def kernels(address: str) -> list[dict]:
    """The server's kernels; it answers 500 while one of them is just leaving, so ask again then."""
    for _ in range(20):
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{address}/api/kernels", timeout=10) as answer:
            return json.load(answer)
        time.sleep(0.5)
    pytest.fail("JupyterLab would not name its kernels for ten seconds")


def shut_down_kernels(address: str) -> None:
    """The next notebook shall not take this one's kernel for its own, nor share the processor with it."""
    for kernel in kernels(address):
        request = urllib.request.Request(f"{address}/api/kernels/{kernel['id']}", method="DELETE")
        with suppress(urllib.error.HTTPError):  # it left by itself
            urllib.request.urlopen(request, timeout=20).close()


def run_all(page: Page, address: str) -> None:
    """Choose 'Run All Cells' once there is a kernel, and again where JupyterLab, still settling, asks for one."""
    from playwright.sync_api import TimeoutError as NothingSeen

    for _ in range(120):
        if any(kernel["execution_state"] == "idle" for kernel in kernels(address)):
            break
        time.sleep(0.5)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=60_000)
    for _ in range(4):
        page.locator(".lm-MenuBar-item", has_text="Run").first.click()
        page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        with suppress(NothingSeen):
            page.wait_for_function(STARTED, timeout=15_000, polling=200)
            return
        for answer in page.locator(".jp-Dialog .jp-mod-accept").all():
            answer.click()
    pytest.fail("JupyterLab ran no cell within a minute")


@pytest.mark.parametrize("path", WITH_SLIDERS, ids=lambda path: path.stem)
def test_moving_a_slider_changes_its_picture(browser: Browser, lab: tuple[str, Path], path: Path) -> None:
    skip_unchanged(path, always=ALWAYS)
    address, folder = lab
    notebook = parameterize_notebook(load_notebook_node(str(path)), quick_parameters(path))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:  # nothing stored can be taken for something that ran
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / path.name)
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    try:
        page = context.new_page()
        page.goto(f"{address}/lab/tree/{path.name}?reset", wait_until="domcontentloaded")
        run_all(page, address)
        page.wait_for_function(ALL_DONE, arg=len(code), timeout=300_000, polling=500)
        pictures = page.locator("img.ibmd-widget")
        assert page.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0
        assert pictures.count() == sliders(path)
        for number in range(pictures.count()):
            picture, handle = pictures.nth(number), page.locator(".noUi-handle").nth(number)
            before = picture.get_attribute("src")
            handle.scroll_into_view_if_needed()
            handle.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_function(
                "([node, before]) => node.src !== before", arg=[picture.element_handle(), before], timeout=20_000
            )
    finally:
        context.close()
        shut_down_kernels(address)
