"""The structure of the code: every folder has a layer, files and functions stay small."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAKE = ROOT / "lake"
MODULES = sorted(LAKE.rglob("*.py"))
MOST_LINES, FEWEST_LINES, MOST_COMPLEX = 400, 25, 10
_BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.Assert,
    ast.match_case,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[_Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, _FUNCTIONS):
            yield node


def _own_nodes(function: _Function) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _FUNCTIONS):
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def complexity(function: _Function) -> int:
    """Paths through a function: ruff's count, and `and`, `or`, conditions, comprehensions."""
    count = 1
    for node in _own_nodes(function):
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, _BRANCHES):
            count += 1
    return count


def test_complexity_counts_every_branch() -> None:
    text = """
def f(a, b):
    if a and b or [x for x in a if x]:
        return 1 if a else 2
    def inner():
        if a: pass
"""
    function = next(node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
    assert complexity(function) == 1 + 1 + 2 + 2 + 1


def test_functions_are_simple() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {complexity(function)}"
        for path in MODULES
        for function in _functions(path)
        if complexity(function) > MOST_COMPLEX
    ]
    assert found == []


def test_files_are_neither_long_nor_tiny() -> None:
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in MODULES
        if path.name not in ("__init__.py", "version.py")
    }
    assert {
        name: count for name, count in lines.items() if not FEWEST_LINES <= count <= MOST_LINES
    } == {}


def test_test_files_are_short() -> None:
    lines = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_every_folder_has_a_layer() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = linter["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    named = {name for layer in layers["layers"] for name in layer.split(" | ")}
    stems = {path.stem for path in LAKE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in LAKE.glob("*/__init__.py")}
    assert layers["exhaustive"]
    assert named == stems | folders
