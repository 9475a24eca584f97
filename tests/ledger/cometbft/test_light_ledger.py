"""A real validator and whoever asks it: clients with a pinned header, CometBFT's light proxy, and liars."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from cli.ledger_light import shown_header
from cli.output import CommandError, ExitCode
from ledger import keys, state_proof
from ledger.engine.chain_check import TrustPin
from ledger.engine.client import LedgerClient
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.errors import Divergence, InvalidLightBlock, TrustExpired
from ledger.engine.cometbft.light.proof_file import LightProofFile, is_light, require_from
from ledger.engine.cometbft.light.validators import ValidatorSet
from ledger.engine.cometbft.light.verify import Rules
from ledger.engine.errors import (
    ChainMismatch,
    InvalidProofFile,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerPruned,
    LedgerRefused,
    LedgerUnreachable,
)
from ledger.engine.render import CBOR_TYPE
from ledger.genesis import HOLD
from ledger.records import AccountRecord
from ledger.result import Code
from ledger.transactions import Transaction, Transfer, sign
from merkledag import dag_cbor
from tests.ledger.cometbft.application import CHAIN, FAR_S, signer, transfer
from tests.ledger.cometbft.processes import end, find_cometbft
from tests.ledger.cometbft.served import Running, served
from tests.ports import free_port

pytestmark = [pytest.mark.peers, pytest.mark.asyncio(loop_scope="module")]

ALICE = keys.account(signer("alice").public_key)
NOBODY = keys.account(signer("nobody").public_key)
OPERATOR = signer("operator").public_key
PROXY_S = 90.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with served(tmp_path_factory.mktemp("light") / "v") as running:
        yield running


def client_of(url: str, pin: TrustPin) -> LedgerClient:
    return LedgerClient(url, expect_chain=CHAIN, expect_trust=pin)


async def test_what_a_server_says_follows_from_the_pinned_header(chain: Running) -> None:
    async with client_of(chain.url, chain.pin) as client:
        assert (await client.genesis()).chain_id == CHAIN
        sent = transfer(1)
        receipt = await client.submit(sent, check_block=True)
        block = await client.block(receipt.height)
        assert (block.sig, block.prev, len(block.txs)) == (b"", None, 2)
        proven = await client.prove(ALICE)
        assert await client.has_transaction(receipt.height, sent)
        assert not await client.has_transaction(receipt.height, transfer(2))
        height, nonce = await client.next_nonce(signer("operator").public_key)
        assert (height >= receipt.height, nonce) == (True, 2)
        assert (client.known_height or 0) >= receipt.height
        moved = client.trusted
    assert isinstance(proven, LightProofFile)
    assert AccountRecord.decode(proven.proof.value or b"").balance == 2 * HOLD
    assert moved is not None
    newest = LightBlock.decode(moved.stored)
    assert newest.height > receipt.height
    assert moved[:2] == chain.pin[:2]
    # What was verified is begun with the next time, without the pinned header.
    async with client_of(chain.url, moved._replace(height=10**9, hash=bytes(32))) as client:
        with pytest.raises(LedgerNotFound, match="does not have header 1000000000"):
            await client.genesis()  # a stored one that is older than the pin is not used
    async with client_of(chain.url, moved._replace(hash=bytes(32))) as client:
        assert (await client.light_block(newest.height)).hash == newest.hash
    async with LedgerClient(
        chain.url, expect_chain=CHAIN, expect_operator=signer("operator").public_key
    ) as client:
        with pytest.raises(ChainMismatch, match="its validators sign"):
            await client.genesis()


async def test_a_proof_is_a_file_that_needs_no_ledger(chain: Running) -> None:
    async with client_of(chain.url, chain.pin) as client:
        found = await client.prove(ALICE)
        absent = await client.prove(NOBODY)
        assert client.trusted is not None
        trusted = LightBlock.decode(client.trusted.stored)
    assert isinstance(found, LightProofFile)
    assert isinstance(absent, LightProofFile)
    raw = found.encode()
    assert is_light(raw)
    blocks = LightProofFile.decode(raw).verified()
    assert (blocks[0].height, blocks[0].hash) == chain.pin[:2]
    now_ns = trusted.header.time_ns
    require_from(blocks[0], blocks, now_ns, Rules())
    require_from(blocks[-1], blocks, now_ns + 10**20, Rules())
    with pytest.raises(TrustExpired):
        require_from(blocks[0], blocks, now_ns + 10**18, Rules())
    with pytest.raises(InvalidLightBlock, match="not later"):
        require_from(trusted, blocks[:1], now_ns, Rules())
    assert absent.verified()
    assert absent.proof.value is None
    other = replace(found, lights=absent.lights[:1])
    with pytest.raises(InvalidProofFile, match="does not lead"):
        other.verified()
    with pytest.raises(InvalidProofFile):
        replace(found, lights=()).verified()
    forged = blocks[-1].header.app_hash
    for at in range(0, len(raw), 97):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            last = LightProofFile.decode(bytes(changed)).verified()[-1]
        except InvalidProofFile:
            continue
        assert last.header.app_hash == forged, "what nobody signed may differ, the proven state not"


Change = Callable[[str, Any], Any]


@asynccontextmanager
async def liar(
    chain: Running,
    change: Change,
    sent: Callable[[web.Request], Awaitable[web.Response]] | None = None,
    *,
    pruned: bool = False,
) -> AsyncIterator[str]:
    """A server in between that changes answers: `change(path, answer)` gives what it says instead.

    None is a 404, or a 410 with `pruned`. `sent` answers instead whoever sends a transaction.
    """

    async def pass_on(request: web.Request) -> web.Response:
        async with (
            aiohttp.ClientSession(headers={"Accept": CBOR_TYPE}) as session,
            session.request(
                request.method,
                chain.url + request.path_qs,
                data=await request.read(),
                headers={"Accept": CBOR_TYPE},
            ) as answer,
        ):
            body = await answer.read()
            if answer.status == 200:
                said = change(request.path, dag_cbor.decode(body))
                if said is None:
                    return web.json_response(
                        {"error": "nothing there", "code": 0}, status=410 if pruned else 404
                    )
                body = dag_cbor.encode(said)
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    app = web.Application()
    if sent is not None:
        app.router.add_post("/v1/tx", sent)
    app.router.add_route("*", "/{path:.*}", pass_on)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def forge_light(answer: Any, **fields: Any) -> Any:
    block = LightBlock.decode(answer["light_block"])
    header = replace(block.header, **fields)
    commit = replace(block.commit, block_id=replace(block.commit.block_id, hash=header.hash()))
    return answer | {"light_block": replace(block, header=header, commit=commit).encode()}


def changes(prefix: str, change: Callable[[Any], Any]) -> Change:
    return lambda path, answer: change(answer) if path.startswith(prefix) else answer


def rich(answer: Any) -> Any:
    """The state's proof with another value: a thousand times as much money."""
    proof = state_proof.decode(answer["compact"])
    record = replace(AccountRecord.decode(proof.value or b""), balance=1_000 * HOLD)
    return answer | {"compact": state_proof.encode(replace(proof, value=record.encode()))}


LIES: dict[str, Change] = {
    "the app hash of a block": changes(
        "/v1/block/", lambda found: found | {"block": found["block"] | {"app_hash": bytes(32)}}
    ),
    "the transactions of a block": changes(
        "/v1/block/", lambda found: found | {"block": found["block"] | {"txs": []}}
    ),
    "the time of a block": changes(
        "/v1/block/", lambda found: found | {"block": found["block"] | {"block_time_s": 1}}
    ),
    "the app hash of a header": changes("/v1/light/", lambda found: forge_light(found, app_hash=bytes(32))),
    "the validators of a header": changes(
        "/v1/light/", lambda found: forge_light(found, next_validators_hash=bytes(32))
    ),
    "a genesis with another issue": changes(
        "/v1/genesis", lambda found: found | {"params": found["params"] | {"base_fee": 999}}
    ),
    "a proven value": changes("/v1/prove/" + ALICE.hex(), rich),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_refused(chain: Running, lie: str) -> None:
    async with client_of(chain.url, chain.pin) as client:
        height = (await client.status())["height"]
    async with liar(chain, LIES[lie]) as url, client_of(url, chain.pin) as client:
        with pytest.raises((ChainMismatch, LedgerProtocolError)):
            await asks_all(client, height)
    async with liar(chain, lambda _path, answer: answer) as url, client_of(url, chain.pin) as client:
        await asks_all(client, height)


async def asks_all(client: LedgerClient, height: int) -> None:
    await client.block(height - 1)
    await client.prove(ALICE)


async def test_another_server_takes_over_from_a_liar(chain: Running) -> None:
    """Whoever lies is left for good, and the truth is told by the other, whichever comes first."""
    for lie in ("the app hash of a block", "the app hash of a header", "a genesis with another issue"):
        async with liar(chain, LIES[lie]) as url:
            for urls in (f"{url},{chain.url}", f"{chain.url},{url}"):
                async with client_of(urls, chain.pin) as client:
                    assert (await client.block(2)).height == 2
                    assert isinstance(await client.prove(ALICE), LightProofFile)
            async with client_of(f"{url},{url}/", chain.pin) as client:
                with pytest.raises(ChainMismatch):
                    await client.block(2)


async def test_a_false_genesis_is_refused_also_by_whoever_denies_the_proof_of_it(chain: Running) -> None:
    """Its chain ID is what a wallet signs for."""

    def lie(path: str, answer: Any) -> Any:
        if path.startswith("/v1/prove/") and "genesis" in made:
            return None if made["genesis"] == "404" else answer | {"height": 0}
        return answer | {"issued": answer["issued"] + 1} if path == "/v1/genesis" else answer

    made = {"genesis": "404"}
    async with liar(chain, lie) as url:
        for made["genesis"] in ("404", "none yet"):
            async with client_of(url, chain.pin) as client:
                with pytest.raises((ChainMismatch, LedgerUnreachable)):
                    await client.genesis()
            async with client_of(f"{url},{chain.url}", chain.pin) as client:
                assert (await client.genesis()).chain_id == CHAIN
    other_chain = changes("/v1/genesis", lambda found: found | {"chain_id": "another-chain"})
    async with liar(chain, other_chain) as url, client_of(url, chain.pin) as client:
        with pytest.raises(ChainMismatch):
            await client.chain_id()


async def test_another_server_takes_over_from_one_that_has_no_headers_or_not_the_pinned_one(
    chain: Running,
) -> None:
    for hidden, pruned in (("/v1/light/latest", False), ("/v1/light/1", True), ("/v1/light/1", False)):
        without = changes(hidden, lambda _: None)
        async with liar(chain, without, pruned=pruned) as url:
            async with client_of(f"{url},{chain.url}", chain.pin) as client:
                assert (await client.genesis()).chain_id == CHAIN
                assert (await client.block(2)).height == 2
            async with client_of(url, chain.pin) as client:
                with pytest.raises((LedgerUnreachable, LedgerPruned)):
                    await client.genesis()


async def test_a_server_that_lags_is_waited_for_and_not_dropped(chain: Running) -> None:
    """Its last header is one that came before the newest trusted one, once."""
    async with client_of(chain.url, chain.pin) as client:
        trusted = await client.light_block()
    assert client.trusted is not None
    before = base64.b64encode((await older_of(chain, trusted.height - 1)).encode())
    lags = [True]

    def late(path: str, answer: Any) -> Any:
        if path == "/v1/light/latest" and lags:
            lags.pop()
            return {"height": trusted.height - 1, "light_block": base64.b64decode(before)}
        return answer

    async with liar(chain, late) as url:
        async with client_of(url, client.trusted) as one:
            with pytest.raises(LedgerUnreachable, match="is behind"):
                await one.genesis()
            assert (await one.genesis()).chain_id == CHAIN
        lags.append(True)
        async with client_of(f"{url},http://127.0.0.1:1", client.trusted) as one:
            assert (await one.genesis()).chain_id == CHAIN


async def older_of(chain: Running, height: int) -> LightBlock:
    async with client_of(chain.url, chain.pin) as client:
        return await client.light_block(height)


async def test_what_is_trusted_by_its_hash_alone_is_shown_with_its_votes(chain: Running) -> None:
    async with client_of(chain.url, chain.pin) as client:
        await client.light_block()
        moved = client.trusted
    assert moved is not None

    def unsigned(path: str, answer: Any) -> Any:
        if path != "/v1/light/2":
            return answer
        block = LightBlock.decode(answer["light_block"])
        power = replace(block.validators.validators[0], power=10**9)
        return answer | {"light_block": replace(block, validators=ValidatorSet((power,))).encode()}

    async with liar(chain, unsigned) as url, client_of(url, moved) as client:
        with pytest.raises(ChainMismatch):
            await client.light_block(2)
    async with client_of(chain.url, moved) as client:
        assert (await client.light_block(2)).validators.total_power < 10**9


def second_history(answer: Any) -> Any:
    """Other headers from block 2 on, signed with the validator's own key: what only it can do."""
    block = LightBlock.decode(answer["light_block"])
    if block.height == 1:
        return answer
    header = replace(block.header, app_hash=bytes(32))
    commit = replace(block.commit, block_id=replace(block.commit.block_id, hash=header.hash()))
    (vote,) = commit.signatures
    vote = replace(vote, signature=signer("consensus-0").sign(commit.sign_bytes(CHAIN, vote)))
    forged = replace(block, header=header, commit=replace(commit, signatures=(vote,)))
    return answer | {"light_block": forged.encode()}


async def test_two_signed_histories_are_told_and_refused(chain: Running) -> None:
    async with liar(chain, changes("/v1/light/", second_history)) as url:
        for urls in (f"{url},{chain.url}", f"{chain.url},{url}"):
            async with client_of(urls, chain.pin) as client:
                with pytest.raises(Divergence, match="two headers of height") as caught:
                    await client.block(2)
                assert client.trusted is not None
                assert LightBlock.decode(client.trusted.stored).height == 1
            assert url in str(caught.value)
            assert chain.url in str(caught.value)
        with pytest.raises(CommandError, match="do not show the same header") as refused:
            await shown_header([chain.url, url], CHAIN)
        assert refused.value.code == ExitCode.INVALID
        assert (await shown_header([chain.url, chain.url], CHAIN)).height >= 1


async def test_what_one_server_refuses_for_good_another_is_asked(chain: Running) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"error": "too poor", "code": int(Code.INSUFFICIENT_STAKE)}, status=400)

    async with liar(chain, lambda _, answer: answer, refuse) as url:
        async with client_of(f"{url},{chain.url}", chain.pin) as client:
            nonce = (await client.account(OPERATOR)).nonce
            receipt = await client.submit(transfer(nonce), check_block=True)
            assert receipt.code == 0
            key = signer("nobody")
            paid = Transfer(OPERATOR, HOLD)
            poor = sign(Transaction(CHAIN, key.public_key, 0, 2_000, FAR_S, paid), key).encode()
            with pytest.raises(LedgerRefused, match=f"the word of {url}, {chain.url}") as refused:
                await client.submit(poor)
            assert refused.value.code == Code.INSUFFICIENT_STAKE
        async with client_of(url, chain.pin) as client:
            with pytest.raises(LedgerRefused, match=f"too poor .the word of {url}"):
                await client.submit(transfer(nonce + 1))


async def test_who_signs_a_second_history_is_punished_by_the_first(tmp_path: Path) -> None:
    """CometBFT checks the evidence that a client made of what two servers showed it."""
    async with (
        served(tmp_path / "v") as chain,
        liar(chain, changes("/v1/light/", second_history)) as url,
        client_of(f"{url},{chain.url}", chain.pin) as client,
        LedgerClient(chain.url) as plain,
    ):
        assert not (await plain.validator(OPERATOR)).validator.jailed
        with pytest.raises(Divergence) as caught:
            await client.block(2)
        assert f"{chain.url} took the evidence" in str(caught.value)
        assert f"{url} took no evidence (header" in str(caught.value)
        async for block in plain.events(1):
            if any(event.kind == "validator_jailed" for event in block.events):
                break
        assert (await plain.validator(OPERATOR)).validator.jailed
        # What is no evidence is refused, and CometBFT is not asked.
        own = await plain.light_block(3)
        body = own.encode()
        for raw, common, why in (
            (body, "1", "is the one of this chain"),
            (body, "3", "comes before"),
            (body[:40], "1", "light block"),
            (replace(own, header=replace(own.header, app_hash=b"")).encode(), "1", "signs another header"),
        ):
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{chain.url}/v1/light?common={common}", data=raw) as answer,
            ):
                assert answer.status == 400
                assert why in (await answer.json())["error"]


def false_proofs(change: Callable[[list[bytes]], Any]) -> Change:
    return lambda path, found: (
        found | {"proofs": change(found["proofs"])} if path == "/v1/prove" and found["height"] > 1 else found
    )


def flipped(proofs: list[bytes]) -> list[bytes]:
    """The last byte is of an aunt."""
    return [raw[:-1] + bytes([raw[-1] ^ 1]) for raw in proofs]


def richer(proofs: list[bytes]) -> list[bytes]:
    value = AccountRecord(999 * HOLD, 7).encode()
    return [state_proof.encode(replace(state_proof.decode(raw), value=value)) for raw in proofs]


STATE_LIES: dict[str, Change] = {
    "an aunt": false_proofs(flipped),
    "a value": false_proofs(richer),
    "none": false_proofs(lambda _: []),
    "absence": false_proofs(
        lambda proofs: [
            state_proof.encode(replace(state_proof.decode(raw), value=None, leaf=None)) for raw in proofs
        ]
    ),
    "an older height": lambda path, found: found | {"height": 1} if path == "/v1/prove" else found,
    "a height to come": lambda path, found: found | {"height": 10**9} if path == "/v1/prove" else found,
}


STATE_READS: tuple[Callable[[LedgerClient], Awaitable[Any]], ...] = (
    lambda client: client.params(),
    lambda client: client.account(OPERATOR),
    lambda client: client.account(signer("nobody").public_key),
    lambda client: client.validator(OPERATOR),
    lambda client: client.next_nonce(OPERATOR),
    lambda client: client.standing(OPERATOR),
)


@pytest.mark.parametrize("lie", STATE_LIES)
async def test_what_is_read_of_the_state_is_proven(chain: Running, lie: str) -> None:
    """Also that something is not there; and another server is asked where one says what is not so."""
    async with client_of(chain.url, chain.pin) as client:
        truth = [await read(client) for read in STATE_READS[:4]]
        moved = client.trusted
    assert moved is not None

    def hasty(urls: str) -> LedgerClient:
        return LedgerClient(
            urls,
            expect_chain=CHAIN,
            expect_trust=moved,
            sleep=lambda seconds: asyncio.sleep(min(seconds, 0.1)),
        )

    reads = STATE_READS[1:2] if "height" in lie else STATE_READS  # a height is waited for
    caught = 0
    async with liar(chain, STATE_LIES[lie]) as url:
        for read in reads:
            async with hasty(url) as client:
                try:
                    assert await read(client) in truth, "that something is absent was true"
                except (ChainMismatch, LedgerProtocolError, LedgerUnreachable):
                    caught += 1
        async with hasty(f"{url},{chain.url}") as client:
            assert [await read(client) for read in STATE_READS[:4]] == truth
    assert caught >= len(reads) - 1


async def test_what_was_paid_shows_at_once_to_whoever_asks_then(chain: Running) -> None:
    """Though a state is proven one block later."""
    async with client_of(chain.url, chain.pin) as client:
        before = (await client.standing(signer("operator").public_key)).record
        await client.submit(transfer(before.nonce))
        for url in (chain.url, f"{chain.url},{chain.url}/"):
            async with client_of(url, chain.pin) as other:
                after = await other.account(signer("operator").public_key)
                assert (after.nonce, after.balance < before.balance) == (before.nonce + 1, True)
        assert (await client.next_nonce(signer("operator").public_key))[1] == before.nonce + 1


async def test_without_a_pin_a_proof_still_names_its_headers(chain: Running) -> None:
    async with LedgerClient(chain.url) as client:
        found = await client.prove(ALICE)
    assert isinstance(found, LightProofFile)
    assert len(found.verified()) == 1


async def query(url: str, key: bytes, path: str = "/store/state/key", **more: str) -> Any:
    """`abci_query` as anybody's tool asks it."""
    params = {"path": json.dumps(path), "data": "0x" + key.hex(), "prove": "true", **more}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/abci_query", params=params) as answer:
        return await answer.json()


async def test_abci_queries_are_of_the_block_before_the_last(chain: Running) -> None:
    for path in ("/store/state/key", "/state/key"):
        found = (await query(chain.rpc.url, ALICE, path))["result"]["response"]
        height = int(found["height"])
        after = (await chain.rpc.commit(height + 1))["signed_header"]["header"]  # it is there already
        proof = found["proofOps"]["ops"]
        assert [op["type"] for op in proof] == ["simple:v", "simple:v"]
        assert AccountRecord.decode(base64.b64decode(found["value"])).balance >= HOLD
        assert after["app_hash"]
    absent = (await query(chain.rpc.url, NOBODY))["result"]["response"]
    assert absent["code"] != 0
    assert "nothing there" in absent["log"]
    for wrong in ({"path": "/else"}, {"height": "1"}, {"key": b""}):
        asked: dict[str, Any] = {"key": ALICE} | wrong
        refused = (await query(chain.rpc.url, **asked))["result"]["response"]
        assert (refused["code"] != 0, refused["value"]) == (True, None)
    # CometBFT hands a path on as it comes, and ends where the application does not answer.
    async with aiohttp.ClientSession() as session:
        for odd in ("0xff", "0xc328", "0xeda080"):
            async with session.get(f"{chain.rpc.url}/abci_query", params={"path": odd}) as answer:
                response = (await answer.json())["result"]["response"]
                assert response["log"].startswith("no path")


@asynccontextmanager
async def light_proxy(home: Path, chain: Running, primary: str) -> AsyncIterator[str]:
    """CometBFT's own light client, which serves what it verified."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(str(find_cometbft()), "light", CHAIN, "--primary", primary, "--witnesses", chain.rpc.url),
        *("--height", str(chain.pin.height), "--hash", chain.pin.hash.hex()),
        *("--laddr", f"tcp://127.0.0.1:{port}", "--home-dir", str(home)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(PROXY_S), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{url}/health"):
                        break
                except aiohttp.ClientError:
                    assert process.returncode is None, "the proxy ended"
                    await asyncio.sleep(0.02)
        yield url
    finally:
        await end(process)


@asynccontextmanager
async def lying_rpc(chain: Running, change: Callable[[Any], Any]) -> AsyncIterator[str]:
    """CometBFT's RPC with changed results; `change` gets each and may change it in place."""

    async def pass_on(request: web.Request) -> web.Response:
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, chain.rpc.url + request.path_qs, data=await request.read()
            ) as answer,
        ):
            found = await answer.json()
            if "result" in found:
                change(found["result"])
            return web.json_response(found)

    async def events(request: web.Request) -> web.WebSocketResponse:
        """The proxy does not begin without; nobody subscribes."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/websocket", events)
    app.router.add_route("*", "/{path:.*}", pass_on)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def forged_value(result: Any) -> None:
    if "response" in result and result["response"].get("value"):
        record = replace(
            AccountRecord.decode(base64.b64decode(result["response"]["value"])), balance=HOLD * 999
        )
        result["response"]["value"] = base64.b64encode(record.encode()).decode()


def forged_proof(result: Any) -> None:
    if "response" in result and result["response"].get("proofOps"):
        op = result["response"]["proofOps"]["ops"][1]
        data = bytearray(base64.b64decode(op["data"]))
        data[-1] ^= 1
        op["data"] = base64.b64encode(data).decode()


def forged_header(result: Any) -> None:
    if "signed_header" in result and result["signed_header"]["header"]["height"] != "1":
        result["signed_header"]["header"]["app_hash"] = "AB" * 32


async def test_the_proxy_of_cometbft_takes_the_truth(chain: Running, tmp_path: Path) -> None:
    async with (
        lying_rpc(chain, lambda result: None) as primary,
        light_proxy(tmp_path, chain, primary) as url,
    ):
        found = await query(url, ALICE)
        assert "error" not in found, found
        value = base64.b64decode(found["result"]["response"]["value"])
        assert AccountRecord.decode(value).balance >= HOLD
        assert "error" in await query(url, NOBODY)


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (forged_value, "leaf hash mismatch"),
        (forged_proof, "calculated root hash is invalid"),
        (forged_header, "failed to update light client"),
    ],
)
async def test_the_proxy_of_cometbft_refuses_a_forgery(
    chain: Running, tmp_path: Path, forge: Callable[[Any], Any], why: str
) -> None:
    async with lying_rpc(chain, forge) as primary, light_proxy(tmp_path, chain, primary) as url:
        found = await query(url, ALICE)
        assert why in found["error"]["data"]
