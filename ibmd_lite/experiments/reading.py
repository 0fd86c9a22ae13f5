"""Files that people write and runs leave, read with care: what is wrong in one is a ``ValueError`` that names it.

``yaml_of`` for sweeps and parameters, ``notebook_of`` for notebooks, ``result_of`` for the ``result.json`` of a run.
Imports yaml and nbformat.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import yaml

__all__ = ["notebook_of", "result_of", "yaml_of"]

RESULT = {
    "notebook": str,
    "notebook_path": str,
    "case": dict,
    "parameters": dict,
    "metrics": dict,
    "fingerprint": str,
    "started": str,
    "wall_seconds": int | float,
}


def result_of(path: Path) -> dict[str, Any]:
    """What a ``result.json`` holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, or is not of a run.
    """
    try:
        result = json.loads(path.read_text("utf8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is no result of a run: {error}") from error
    if not isinstance(result, dict):
        raise ValueError(f"{path} is no result of a run: expected an object, found a {type(result).__name__}")
    if wrong := [name for name, kind in RESULT.items() if not isinstance(result.get(name), kind)]:
        raise ValueError(f"{path} is no result of a run: {', '.join(wrong)} missing, or not of the right type")
    return result


def yaml_of(text: str | bytes, name: str) -> Any:
    """The value of a YAML text.

    Raises ValueError, with ``name`` in it, for what is no YAML and for one name twice in a mapping.
    """
    try:
        loader = _Loader(text)
        loader.name = name
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as YAML: {error}") from error


def notebook_of(path: Path) -> nbformat.NotebookNode:
    """A notebook of today's format; ValueError for a file that is none, or that cannot be read."""
    try:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if not isinstance(cell.source, str) or not isinstance(cell.metadata.get("tags", []), list):
                raise ValueError("a cell's source must be text, its tags a list")
    except Exception as error:  # nbformat fails in many ways on what is none
        raise ValueError(f"{path} cannot be read as a notebook: {error}") from error
    return notebook


class _Loader(yaml.SafeLoader):
    """YAML's own takes the last of two equal names, and says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    told = f"`{key.value}` stands there twice; leave one out"
                    raise yaml.MarkedYAMLError(problem=told, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node
