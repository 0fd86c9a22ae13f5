"""The parameters of a notebook: what its cell tagged `parameters` declares, and whether given values fit.

Nothing of the notebook is run: the cell is parsed, and what is no literal has an unknown type, which any value fits.
``None`` fits where the default is None or the parameter's line names it, as in ``clip = 1.0  # a norm, or None``.
Imports its neighbour ``reading``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibmd_lite.experiments.reading import notebook_of

__all__ = ["Parameter", "check", "declared"]


@dataclass(frozen=True)
class Parameter:
    """One line of the cell; ``default`` is its source and ``known`` False where it is no literal that JSON can hold."""

    name: str
    default: Any
    known: bool
    optional: bool

    def takes(self, value: Any) -> bool:
        """Whether a value is of the default's type; whole numbers are taken for a float, lists for a tuple."""
        if value is None:
            return self.optional
        return not self.known or self.default is None or _alike(value, self.default)


def declared(notebook: Path) -> dict[str, Parameter]:
    """The notebook's parameters by name.

    Raises:
        ValueError: no notebook, none or several cells tagged `parameters`, a cell that is no Python.
    """
    cells = notebook_of(notebook).cells
    sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(sources) != 1:
        raise ValueError(f"{notebook.name} needs one cell tagged `parameters`, has {len(sources)}")
    try:
        tree = ast.parse(sources[0])
    except SyntaxError as error:
        raise ValueError(f"{notebook.name}: its parameters are no Python: {error}") from error
    lines = sources[0].splitlines()
    found = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            words = " ".join(lines[node.lineno - 1 : node.end_lineno])
            found[target.id] = _parameter(target.id, value, bool(re.search(r"\bNone\b", words)))
    return found


def check(notebook: Path, known: Mapping[str, Parameter], given: Mapping[str, Any]) -> None:
    """Refuse names that the notebook has not (``ValueError``) and values of another type (``TypeError``)."""
    if unknown := sorted(map(str, given.keys() - known.keys())):
        raise ValueError(f"{notebook.name} does not know {unknown}; it has {', '.join(sorted(known))}")
    for name, value in given.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} = {value!r}: a parameter must be something that JSON can hold") from error
        if not known[name].takes(value):
            raise TypeError(
                f"{notebook.name}: {name} is {known[name].default!r}, which {value!r} ({type(value).__name__}) cannot "
                f"stand for; give a value of its type{_hint(value, known[name].default)}"
            )


def _parameter(name: str, value: ast.expr, optional: bool) -> Parameter:
    try:
        default = ast.literal_eval(value)
        json.dumps(default, allow_nan=False)
        return Parameter(name, default, True, optional)
    except (ValueError, TypeError):
        return Parameter(name, ast.unparse(value), False, optional)


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and (
            not default or all(any(_alike(each, one) for one in default) for each in value)
        )
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _hint(value: Any, default: Any) -> str:
    """YAML's own trap: 1e-3 without a point is a word to it."""
    if isinstance(value, str) and isinstance(default, float):
        return " (in YAML a number with an exponent needs a point and a sign, such as 1.0e-3)"
    return ", or name None in the parameter's line if it may be null" if value is None else ""
