"""The operator of an embedded ledger rotates its BLS key while blocks are made."""

from __future__ import annotations

import pytest

from ledger import keys
from ledger.engine.errors import EngineError
from ledger.forms_validators import register_validator
from ledger.result import Code
from proofs.bls.signatures import BlsSigner
from tests.ledger.engine.conftest import CHAIN, Chain, seed, until

NEXT = BlsSigner.from_seed(seed("the next beacon"))


def rotation(chain: Chain) -> bytes:
    """What the operator sends to rotate."""
    account = chain.operator.public_key
    return chain.tx("operator", 0, register_validator(CHAIN, account, chain.operator, NEXT))


async def test_the_next_key_signs_once_it_counts_and_the_history_runs_again(chain: Chain) -> None:
    engine = chain.engine()
    await engine.start()
    account = chain.operator.public_key
    receipt = await engine.submit(rotation(chain))
    assert receipt.code == Code.OK
    assert engine.app.bls_key(account) == chain.bls.public_key
    chain.beacons[NEXT.public_key] = NEXT  # made while the engine runs
    await chain.clock.advance(30)
    assert (await engine.submit(chain.transfer(1))).code == Code.OK
    await chain.clock.advance(30)
    assert (await engine.submit(chain.transfer(2))).code == Code.OK
    await chain.clock.advance(30)
    await until(lambda: engine.app.bls_key(account) == NEXT.public_key)
    del chain.beacons[chain.bls.public_key]
    assert (await engine.submit(chain.transfer(3))).code == Code.OK
    height, app_hash = engine.app.height, engine.app.app_hash
    await engine.stop()
    chain.close()
    again = chain.load()
    assert (again.height, again.app_hash) == (height, app_hash)
    assert again.proposer_of(keys.address(account)) == account
    chain.close()


async def test_an_engine_without_the_key_that_counts_ends_and_says_so(chain: Chain) -> None:
    engine = chain.engine()
    chain.beacons.clear()
    await engine.start()
    with pytest.raises(EngineError):
        await engine.submit(chain.transfer(0))
    with pytest.raises(EngineError, match=chain.bls.public_key.hex()):
        await engine.wait_ended()
    await engine.stop()
    chain.close()
