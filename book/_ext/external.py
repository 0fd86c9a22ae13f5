"""Ask every address outside of the project whether it still answers; `make external-links` needs a network.

The addresses are those in the prose of the pages, the docstrings, the bibliography (arXiv numbers and DOIs too) and
the files at the root.  Imports the standard library alone, so that the check needs no installation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("*.md", "*.ipynb", "*.py", "*.bib", "*.cff", "*.toml", "*.yml")
ADDRESS = re.compile(r"https?://[^\s<>\"'`)\]}\\]+")
NUMBERS = {
    re.compile(r"^\s*eprint\s*=\s*[{\"]([\w.\-/]+)", re.MULTILINE): "https://arxiv.org/abs/",
    re.compile(r"^\s*doi\s*=\s*[{\"](10\.[^}\"]+)", re.MULTILINE): "https://doi.org/",
}
NOT_ASKED = re.compile(r"(^|\.)(example(\.com|\.net|\.org)?|invalid|test|localhost|w3\.org)$|^127\.")
BUSY = {403, 429, 503, 999}  # "not now", or not to a machine: the address is there
TRIES = 3


def addresses(root: Path) -> dict[str, list[str]]:
    """Every address, with the files that name it."""
    command = ["git", "ls-files", *KINDS]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    for name in listed.stdout.splitlines():
        if not name.startswith("tests/"):
            for address in sorted(set(_named(root / name))):
                found.setdefault(address, []).append(name)
    return found


def _named(path: Path) -> Iterator[str]:
    text = path.read_text("utf8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    for found in ADDRESS.findall(text):
        address = found.rstrip(".,;:!?*").partition("#")[0]
        if "{" not in address and not NOT_ASKED.search(urlsplit(address).hostname or ""):
            yield address
    if path.suffix == ".bib":
        for number, before in NUMBERS.items():
            yield from (before + found.strip() for found in number.findall(text))


def fault(address: str, wait: float = 5.0, timeout: float = 30.0) -> str | None:
    """What is wrong with an address, in words; None where it answers."""
    said = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(wait * attempt)
        request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (a check of links)"})
        try:
            with urllib.request.urlopen(request, timeout=timeout):
                return None
        except urllib.error.HTTPError as error:
            if error.code in BUSY:
                return None
            said = f"{error.code} {error.reason}"
            if error.code in (404, 410):
                break
        except (OSError, ValueError) as error:
            said = str(getattr(error, "reason", error))
    return said


def main() -> int:
    """Print each address that does not answer, with the files that name it."""
    found = addresses(ROOT)
    with ThreadPoolExecutor(8) as threads:
        faults = dict(zip(found, threads.map(fault, found), strict=True))
    broken = {address: said for address, said in faults.items() if said is not None}
    for address, said in broken.items():
        print(f"{address}: {said} (in {', '.join(found[address])})")
    print(f"{len(found)} addresses asked, {len(broken)} without an answer.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
