"""House rules that a machine can check: who may import whom, what pure code never touches, and sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 70

# Which of our packages each package may import: the arrows of docs/architecture.md, closed under "and so on".
ALLOWED = {
    "merkledag": set[str](),
    "proofs": {"merkledag"},
    "ledger": {"proofs", "merkledag"},
    "storage_node": {"ledger", "proofs", "merkledag"},
    "gateway": {"merkledag"},
    "cli": {"gateway", "storage_node", "ledger", "proofs", "merkledag"},
}
PURE = ("merkledag", "proofs", "ledger")
# Modules through which a clock, chance, a file, a socket or the environment would get into pure code.
IMPURE_MODULES = {
    "aiohttp", "asyncio", "concurrent", "datetime", "fcntl", "http", "io", "lmdb", "multiprocessing", "os",
    "pathlib", "queue", "random", "requests", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "ssl", "subprocess", "tempfile", "threading", "time", "urllib.request", "uuid", "uvloop",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print", "eval", "exec"}
UNSTABLE_CALLS = {"hash", "id"}  # differ from process to process: never where the result is agreed on
GATEWAY_NEVER = {"lmdb"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def is_pure(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return parts[0] in PURE and parts[:2] != ("ledger", "engine")


ALL = [path for package in ALLOWED for path in modules(package)]
PURE_MODULES = [path for path in ALL if is_pure(path)]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module name that the tree imports, at any depth, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield node.lineno, node.module or ""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def test_there_is_something_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in ALL} == set(ALLOWED)


@pytest.mark.parametrize("path", ALL, ids=names(ALL))
def test_imports_follow_the_arrows(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for line, name in imported(parse(path)):
        top = name.partition(".")[0]
        assert top not in set(ALLOWED) - ALLOWED[package] - {package}, (
            f"line {line}: {package} imports {name}"
        )
        assert top not in {"tests", "bench"}, f"line {line}: product code imports {name}"
        if package == "gateway":
            assert top not in GATEWAY_NEVER, f"line {line}: the gateway sees content through BlockSource only"


@pytest.mark.parametrize("path", PURE_MODULES, ids=names(PURE_MODULES))
def test_pure_code_touches_nothing_outside(path: Path) -> None:
    tree = parse(path)
    for line, name in imported(tree):
        reached = {name, name.partition(".")[0]} & IMPURE_MODULES
        assert not reached, f"line {line}: {name}"
        assert not name.startswith("ledger.engine"), f"line {line}: the rules import no engine"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"line {node.lineno}: calls {node.func.id}()"
            if path.relative_to(ROOT).parts[0] != "merkledag":
                assert node.func.id not in UNSTABLE_CALLS, f"line {node.lineno}: calls {node.func.id}()"


@pytest.mark.parametrize(
    "path", [p for p in PURE_MODULES if p.relative_to(ROOT).parts[0] == "ledger"], ids=lambda p: p.name
)
def test_the_ledger_has_no_float(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float), f"line {node.lineno}: a float"
        if isinstance(node, ast.BinOp | ast.AugAssign):
            assert not isinstance(node.op, ast.Div), f"line {node.lineno}: true division"


@pytest.mark.parametrize("path", ALL, ids=names(ALL))
def test_modules_say_their_purpose_and_stay_small(path: Path) -> None:
    text = path.read_text()
    tree = parse(path)
    docstring = ast.get_docstring(tree)
    assert docstring, "no module docstring"
    first = docstring.splitlines()[0]
    assert first.endswith((".", "!", "?", ":")), f"the first line is not a sentence: {first!r}"
    assert len(text.splitlines()) <= MAX_MODULE_LINES, f"{len(text.splitlines())} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", ALL, ids=names(ALL))
def test_asserts_check_only_our_own_state(path: Path) -> None:
    """`python -O` must change nothing, so no assert calls what moves a cursor or fills a list."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Assert):
            called = {
                n.func.attr
                for n in ast.walk(node.test)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
            }
            assert not called & {"pop", "read", "next", "send", "write", "add", "append"}, (
                f"line {node.lineno}"
            )
