"""Whether a server runs the chain that was pinned, and its history goes on from what was seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ledger import keys, state_tree
from ledger.engine.answers import field, state_proof_of, typed
from ledger.engine.blocks import Block
from ledger.engine.errors import (
    ChainMismatch,
    InvalidProofFile,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerPruned,
    LedgerUnreachable,
)
from ledger.engine.evidence import Evidence
from ledger.engine.proof_file import KIND, ProofFile, record_of
from ledger.engine.transport import Transport
from ledger.fields import FieldError
from ledger.genesis import Genesis
from ledger.state_tree import StateProof
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.ed25519 import PUBLIC_KEY_BYTES
from merkledag.peer import peer_text

if TYPE_CHECKING:
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.proof_file import LightProofFile

AGAIN = ": ask the operator; `holdfast ledger join URL --replace` takes its history as it is now"

BY_VALIDATORS = (
    "shows a chain whose blocks its validators sign, not the operator that is pinned: if that is right, "
    "`holdfast ledger join URL --trust HEIGHT:HASH --replace` pins a header of theirs"
)


class Tip(NamedTuple):
    """The last block that a chain had at some time."""

    height: int
    cid: CID


class TrustPin(NamedTuple):
    """A header that people trust, on a chain whose validators sign headers (CometBFT).

    `stored` is the newest light block that it led to so far, `genesis` the SHA-256 of the genesis that a
    proof has shown; both b"" before the first use.
    """

    height: int
    hash: bytes
    stored: bytes = b""
    genesis: bytes = b""


class Behind(LedgerUnreachable):
    """A server does not have, or does not show, a state that is known to be there."""


class ChainCheck:
    """What is pinned of one server's chain; None where nothing is.

    `tip` is the last block known of it, None without an operator. Methods raise ChainMismatch, and what
    `LedgerClient` says of all its methods.
    """

    def __init__(self, http: Transport, chain: str | None, operator: bytes | None, tip: Tip | None) -> None:
        self._http = http
        self._chain = chain
        self._operator = operator
        self.tip = tip
        self._genesis: Genesis | None = None
        self._checking = asyncio.Lock()
        self._checked = False
        self._signed: tuple[int, bytes] | None = None  # a height, and the app hash after it

    @property
    def is_pinned(self) -> bool:
        """Whether something signed can vouch for the state that the server shows."""
        return self._operator is not None

    @property
    def chain(self) -> str | None:
        """The ID of the chain that was pinned."""
        return self._chain

    @property
    def known_height(self) -> int | None:
        """The last block that is known to be there, whoever is asked; None where nothing is pinned."""
        if self._operator is None:
            return None
        return 0 if self.tip is None else self.tip.height

    def go_on_from(self, tip: Tip) -> None:
        """Another server showed this block of the same chain: before anything else this one must have it."""
        if self._operator is not None and (self.tip is None or self.tip.height < tip.height):
            self.tip, self._checked = tip, False

    async def require(self, *, again: bool = False) -> None:
        """Before the first request, and `again` when a stream is taken up: it must be the pinned chain."""
        if self._chain is None and self._operator is None:
            return
        async with self._checking:
            if self._checked and not again:
                return
            self._genesis = None
            genesis = await self.genesis()
            if self._chain not in (None, genesis.chain_id):
                raise ChainMismatch(f"{self._http.url} runs chain {genesis.chain_id}, not {self._chain}")
            if self._operator is not None:
                if self._operator != genesis.operator:
                    raise ChainMismatch(
                        f"{self._http.url} belongs to {peer_text(genesis.operator)}, not to the operator "
                        f"that was pinned, {peer_text(self._operator)}"
                    )
                await self._require_tip()
            self._checked = True

    def require_height(self, height: int) -> None:
        """The chain must have a block that the server told of before."""
        if self.tip is not None and self.tip.height < height:
            raise self._went_back(f"ends at block {self.tip.height}", height)

    async def genesis(self) -> Genesis:
        """The server's genesis, asked for once; unchecked before `require`."""
        if self._genesis is None:
            try:
                self._genesis = Genesis.from_map(await self._http.get("/v1/genesis"))
            except FieldError as error:
                url = self._http.url
                raise LedgerProtocolError(f"{url} gave no genesis of this version: {error}") from error
        return self._genesis

    async def block(self, height: int | None) -> Block:
        """The block at a height, or the last one, signed by the operator if there is one."""
        answer = await self._http.get(f"/v1/block/{'latest' if height is None else height}")
        block = typed(Block, field(answer, "block"))
        if height is not None and block.height != height:
            raise LedgerProtocolError(f"{self._http.url} gave block {block.height} for block {height}")
        genesis = await self.genesis()
        if genesis.validators and block.chain == genesis.chain_id:
            if self._operator is not None:
                raise ChainMismatch(f"{self._http.url} {BY_VALIDATORS}")
            return block  # nobody pinned what would vouch for it (`TrustPin`)
        if block.chain != genesis.chain_id or block.account != genesis.operator or not block.verify():
            raise ChainMismatch(
                f"block {block.height} from {self._http.url} is not signed by the chain's operator"
            )
        return block

    async def has_transaction(self, height: int, cid: CID) -> bool:
        """Whether the block at a height has the signed transaction of this CID."""
        return cid in (await self.block(height)).txs

    async def light_block(self, height: int | None) -> LightBlock:
        """On CometBFT, a header with what is signed of it, held against no other; else LedgerNotFound."""
        from ledger.engine.cometbft.light.chain import ServerSource
        from ledger.engine.cometbft.light.verify import verify_alone

        found = await ServerSource(self._http).light_block(height)
        verify_alone(found, (await self.genesis()).chain_id)
        return found

    async def prove(self, key: bytes) -> ProofFile | LightProofFile:
        """What the state has at a key, proven from the last block; LedgerNotFound where there is none yet."""
        height, proof = await self._shown_proof(key)
        if (await self.genesis()).validators:  # nobody pinned a header, but the file may be held against one
            from ledger.engine.cometbft.light.chain import settled
            from ledger.engine.cometbft.light.proof_file import LightProofFile

            after = await settled(lambda: self.light_block(height + 1), self._http.url, height)
            return LightProofFile.of((after.encode(),), proof)
        return ProofFile(await self.block(height), KIND, proof)

    async def proven(self, wanted: Sequence[bytes], least: int) -> tuple[int, list[bytes | None]]:
        """A height from `least` on, and what the state after that block has at keys, None for nothing.

        What is signed of the block vouches for it; before the first block nothing is signed, and it is the
        server's word. At most `limits.MAX_PROVEN_KEYS` keys.
        """
        height, proofs = await self._shown_proofs(wanted, least)
        app_hash = await self._app_hash(height)
        for proof in proofs:
            if app_hash is not None and not state_tree.verify(proof, app_hash):
                raise self._false(proof, height)
        return height, [proof.value for proof in proofs]

    async def evidence(self, path: str) -> Evidence:
        """The file of a proof of storage at a path; it is still to be checked."""
        try:
            return Evidence.decode(await self._http.get_bytes(path))
        except InvalidProofFile as error:
            raise LedgerProtocolError(f"{self._http.url} gave no file of a proof: {error}") from error

    async def _shown_proof(self, key: bytes) -> tuple[int, StateProof]:
        """What the server gives as a proof, and of which height."""
        answer = await self._http.get(f"/v1/prove/{key.hex()}")
        height = field(answer, "height")
        if type(height) is not int:
            raise LedgerProtocolError(f"{self._http.url} gave a proof of no height")
        if height == 0:
            raise LedgerNotFound(
                "the chain has no block yet: nothing has been signed that a proof could lead to"
            )
        proof = state_proof_of(field(answer, "compact"))
        if proof.key != key:
            raise LedgerProtocolError(f"{self._http.url} gave the proof of another key")
        return height, proof

    async def _shown_proofs(self, wanted: Sequence[bytes], least: int) -> tuple[int, list[StateProof]]:
        """What the server gives as proofs of these keys, and of which height: not below `least`."""
        url = self._http.url
        answer = await self._http.post(f"/v1/prove?least={least}", dag_cbor.encode(list(wanted)))
        height, shown = field(answer, "height"), field(answer, "proofs")
        if type(height) is not int or not isinstance(shown, list):
            raise LedgerProtocolError(f"{url} gave no proofs; is this a ledger's URL?")
        proofs = [state_proof_of(each) for each in shown]
        if [proof.key for proof in proofs] != list(wanted):
            raise LedgerProtocolError(f"{url} gave the proofs of other keys")
        if height < least:
            raise Behind(f"{url} has the state after block {height}, but there is a block {least}")
        return height, proofs

    async def _app_hash(self, height: int) -> bytes | None:
        """The app hash after a block as its operator signed it; None before the first."""
        if height == 0:
            if self.tip is not None:
                raise self._went_back("has no block", self.tip.height)
            return None
        if self._signed is None or self._signed[0] != height:
            try:
                self._signed = height, (await self.block(height)).app_hash
            except LedgerPruned:
                raise
            except LedgerNotFound as error:  # it is no answer to what was asked
                raise Behind(f"{self._http.url} shows the state after block {height} without it") from error
        return self._signed[1]

    def _false(self, proof: StateProof, height: int) -> ChainMismatch:
        """What is said of a server whose proof does not hold."""
        try:
            record = record_of(proof)
            said = "nothing" if proof.value is None else "something" if record is None else str(record)
        except InvalidProofFile:
            said = "something that does not decode"
        return ChainMismatch(
            f"{self._http.url} says that there is {said:.200} at {key_text(proof.key)} after block {height}, "
            "but what is signed of that block says otherwise: that server lies, or its data are damaged. "
            "Name another one in ledger.url, and tell whoever runs this one"
        )

    async def _require_tip(self) -> None:
        """Anybody can copy a genesis: the operator must have signed the last block, which follows `tip`."""
        before = self.tip
        try:
            last = await self.block(None)
        except LedgerNotFound:
            if before is not None:
                raise self._went_back("has no block", before.height) from None
            return
        if before is not None and last.height < before.height:
            raise self._went_back(f"ends at block {last.height}", before.height)
        if before is not None:
            with suppress(LedgerNotFound):  # it began with the snapshot of a later block
                found = last if last.height == before.height else await self.block(before.height)
                if found.cid != before.cid:
                    raise ChainMismatch(
                        f"{self._http.url} has another block {before.height} than before ({found.cid}, not "
                        f"{before.cid}), both signed by its operator{AGAIN}"
                    )
        self.tip = Tip(last.height, last.cid)

    def _went_back(self, where: str, height: int) -> ChainMismatch:
        return ChainMismatch(f"{self._http.url} {where}, but had block {height} before{AGAIN}")


def key_text(key: bytes) -> str:
    """A key of the state, for messages."""
    prefix, slash, rest = key.partition(b"/")
    if prefix + slash in (keys.ACCOUNT, keys.PROVIDER, keys.VALIDATOR) and len(rest) == PUBLIC_KEY_BYTES:
        return f"{prefix.decode()} {peer_text(rest)}"
    return f"{prefix.decode()} {rest.hex()}" if slash else key.hex()
