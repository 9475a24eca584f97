"""What the rules say of validators, told to the real `cometbft`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from ledger import keys
from ledger.engine.cometbft.home.keys import create_validator_key
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.forms_validators import register_validator
from ledger.genesis import DEMO_PARAMS
from ledger.transactions import Transaction, sign
from proofs.bls.signatures import BlsSigner
from tests.ledger.cometbft.application import CHAIN, FAR_S, seed, signer, transfer
from tests.ledger.cometbft.one import Validator
from tests.ledger.cometbft.processes import offer, until_answers

pytestmark = pytest.mark.peers
LIMIT_S = 150  # of a busy machine


def rotation() -> bytes:
    """The only validator goes over to another consensus key."""
    account, bls = signer("operator"), BlsSigner.from_seed(seed("bls-0"))
    body = register_validator(CHAIN, account.public_key, signer("another"), bls)
    tx = Transaction(CHAIN, account.public_key, 0, DEMO_PARAMS.base_fee * 10, FAR_S, body)
    return sign(tx, account).encode()


async def test_the_only_validator_goes_over_to_another_consensus_key(tmp_path: Path) -> None:
    validator = Validator.create(tmp_path / "one")
    old, new = (keys.address(signer(name).public_key).hex().upper() for name in ("consensus-0", "another"))
    async with asyncio.timeout(LIMIT_S), CometRpc(validator.url) as rpc:
        async with validator.application() as application, validator.cometbft() as cometbft:
            # Given a chain whose validator registers another key, which is in a block at once
            await until_answers(rpc, cometbft, validator.log)
            async with aclosing(rpc.subscribe("tm.event='NewBlock'")) as blocks:
                assert await offer(rpc, [rotation()]) == [0]
                async for block in blocks:
                    if len(block.value["block"]["data"]["txs"]) > 1:
                        break
                # the next block is the old key's yet: then it counts
                height = int(block.value["block"]["header"]["height"])
                await anext(blocks)
            told = block.value["result_finalize_block"]["validator_updates"]
            assert sorted(int(each.get("power", 0)) for each in told) == [0, 10]
            sets = [await rpc.validators(height + step) for step in (1, 2)]
            assert [[each["address"] for each in known] for _, known in sets] == [[old], [new]]
        # when its cometbft is given that key
        for path in (validator.comet.validator_key_file, validator.comet.validator_state_file):
            path.unlink()
        create_validator_key(validator.comet, seed("another"))
        async with validator.application() as application, validator.cometbft() as cometbft:
            await until_answers(rpc, cometbft, validator.log)
            async with aclosing(rpc.subscribe("tm.event='NewBlock'")) as blocks:
                await offer(rpc, [transfer(1)])
                block = await anext(blocks)
            # then the chain goes on with blocks that it proposes
            header = block.value["block"]["header"]
            assert header["proposer_address"] == new
            application.terminate()
            assert await application.wait() == 0
