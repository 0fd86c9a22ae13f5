"""What a notebook's outputs depend on, as two short words: its code and the package's code that it imports.

Comments, docstrings and prose do not count, so that mending a sentence makes nothing stale. Imports nbformat.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import nbformat

__all__ = ["fingerprint"]

SETUP = {"colab-setup"}  # the address of the project, which no output depends on
PACKAGE = Path(__file__).resolve().parents[1]


def fingerprint(notebook: Path) -> str:
    """CODE-PACKAGE: eight hexadecimal digits for the notebook's code, eight for what it imports of the package."""
    cells = nbformat.read(notebook, as_version=4).cells
    code = [
        cell.source for cell in cells if cell.cell_type == "code" and not SETUP & set(cell.metadata.get("tags", []))
    ]
    trees = [_parsed(source) for source in code]
    seen: dict[Path, str] = {}
    for tree in trees:
        _follow(tree, seen)
    own = "\n".join(map(ast.dump, trees))
    package = "".join(f"{path.relative_to(PACKAGE)} {seen[path]}" for path in sorted(seen))
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:8] for part in (own, package))


def _follow(tree: ast.AST, seen: dict[Path, str]) -> None:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for path in filter(None, map(_file_of, names)):
            if path not in seen:
                module = _parsed(path.read_text("utf8"))
                seen[path] = ast.dump(module)
                _follow(module, seen)


def _file_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*parts[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _parsed(source: str) -> ast.Module:
    """The source as a tree without docstrings; lines of IPython's own syntax are left out."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
