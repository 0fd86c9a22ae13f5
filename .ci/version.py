"""Refuse to build a release whose tag is not the version: python .ci/version.py TAG (an empty tag is any version)."""

import sys
import tomllib
from pathlib import Path

version = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf8"))["project"]["version"]
tag = sys.argv[1] if len(sys.argv) > 1 else ""
if tag and tag != f"v{version}":
    sys.exit(f"the tag is {tag}, pyproject.toml says {version}: tag v{version}, or change the version first")
