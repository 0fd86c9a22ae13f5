"""What comes along when the package is imported; seconds are for `benchmarks/import_cost.py`."""

from __future__ import annotations

import json
import subprocess
import sys

NEW = """
import json, sys
import torch, jaxtyping
before = set(sys.modules)
{}
new = sorted(set(sys.modules) - before)
print(json.dumps([name for name in new if name.partition(".")[0] not in sys.stdlib_module_names]))
"""
HEAVY = (
    *("matplotlib", "PIL", "sklearn", "skimage", "scipy", "ot", "diffusers", "onnx", "onnxruntime", "accelerate"),
    *("papermill", "nbformat", "pandas", "distributed", "pooch", "torchmetrics", "IPython", "ipywidgets"),
)
METHOD = {"bridges", "model", "matching", "sampling", "student", "distillation"}
UNDER = {"bridges.bridge", "bridges.linear", "bridges.tables", "predictions"}


def added(statement: str) -> set[str]:
    """Modules beside torch's, jaxtyping's and the standard library's."""
    words = [sys.executable, "-W", "ignore", "-c", NEW.format(statement)]
    return set(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))


def test_the_package_brings_nothing() -> None:
    assert added("import ibmd_lite") == {"ibmd_lite"}


def test_the_method_brings_itself_and_the_training() -> None:
    found = added(f"import {', '.join(f'ibmd_lite.{name}' for name in sorted(METHOD))}")
    own = {name.removeprefix("ibmd_lite.") for name in found if name.startswith("ibmd_lite.")}
    assert {name for name in found if not name.startswith("ibmd_lite")} == set()
    assert {name for name in own if name.partition(".")[0] != "training"} == METHOD | UNDER


def test_what_is_heavy_loads_when_it_is_used() -> None:
    modules = ("networks", "data", "evaluation", "training", "baselines", "recipes", "teachers")
    found = added(f"import {', '.join(f'ibmd_lite.{name}' for name in modules)}")
    assert {name.partition(".")[0] for name in found} & set(HEAVY) == set()
