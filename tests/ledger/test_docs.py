"""docs/ledger.md says what the code does. `python -m tests.ledger.test_docs` writes its tables anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import (
    events,
    limits,
    money,
    rules_changes,
    rules_datasets,
    rules_deals,
    rules_faults,
    rules_giving_up,
    rules_governance,
    rules_handover,
    rules_proofs,
    rules_providers,
    rules_resigning,
    rules_settlement,
    rules_spot,
    rules_transfers,
    rules_validators,
)
from ledger.context import Context
from ledger.fields import specs
from ledger.genesis import Params
from ledger.result import EXPLANATIONS, Code
from ledger.transactions import BODIES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ledger.md"

# The functions that may refuse a body of each kind.
REFUSERS: dict[str, list[Callable[..., Any]]] = {
    "transfer": [rules_transfers.transfer, money._change],
    "register": [rules_providers.register, money._change],
    "ask": [rules_providers.ask, Context.need_provider],
    "withdraw": [rules_providers.withdraw, Context.need_provider],
    "create_deal": [Context.count_shards, rules_deals.create_deal, rules_deals._check_terms, money._change],
    "accept": [
        rules_deals.accept,
        Context.need_provider,
        Context.need_deal,
        Context.need_shard,
        rules_datasets.create,
        money._change,
    ],
    "prove": [
        rules_proofs.prove,
        rules_proofs.find_provable,
        rules_proofs.check_timing,
        rules_proofs.verify,
        Context.need_kzg_points,
    ],
    "renew": [rules_changes.renew, Context.count_shards, Context.need_deal, money._change],
    "end_deal": [rules_changes.end_deal, Context.count_shards, Context.need_deal],
    "top_up": [rules_changes.top_up, Context.need_deal, Context.need_shard, money._change],
    "hand_over": [rules_handover.hand_over, Context.need_deal, Context.need_shard],
    "give_up": [rules_giving_up.give_up, Context.need_deal, Context.need_shard],
    "stay": [rules_giving_up.stay, Context.need_deal, Context.need_shard],
    "declare_fault": [rules_faults.declare_fault],
    "spot": [rules_spot.spot, Context.need_deal, Context.need_shard, money._change],
    "answer": [
        rules_spot.find_answerable,
        rules_proofs.verify,
        Context.need_deal,
        Context.need_shard,
        Context.need_kzg_points,
    ],
    "propose": [rules_governance.propose, Context.need_provider, money._change],
    "vote": [rules_governance.vote, Context.need_provider],
    "settle": [rules_settlement.settle, Context.need_deal, Context.need_shard],
    "register_validator": [
        rules_validators.register,
        rules_validators.check_registration,
        money._change,
    ],
    "resign": [rules_resigning.resign],
}


def codes_table() -> str:
    rows = [f"| {int(code)} | {code.name} | {EXPLANATIONS[code]} |" for code in sorted(Code)]
    return "\n".join(["| code | name | means |", "| --- | --- | --- |", *rows])


def params_table() -> str:
    default, rows = Params(), []
    for name, spec in specs(Params):
        assert spec.bounds is not None
        low, high = spec.bounds
        rows.append(f"| `{name}` | {getattr(default, name):,} | {low:,} – {high:,} |")
    return "\n".join(["| parameter | default | bounds |", "| --- | --- | --- |", *rows])


TABLES = {"codes": codes_table, "params": params_table}


def with_tables(page: str) -> str:
    for name, table in TABLES.items():
        page = re.sub(
            rf"<!-- {name} -->\n(\n\|.*?\n(?=\n))?", f"<!-- {name} -->\n\n{table()}\n", page, flags=re.S
        )
    return page


def section(kind: str) -> str:
    found = re.search(rf"^\*\*{kind}\*\*:.*?(?=^\*\*|^The \*\*beacon)", PAGE.read_text(), flags=re.S | re.M)
    assert found is not None, f"docs/ledger.md does not describe {kind}"
    return found[0]


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "run: python -m tests.ledger.test_docs"


@pytest.mark.parametrize("kind", list(BODIES))
def test_each_kind_has_its_fields_and_codes(kind: str) -> None:
    text = section(kind)
    fields = re.findall(r"`(\w+)`", text.splitlines()[0])
    assert fields == [name for name, _ in specs(BODIES[kind])]
    listed = re.findall(r"[A-Z_]{6,}", text.split("refused with:")[1].split("- does:")[0])
    raised = {
        name for refuser in REFUSERS[kind] for name in re.findall(r"Code\.(\w+)", inspect.getsource(refuser))
    }
    assert set(listed) == raised
    assert listed == sorted(listed, key=lambda name: Code[name])


def test_every_code_of_a_rule_belongs_to_a_kind() -> None:
    named = {name for kind in BODIES for name in re.findall(r"[A-Z_]{6,}", section(kind))}
    assert {code.name for code in Code if code >= 20} <= named


def test_the_bounds_named_are_those_in_force() -> None:
    page = PAGE.read_text()
    assert limits.MAX_TX_BYTES == 256 << 10
    assert limits.MAX_BLOCK_BYTES == 8 << 20
    for number in (
        limits.MAX_BLOCK_TXS,
        limits.MAX_SHARDS_PER_BLOCK,
        limits.MAX_DRAWS_PER_BLOCK,
        limits.MAX_DUE_PER_BLOCK,
        limits.MAX_SHARDS,
        limits.MAX_OPEN_PROPOSALS,
        limits.MAX_VALIDATORS,
        limits.MAX_CONSENSUS_KEYS,
        limits.MAX_REGISTRATIONS_PER_BLOCK,
        limits.MAX_SPOTS_PER_BLOCK,
        limits.MAX_KZG_POINTS_PER_BLOCK,
        limits.MAX_PENDING_PER_ACCOUNT,
    ):
        assert f"{number:,}" in page


def test_every_event_is_listed_and_every_listed_one_is_emitted() -> None:
    assert events.__doc__ is not None
    listed = set(re.findall(r"^    (\w+) {2,}", events.__doc__, flags=re.M))
    emitted = set()
    rules = PAGE.parents[1] / "ledger"
    for path in (rules / "context.py", *sorted(rules.glob("rules_*.py"))):
        emitted |= set(re.findall(r'emit\(\s*"(\w+)"', path.read_text()))
    assert emitted == listed


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
