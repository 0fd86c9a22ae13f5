"""Fill the address of the repository into the notebooks, from the one place where it stands.

`make links` writes each notebook's set-up cell for Colab (tag `colab-setup`) from `repository.url`
and `repository.branch` of `_config.yml`; with it, of a chapter that has a large size, thus wants a GPU, its quick
parameters, and of one that keeps its trainings, a call that does. `--check` only looks whether they agree. The launch
buttons need no filling: the theme reads the same two lines. Imports nbformat and yaml.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
TAG = "colab-setup"


def is_reserved(url: str) -> bool:
    """Whether the address is on a name reserved for examples (RFC 2606), so leads nowhere."""
    host = urlsplit(url).hostname or "invalid"
    names = ("example.com", "example.net", "example.org", "example", "invalid", "test", "localhost")
    return any(host == name or host.endswith("." + name) for name in names)


def setup_cell(url: str, branch: str, quick: dict[str, object] | None = None, *, keeps: bool = False) -> str:
    """Source of the set-up cell: does nothing outside Colab; inside it installs ranges and prepares the chapter.

    pip leaves a package alone that is in its range already, so Colab keeps its own torch. quick: parameters of a
    chapter that wants a GPU, for a machine that has none. keeps: whether the chapter keeps its trainings.
    """
    start = 'import sys\n\nif "google.colab" in sys.modules:\n'
    if is_reserved(url):
        return start + '    raise RuntimeError("Set repository.url in _config.yml, then `make links`.")'
    given = "" if quick is None else f"quick={quick!r}"
    return (
        start
        + f'    %pip install --quiet "ibmd_lite[notebooks] @ git+{url}@{branch}"\n'
        + f"    from ibmd_lite.display.hosted import {'keep_trainings, ' if keeps else ''}prepare\n\n"
        + ("    keep_trainings()\n" if keeps else "")
        + f"    prepare({given})"
    )


def quick_instead(path: Path) -> dict[str, object] | None:
    """The quick parameters of a chapter that wants a GPU (it has a large size), None of the others."""
    sizes = path.parents[1] / "_parameters"
    if not (sizes / "large" / f"{path.stem}.yaml").exists():
        return None
    found: dict[str, object] = yaml.safe_load((sizes / "quick" / f"{path.stem}.yaml").read_text("utf8"))
    return found


def keeps_trainings(notebook: nbformat.NotebookNode) -> bool:
    """Whether the chapter keeps its trainings in the folder that ``IBMD_RUNS`` names, as its text then says."""
    return any("IBMD_RUNS" in cell.source for cell in notebook.cells)


def notebooks(root: Path) -> list[Path]:
    """The notebooks of the book: those that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "book/*.ipynb"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        found = (path for path in (root / "book").rglob("[!.]*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    else:
        found = (root / line for line in listed.stdout.splitlines())
    return sorted(path for path in found if path.exists())


def fill(path: Path, url: str, branch: str, *, write: bool) -> bool:
    """Whether the notebook's set-up cell agreed with the address; put it right if `write`."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise SystemExit(f"{path.name}: expected one cell tagged {TAG}, found {len(cells)}")
    wanted = setup_cell(url, branch, quick_instead(path), keeps=keeps_trainings(notebook))
    agrees = cells[0].source == wanted
    if write and not agrees:
        cells[0].source = wanted
        nbformat.write(notebook, path)
    return agrees


def main() -> None:
    """Fill, or with `--check` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something disagrees")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of _config.yml")
    options = parser.parse_args()
    repository = yaml.safe_load((options.root / "_config.yml").read_text("utf8"))["repository"]
    url, branch = repository["url"].rstrip("/"), repository["branch"]
    stale = [path for path in notebooks(options.root) if not fill(path, url, branch, write=not options.check)]
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"The Colab cell of {names} does not agree with repository.url: run `make links`.")
    for path in stale:
        print(f"filled {path.relative_to(options.root)}")


if __name__ == "__main__":
    main()
