"""Open chapters as Colab does, and run all: `make colab`.

A rehearsal on this machine: an environment that has a torch and a numpy of its own already, a module `google.colab`,
an empty folder with the notebook alone, and the set-up cell, which installs this checkout from its address. The
address is one that git is told to look for here, and every package comes from a folder that was filled before,
so that nothing can slip in from elsewhere. What Colab alone has, a GPU and Drive, is not rehearsed.
Imports nbformat, yaml and its neighbour `links`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml

from links import ROOT

CHAPTERS = ("book/distillation/ibmd-in-forty-lines.ipynb", "book/images/one-step.ipynb")
ADDRESS = "https://host.localdomain/ibmd-lite"


def called(*words: str | Path, **options: object) -> str:
    """What a command prints; its words and its complaint where it fails."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return str(done.stdout)


def published(folder: Path) -> Path:
    """A repository of this checkout as it stands, with an address filled in."""
    project = folder / "project"
    files = called("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_bytes((ROOT / name).read_bytes())
    config = yaml.safe_load((project / "_config.yml").read_text("utf8"))
    config["repository"] = {"url": ADDRESS, "branch": "main"}
    (project / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    called(sys.executable, ROOT / "book/_ext/links.py", "--root", project)
    git = ("git", "-C", project, "-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost")
    called("git", "init", "--quiet", "--initial-branch", "main", project)
    called(*git, "add", "--all")
    called(*git, "commit", "--quiet", "--message", "as it stands")
    return project


def machine(folder: Path, project: Path, torch: str, numpy: str) -> tuple[Path, Path]:
    """Its Python, and the folder of packages that it may install from."""
    python, index = folder / "machine" / "bin" / "python", folder / "index"
    called(sys.executable, "-m", "venv", folder / "machine")
    already = ["ipykernel", "nbclient", f"torch=={torch}", f"numpy=={numpy}"]
    called(python, "-m", "pip", "install", "--quiet", *already)
    stub = Path(called(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (stub / "google" / "colab").mkdir(parents=True)
    (stub / "google" / "colab" / "__init__.py").touch()
    (stub / "colab.pth").write_text("import google.colab\n")  # there from the start, as in Colab's kernels
    asked = [f"{project}[notebooks]", "setuptools>=77", *already[2:]]
    called(python, "-m", "pip", "download", "--quiet", "--dest", index, *asked)
    return python, index


def packages(python: Path) -> dict[str, str]:
    """Name and version of all that is installed."""
    lines = called(python, "-m", "pip", "freeze", "--all").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def opened(chapter: Path, python: Path, environment: dict[str, str], folder: Path) -> list[str]:
    """Run all cells of the chapter, alone in an empty folder; what its set-up cell said."""
    alone = folder / "content" / chapter.stem
    alone.mkdir(parents=True)
    (alone / chapter.name).write_bytes(chapter.read_bytes())
    words = [python.with_name("jupyter"), "execute", chapter.name, "--inplace"]
    called(*words, cwd=alone, env=environment)
    cells = [cell for cell in nbformat.read(alone / chapter.name, 4).cells if cell.cell_type == "code"]
    left = [cell.source[:40] for cell in cells if cell.source.strip() and not cell.execution_count]
    if left:
        sys.exit(f"{chapter.name}: not all cells were run: {left}")
    return [output.text for output in cells[0].outputs if output.get("name") == "stdout"]


def main() -> None:
    """Rehearse, and print what each chapter said and took."""
    pins = dict(
        line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="*", type=Path, default=[Path(name) for name in CHAPTERS])
    parser.add_argument("--torch", default=pins["torch"], help="the version that the machine has already")
    parser.add_argument("--numpy", default="2.2.6", help="likewise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = published(folder)
        python, index = machine(folder, project, options.torch, options.numpy)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("IBMD_", "PYTHONPATH"))}
        environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{project}.insteadOf",
            "GIT_CONFIG_VALUE_0": ADDRESS,
        }
        before = packages(python)
        for chapter in options.chapters:
            began = time.monotonic()
            said = "".join(opened(project / chapter, python, environment, folder)).replace(name, "")
            print(f"{chapter.name}: all cells ran, {time.monotonic() - began:.0f} s\n  " + said.replace("\n", "\n  "))
        after = packages(python)
        changed = {key: (before[key], after.get(key)) for key in before if after.get(key) != before[key]}
        if changed:
            sys.exit(f"the set-up cell changed what the machine had: {changed}")
        print(
            f"{len(after) - len(before)} packages were added; torch {after['torch']} and numpy {after['numpy']} stayed"
        )


if __name__ == "__main__":
    main()
