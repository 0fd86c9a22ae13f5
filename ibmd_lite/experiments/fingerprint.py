"""What a notebook's outputs depend on, as three short words: its code, the package's code, the tables that it reads.

Comments, docstrings and prose do not count, so that mending a sentence makes nothing stale.  What a notebook starts in
other processes cannot be seen in its imports: its metadata names such modules of the package, or files beside it,
``{"ibmd": {"depends": ["ibmd_lite.train", "../_sweeps/slurm.py"]}}``.  Imports its neighbour ``reading``.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from pathlib import Path

from ibmd_lite.experiments.reading import notebook_of

__all__ = ["fingerprint"]

SETUP = {"colab-setup"}  # the address of the project, which no output depends on
PACKAGE = Path(__file__).resolve().parents[1]
TABLES = Path("experiments", "results")
READERS = {"stored", "about"}
IPYTHON = re.compile(r"^([ \t]*)((?:[%!]|[^=\n#'\"]+=[ \t]*[%!]).*)$", re.MULTILINE)  # %magic, !command, x = !command


def fingerprint(notebook: Path) -> str:
    """CODE-PACKAGE-TABLES, eight hexadecimal digits each.

    The notebook's code; the package's that it imports, with what its metadata names; and the package's tables that are
    named in ``stored("...")`` and ``about("...")``, of a name with parts to fill in all that it can mean.

    Raises ValueError for what is no notebook, and for metadata that name something that is not there.
    """
    read = notebook_of(notebook)
    code = [
        cell.source
        for cell in read.cells
        if cell.cell_type == "code" and not SETUP & set(cell.metadata.get("tags", []))
    ]
    trees = [_parsed(source) for source in code]
    seen: dict[Path, str] = {}
    for tree in trees:
        _follow(tree, seen)
    for name in read.metadata.get("ibmd", {}).get("depends", []):
        _add(_named(notebook, name), seen)
    tables = {path for path in seen if PACKAGE / TABLES in path.parents}
    parts = ["\n".join(map(ast.dump, trees)), _joined(seen.keys() - tables, seen), _joined(tables, seen)]
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:8] for part in parts)


def _joined(paths: set[Path], seen: dict[Path, str]) -> str:
    return "".join(f"{Path(os.path.relpath(path, PACKAGE)).as_posix()} {seen[path]}" for path in sorted(paths))


def _follow(tree: ast.AST, seen: dict[Path, str]) -> None:
    for node in ast.walk(tree):
        paths: list[Path | None] = []
        if isinstance(node, ast.Import):
            paths = [_file_of(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            paths = [_file_of(node.module), *(_file_of(f"{node.module}.{alias.name}") for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args:
            paths = [*_tables(node)]
        for path in filter(None, paths):
            _add(path, seen)


def _add(path: Path, seen: dict[Path, str]) -> None:
    """A file, and if it is Python, what it imports."""
    if path not in seen and path.suffix == ".py":
        tree = _parsed(path.read_text("utf8"))
        seen[path] = ast.dump(tree)
        _follow(tree, seen)
    elif path not in seen:
        seen[path] = hashlib.sha256(path.read_bytes()).hexdigest()


def _file_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*parts[1:])
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _named(notebook: Path, name: str) -> Path:
    """The file of an entry of the metadata."""
    path = _file_of(name) or (notebook.parent / name).resolve()
    if not path.is_file():
        raise ValueError(
            f"{notebook.name}: its metadata say that it depends on {name!r}, which is neither a module of the package "
            "nor a file beside the notebook; mend the list ibmd: depends"
        )
    return path


def _tables(call: ast.Call) -> list[Path]:
    """The tables that a call of ``stored`` or ``about`` can read, if its argument is a text, or one with gaps."""
    if getattr(call.func, "id", getattr(call.func, "attr", None)) not in READERS:
        return []
    argument = call.args[0]
    pieces = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    if not isinstance(argument, ast.JoinedStr) and not isinstance(getattr(argument, "value", None), str):
        return []
    name = "".join(re.escape(str(piece.value)) if isinstance(piece, ast.Constant) else ".*" for piece in pieces)
    every = {path.relative_to(PACKAGE / TABLES).as_posix(): path for path in (PACKAGE / TABLES).rglob("*.json")}
    return [path for told, path in every.items() if re.fullmatch(rf"{name}\.json", told)]


def _parsed(source: str) -> ast.Module:
    """The source as a tree without docstrings; what is IPython's own syntax, or no Python, stands in it as text."""
    marked = IPYTHON.sub(lambda found: f"{found[1]}({found[2]!r},)", source)
    for text in (source, marked):
        try:
            tree = ast.parse(text)
            break
        except SyntaxError:
            continue
    else:
        return ast.parse(f"({source!r},)")
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
