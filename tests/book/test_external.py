"""The check of addresses, on a small project and a real server of this machine."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import external
import pytest

ANSWERS = {"/here": [200], "/gone": [404], "/busy": [429], "/private": [403], "/later": [500, 200], "/broken": [500]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Counter[str]]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked: Counter[str] = Counter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            codes = ANSWERS[self.path]
            code = codes[min(asked[self.path], len(codes) - 1)]
            asked[self.path] += 1
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}", asked
        http_server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "said", "times"),
    [
        ("/here", None, 1),
        ("/busy", None, 1),
        ("/private", None, 1),
        ("/later", None, 2),
        ("/gone", "404 Not Found", 1),
        ("/broken", "500 Internal Server Error", 3),
    ],
)
def test_an_address_answers_or_it_is_told_why(server, path: str, said: str | None, times: int) -> None:
    address, asked = server
    assert external.fault(address + path, wait=0) == said
    assert asked[path] == times


def test_nobody_there_is_told() -> None:
    assert "refused" in (external.fault("http://127.0.0.1:9/", wait=0) or "")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    cells = [
        {"cell_type": "markdown", "source": ["See [this](https://one.org/a#part),\n", "and <https://two.org/b>."]},
        {"cell_type": "code", "source": ["print('https://three.org/c')"], "outputs": ["https://hidden.org"]},
    ]
    (tmp_path / "page.ipynb").write_text(json.dumps({"cells": cells}), "utf8")
    (tmp_path / "other.md").write_text(
        "https://one.org/a, http://example.org/x, `http://127.0.0.1:80/`, http://{host}/"
    )
    (tmp_path / "book.bib").write_text("@a{b,\n  eprint    = {2502.01362},\n  doi = {10.1000/182},\n}\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test.py").write_text("'https://made-up.org'")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_where_addresses_are_found(project: Path) -> None:
    assert external.addresses(project) == {
        "https://arxiv.org/abs/2502.01362": ["book.bib"],
        "https://doi.org/10.1000/182": ["book.bib"],
        "https://one.org/a": ["other.md", "page.ipynb"],
        "https://two.org/b": ["page.ipynb"],
        "https://three.org/c": ["page.ipynb"],
    }


def test_what_does_not_answer_is_told_with_its_files(project: Path, server, monkeypatch, capsys) -> None:
    address, _ = server
    monkeypatch.setattr(external, "addresses", lambda root: {address + "/here": ["a.md"], address + "/gone": ["b.md"]})
    assert external.main() == 1
    said = capsys.readouterr().out
    assert f"{address}/gone: 404 Not Found (in b.md)" in said
    assert "2 addresses asked, 1 without an answer." in said
