"""Four validators on one machine, killed, wiped and corrupted, under clients that go on through all of it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from cli.comet_init import follow
from cli.comet_service import own_peer
from cli.home import OPERATOR_KEY
from ledger import keys
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.home.config import StateSync
from ledger.engine.cometbft.home.keys import validator_signer
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.errors import LedgerUnreachable
from ledger.engine.sender import Sender
from ledger.forms_validators import register_validator
from ledger.genesis import DEMO_PARAMS, HOLD
from ledger.records import AccountRecord
from ledger.result import Code
from ledger.transactions import Propose, Register, Transfer, Vote
from merkledag.ed25519 import Ed25519Signer
from tests.ledger.cometbft.double_signing import accuse
from tests.ledger.cometbft.network import CHAIN, WAIT_S, Network, Validator, running_network

pytestmark = [pytest.mark.peers, pytest.mark.timeout(400)]

SNAPSHOT_BLOCKS = 15
PARAMS = replace(DEMO_PARAMS, vote_s=10, timelock_s=1)
LITTLE_POWER = 400  # founders have 1,000 each: three of them decide without it
TO, OTHER = (Ed25519Signer.from_seed(bytes([number] * 32)).public_key for number in (1, 2))
DAY_S = 86_400


class Load:
    """A client of all servers who pays again and again, and one who follows all blocks."""

    def __init__(self, network: Network, client: LedgerClient) -> None:
        self.paid = {TO: 0, OTHER: 0}
        self.to = TO
        self.heights: list[int] = []
        self._network = network
        self._client = client
        self._stop = False
        self._one_more = asyncio.Condition()

    async def pay(self) -> None:
        """One transfer after the other, until `stop`; each must be committed."""
        sender = self._network.sender(self._client)
        while not self._stop:
            to = self.to
            receipt = await sender.send(Transfer(to, HOLD))
            assert receipt.code == Code.OK
            self.paid[to] += 1
            async with self._one_more:
                self._one_more.notify_all()

    async def follow(self) -> None:
        """Every block's height, in the order in which they come."""
        async with aclosing(self._client.events(1)) as blocks:
            async for block in blocks:
                self.heights.append(block.height)
                if self._stop:
                    return

    def stop(self) -> None:
        """Ends both."""
        self._stop = True

    async def more(self, count: int = 2, to: bytes = TO) -> None:
        """Returns when so many more transfers to an account are committed; it gets all from now on."""
        self.to = to
        wanted = self.paid[to] + count
        async with self._one_more:
            await self._one_more.wait_for(lambda: self.paid[to] >= wanted)


async def test_clients_go_on_while_validators_fail_and_come_back(tmp_path: Path) -> None:
    settings = {"HOLDFAST_LEDGER_SNAPSHOT_BLOCKS": str(SNAPSHOT_BLOCKS)}
    async with running_network(tmp_path, 4, settings, PARAMS) as network, network.client(3) as client:
        newcomer = await one_more_is_voted_in(network, client, tmp_path / "v4", settings)
        load = Load(network, client)
        async with asyncio.TaskGroup() as tasks:
            paying, following = tasks.create_task(load.pay()), tasks.create_task(load.follow())
            await load.more(1)
            await one_is_killed_and_comes_back(network, load)
            await two_are_killed_and_come_back(network, load)
            await newcomer.start()
            await the_newcomer_proposes_signs_twice_and_is_out(network, newcomer)
            await one_with_a_corrupted_state_stops_itself(network, load)
            load.stop()
            await asyncio.gather(paying, following)
        assert load.heights == list(range(1, len(load.heights) + 1))
        for account, paid in load.paid.items():
            assert (await client.account(account)).balance == paid * HOLD


async def one_more_is_voted_in(
    network: Network, client: LedgerClient, folder: Path, settings: dict[str, str]
) -> Validator:
    """It will have so little power that the others decide without it: it does not run yet."""
    newcomer, founder = Validator(4, folder, settings), network[1]
    network.newcomers.append(newcomer)
    peers = tuple(own_peer(validator.home) for validator in network.validators)
    follow(newcomer.home, network.genesis, replace(newcomer.places, peers=peers), None)
    account = newcomer.home.signer(OPERATOR_KEY)
    rich = network.sender(client)
    senders = Sender(client, account), Sender(client, founder.home.signer(OPERATOR_KEY))
    for sender in senders:
        await rich.send(Transfer(sender.account, 200 * HOLD))
        await sender.send(Register("https://nowhere.invalid", 0, sender.account, 100 * HOLD))
    consensus, bls = validator_signer(newcomer.comet), newcomer.home.bls_signer()
    await senders[0].send(register_validator(CHAIN, account.public_key, consensus, bls))
    proposed = await senders[1].send(Propose({}, 0, "", {account.public_key: LITTLE_POWER}))
    await senders[1].send(Vote(proposed.tx_id, True))
    return newcomer


async def the_newcomer_proposes_signs_twice_and_is_out(network: Network, newcomer: Validator) -> None:
    signer, account = validator_signer(newcomer.comet), newcomer.home.signer(OPERATOR_KEY).public_key
    address = keys.address(signer.public_key).hex().upper()
    async with CometRpc(network[0].rpc_url) as rpc, LedgerClient(newcomer.url, sleep=no_sleep) as client:
        async with asyncio.timeout(WAIT_S), aclosing(rpc.subscribe("tm.event='NewBlock'")) as blocks:
            async for block in blocks:
                header = block.value["block"]["header"]
                if header["proposer_address"] == address:
                    break
            # With its own beacon key: the others have taken that block.
            height = int(header["height"])
            assert (await client.validator(account)).validator.power == LITTLE_POWER
            await accuse(rpc, CHAIN, signer, height)
            async for block in blocks:
                if block.value["block"]["evidence"]["evidence"]:
                    break
        height = int(block.value["block"]["header"]["height"])
        assert await network.agree(height + 2, newcomer)
        found, stake = (await client.validator(account)).validator, (await client.provider(account)).stake
        assert (found.jailed, found.granted, found.power) == (True, 0, 0)
        assert stake == 100 * HOLD * (100 - PARAMS.misbehaviour_percent) // 100
        assert address not in {each["address"] for each in (await rpc.validators(height + 2))[1]}
    await newcomer.stop()


async def one_is_killed_and_comes_back(network: Network, load: Load) -> None:
    """The very one that the clients ask."""
    await network[3].kill()
    await load.more()
    await network[3].start()
    assert await network.agree(load.heights[-1] + 1)


async def two_are_killed_and_come_back(network: Network, load: Load) -> None:
    """One as it was, and the other one by state sync."""
    await network[0].reach(SNAPSHOT_BLOCKS + 3)
    await asyncio.gather(network[2].kill(), network[3].kill())
    height = await halted(network[0], network[1])
    async with LedgerClient(f"{network[0].url},{network[1].url}", sleep=no_sleep) as client:
        assert (await client.status())["height"] == height - 1
    with pytest.raises(LedgerUnreachable, match=f"no ledger answers at {network[3].url}"):
        async with LedgerClient(f"{network[2].url},{network[3].url}", sleep=no_sleep) as client:
            await client.status()
    assert await halted(network[0], network[1]) == height
    lost = network[3]
    await wipe(lost, network)
    await asyncio.gather(network[2].start(), lost.start())
    await load.more()
    await lost.reach(load.heights[-1])
    async with LedgerClient(lost.url) as client:
        assert (await client.status())["pruned_height"] >= SNAPSHOT_BLOCKS - 1
    assert await network.agree(load.heights[-1] + 1)


async def wipe(lost: Validator, network: Network) -> None:
    """Leaves of it keys, configuration and the memory of what it signed; it will begin with a snapshot."""
    shutil.rmtree(lost.home.ledger / "db")
    for path in lost.comet.data.iterdir():
        if path not in (lost.comet.validator_state_file, lost.comet.watermark_file):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    async with CometRpc(network[0].rpc_url) as rpc:
        trusted = (await rpc.commit(2))["signed_header"]["commit"]["block_id"]["hash"]
    sync = StateSync((network[0].rpc_url, network[1].rpc_url), 2, trusted, DAY_S)
    lost.comet.config_file.write_text(lost.places.config("wiped", lost.comet.peers(), sync).text())


async def one_with_a_corrupted_state_stops_itself(network: Network, load: Load) -> None:
    """An account has a coin that nobody gave it: the first block that would add to it ends this one."""
    await load.more(to=OTHER)
    await load.more(to=TO)
    ill = network[3]
    await ill.stop()
    corrupt(ill.home.ledger)
    await ill.start()
    await ill.reach(load.heights[-1])
    await load.more(to=OTHER)
    code, words = await ill.wait_ended()
    assert code == 1
    assert f"the ledger's state is damaged (the state's value at key {keys.account(OTHER).hex()}" in words
    await load.more()


def corrupt(folder: Path) -> None:
    """Adds a coin to an account, past the tree and everything else."""
    with lmdb.open(str(folder / "db"), max_dbs=32) as environment:
        table = environment.open_db(b"state")
        with environment.begin(write=True, db=table) as txn:
            raw = txn.get(keys.account(OTHER))
            assert raw is not None
            record = AccountRecord.decode(raw)
            txn.put(keys.account(OTHER), AccountRecord(record.balance + 1, record.nonce).encode())


async def halted(*alive: Validator) -> int:
    """The height at which those who are left have voted, all the same and for nothing."""
    while True:
        heights = {await validator.stands_still(len(alive)) for validator in alive}
        if len(heights) == 1:
            return heights.pop()


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)
