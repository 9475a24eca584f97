"""House rules that a machine can check: who may import whom, what pure code never touches, and sizes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Module:
    """One file of ours, parsed and walked once for all rules."""

    path: Path  # from the root of the repository
    text: str
    tree: ast.Module
    nodes: list[ast.AST]

    @property
    def package(self) -> str:
        return self.path.parts[0]

    @property
    def is_pure(self) -> bool:
        return self.package in PURE and self.path.parts[:2] != ("ledger", "engine")

    @property
    def imported(self) -> Iterator[tuple[int, str]]:
        """Every module name that it imports, at any depth, with its line."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                yield node.lineno, "." * node.level + (node.module or "")


Offences = Iterator[tuple[int, str]]  # lines, and what is wrong there


def modules(package: str) -> Iterator[Module]:
    for path in sorted((ROOT / package).rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text, filename=str(path))
        yield Module(path.relative_to(ROOT), text, tree, list(ast.walk(tree)))


def imports_follow_the_arrows(module: Module) -> Offences:
    for line, name in module.imported:
        top = name.partition(".")[0]
        if name.startswith("."):
            yield line, "a relative import"
        if top in set(ALLOWED) - ALLOWED[module.package] - {module.package}:
            yield line, f"{module.package} imports {name}"
        if top in {"tests", "bench"}:
            yield line, f"product code imports {name}"
        if module.package == "gateway" and top in GATEWAY_NEVER:
            yield line, "the gateway sees content through BlockSource only"


def pure_code_touches_nothing_outside(module: Module) -> Offences:
    if not module.is_pure:
        return
    for line, name in module.imported:
        if {name, name.partition(".")[0]} & IMPURE_MODULES:
            yield line, f"pure code imports {name}"
        if name.startswith("ledger.engine"):
            yield line, "the rules import no engine"
    never = IMPURE_CALLS if module.package == "merkledag" else IMPURE_CALLS | UNSTABLE_CALLS
    for node in module.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in never:
            yield node.lineno, f"pure code calls {node.func.id}()"


def the_ledger_has_no_float(module: Module) -> Offences:
    if not (module.is_pure and module.package == "ledger"):
        return
    for node in module.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno, "a float"
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "true division"


def modules_say_their_purpose_and_stay_small(module: Module) -> Offences:
    first = (ast.get_docstring(module.tree) or "no module docstring").splitlines()[0]
    if not first.endswith((".", "!", "?", ":")):
        yield 1, f"the first line is not a sentence: {first!r}"
    lines = len(module.text.splitlines())
    if lines > MAX_MODULE_LINES:
        yield lines, f"{lines} lines"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name} has {length} lines"


def asserts_check_only_our_own_state(module: Module) -> Offences:
    """`python -O` must change nothing, so no assert calls what moves a cursor or fills a list."""
    for node in module.nodes:
        if isinstance(node, ast.Assert):
            called = {
                n.func.attr
                for n in ast.walk(node.test)
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
            }
            if called & {"pop", "read", "next", "send", "write", "add", "append"}:
                yield node.lineno, f"an assert calls {', '.join(sorted(called))}"


RULES: list[Callable[[Module], Offences]] = [
    imports_follow_the_arrows,
    pure_code_touches_nothing_outside,
    the_ledger_has_no_float,
    modules_say_their_purpose_and_stay_small,
    asserts_check_only_our_own_state,
]


@pytest.mark.parametrize("package", ALLOWED)
def test_every_module_keeps_the_rules(package: str) -> None:
    checked = 0
    offences = []
    for module in modules(package):
        checked += 1
        for rule in RULES:
            offences += [f"{module.path}:{line}: {what}" for line, what in rule(module)]
    assert checked > 0
    assert not offences, "\n".join(offences)
