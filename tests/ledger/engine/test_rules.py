"""A chain that went over to rules which this program lacks."""

from __future__ import annotations

import pytest

from ledger import rules_governance
from ledger.engine.embedded import EmbeddedEngine
from ledger.engine.errors import EngineStopped
from ledger.errors import UnknownRules
from tests.ledger.engine.conftest import Chain


async def test_the_engine_stops_and_says_which_release_is_needed(
    engine: EmbeddedEngine, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.submit(chain.transfer(0))
    monkeypatch.setattr(rules_governance, "KNOWN_RULES", frozenset({0}))
    with pytest.raises(EngineStopped, match="install a release of Holdfast that has version 1"):
        await engine.submit(chain.transfer(1))
    with pytest.raises(EngineStopped, match="version 1 of the ledger's rules") as failure:
        await engine.wait_ended()
    assert isinstance(failure.value.__cause__, UnknownRules)
    assert engine.app.account(chain.operator.public_key).nonce == 1  # all there is can still be read
