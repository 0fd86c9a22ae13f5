"""Every public name says what it takes, what it gives, what it refuses and where it comes from; sources are parsed."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from links import ROOT

PACKAGE = ROOT / "ibmd_lite"
METHOD = ("bridges", "model", "matching", "sampling", "student", "distillation")
KINDS = (ast.FunctionDef, ast.ClassDef)
Definition = ast.FunctionDef | ast.ClassDef
SHAPE = re.compile(r"\([A-Za-z0-9*]+, ?[^()]*\)|\(\w+,\)")  # (B, *dims), (n,)
ERRORS = {"ValueError", "TypeError", "RuntimeError", "OSError", "FileNotFoundError", "ImportError", "Diverged"}


@dataclass(frozen=True)
class Public:
    """A name of some ``__all__``, where it is defined; ``inside`` is its class's name where it is a method."""

    path: Path
    name: str
    node: Definition
    inside: ast.ClassDef | None = None

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.node.lineno} {self.name}"

    @property
    def words(self) -> str:
        """Its docstring, and for a method that of its class as well."""
        return "\n".join(filter(None, (ast.get_docstring(node) for node in (self.node, self.inside) if node)))


def listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def public() -> Iterator[Public]:
    """Classes and functions of every ``__all__`` in their own files, and the methods of those classes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf8"))
        names = listed(tree)
        for node in tree.body:
            if isinstance(node, Definition) and node.name in names:
                yield Public(path, node.name, node)
                for inner in node.body if isinstance(node, ast.ClassDef) else []:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield Public(path, f"{node.name}.{inner.name}", inner, node)


EVERY = list(public())


def is_property(node: Definition) -> bool:
    return any("property" in ast.unparse(each) for each in node.decorator_list)


def test_there_are_many() -> None:
    assert len(EVERY) > 200


def test_every_file_says_what_lives_there() -> None:
    texts = {path: ast.get_docstring(ast.parse(path.read_text("utf8"))) for path in PACKAGE.rglob("*.py")}
    assert [str(path.relative_to(ROOT)) for path, text in texts.items() if not text] == []


def test_every_public_name_has_a_docstring() -> None:
    """Methods that a class inherits with their words (``forward``, ``state_dict``, an abstract one) may do without."""
    said = {each.name.rpartition(".")[2] for each in EVERY if each.inside and ast.get_docstring(each.node)}
    silent = [each for each in EVERY if not ast.get_docstring(each.node)]
    known = {"forward", "extra_repr", "state_dict"} | said  # torch's own
    assert [each.place for each in silent if each.inside is None or each.name.rpartition(".")[2] not in known] == []


PAGE = ROOT / "book" / "back" / "api.md"
WHOLE = PACKAGE / "experiments"  # in it every module is public, but for the command's
CALLED = PACKAGE / "display" / "hosted.py"  # by every set-up cell


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def public_modules() -> set[str]:
    """Packages, modules beside them, every module of the experiments, and what the page names besides."""
    found = {*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__init__.py"), *WHOLE.glob("*.py"), CALLED}
    found -= {PACKAGE / "__init__.py", WHOLE / "__main__.py"}
    named = re.findall(r"automodule:: (\S+)", PAGE.read_text("utf8"))
    return {module(path) for path in found if listed(ast.parse(path.read_text("utf8")))} | set(named)


def test_every_public_name_stands_in_the_built_reference(pages: Path) -> None:
    """At its module, or as the same thing where it comes from."""
    names = {entry for kind, entries in inventory(pages).items() if kind.startswith("py:") for entry in entries}
    missing = []
    for place in sorted(public_modules()):
        loaded = importlib.import_module(place)
        for name in getattr(loaded, "__all__", []):
            holders = [each.rpartition(".")[0] for each in names if each.rpartition(".")[2] == name]
            if f"{place}.{name}" not in names and not any(
                found(holder, name) is getattr(loaded, name) for holder in holders
            ):
                missing.append(f"{place}.{name}")
    assert missing == []


def inventory(pages: Path) -> dict[str, dict[str, object]]:
    from sphinx.util.inventory import InventoryFile

    with (pages / "objects.inv").open("rb") as file:
        return InventoryFile.load(file, "", lambda _, place: place)


def found(holder: str, name: str) -> object:
    """What a module has under a name; None if it is no module."""
    try:
        return getattr(importlib.import_module(holder), name, None)
    except ModuleNotFoundError:
        return None


PLAIN = re.compile(r"\bTensor( \| None)?")


def bare_tensors(node: ast.FunctionDef) -> Iterator[str]:
    """Arguments and answers that are a plain tensor, whose annotation does not tell its shape."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    for name, annotation in [*((each.arg, each.annotation) for each in arguments), ("return", node.returns)]:
        if annotation is not None and PLAIN.fullmatch(ast.unparse(annotation)):
            yield name


def test_tensors_have_shapes() -> None:
    """In the annotation, as jaxtyping writes them, or in round brackets in the docstring.

    Beside a plain tensor: a ``Source | Tensor`` is a source, and ``Source`` says its shapes.
    """
    functions = [each for each in EVERY if isinstance(each.node, ast.FunctionDef) and ast.get_docstring(each.node)]
    bare = {each.place: list(bare_tensors(each.node)) for each in functions if not SHAPE.search(each.words)}
    assert {place: names for place, names in bare.items() if names} == {}


def raised(node: ast.AST) -> set[str]:
    """Errors that it raises itself and that a caller can mend."""
    calls = [each.exc for each in ast.walk(node) if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call)]
    return {ast.unparse(call.func).rpartition(".")[2] for call in calls} & ERRORS


def made(node: Definition) -> ast.AST:
    """What runs when it is called: of a class, that which makes an object."""
    if isinstance(node, ast.FunctionDef):
        return node
    inner = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    return ast.Module([each for each in inner if each.name in ("__init__", "__post_init__")], [])


def test_what_is_raised_is_said() -> None:
    missing = {each.place: sorted(kind for kind in raised(made(each.node)) if kind not in each.words) for each in EVERY}
    assert {place: kinds for place, kinds in missing.items() if kinds} == {}


@pytest.mark.parametrize("module", METHOD)
def test_the_method_names_its_equations_or_papers(module: str) -> None:
    """Each file of the method cites equations of the notation page, which another test holds to exist."""
    files = [PACKAGE / f"{module}.py"] if module != "bridges" else sorted((PACKAGE / module).glob("*.py"))
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf8")))]
    text = "\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, (*KINDS, ast.Module)))
    assert len(re.findall(r"\(eq:[a-z0-9-]+", text)) >= 1
