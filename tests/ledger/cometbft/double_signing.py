"""Two votes of one validator at one height, and the evidence that CometBFT takes of them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

from ledger import keys
from ledger.engine.cometbft.light.header import BlockId
from ledger.engine.cometbft.light.votes import PRECOMMIT, Commit, CommitSig, Flag
from ledger.engine.cometbft.rpc.client import CometRpc
from merkledag import rfc3339
from merkledag.ed25519 import Ed25519Signer


async def accuse(rpc: CometRpc, chain: str, signer: Ed25519Signer, height: int) -> None:
    """Has a key sign for two blocks at a height, and hands a `cometbft` the evidence, which it verifies.

    Source: types/evidence.go, DuplicateVoteEvidence; types/vote.go, Vote; rpc/core/evidence.go.
    """
    _, known = await rpc.validators(height)
    address = keys.address(signer.public_key).hex().upper()
    index = next(number for number, each in enumerate(known) if each["address"] == address)
    time = (await rpc.commit(height))["signed_header"]["header"]["time"]
    votes = [_vote(chain, signer, height, index, time, name) for name in ("one", "another")]
    votes.sort(key=lambda vote: str(vote["block_id"]["hash"]))
    value = {
        "vote_a": votes[0],
        "vote_b": votes[1],
        "TotalVotingPower": str(sum(int(each["voting_power"]) for each in known)),
        "ValidatorPower": known[index]["voting_power"],
        "Timestamp": time,
    }
    await rpc.call(
        "broadcast_evidence", {"evidence": {"type": "tendermint/DuplicateVoteEvidence", "value": value}}
    )


def _vote(
    chain: str, signer: Ed25519Signer, height: int, index: int, time: str, block: str
) -> dict[str, Any]:
    digest = hashlib.sha256(block.encode()).digest()
    address = keys.address(signer.public_key)
    sig = CommitSig(Flag.COMMIT, address, rfc3339.parse(time))
    commit = Commit(height, 0, BlockId(digest, 1, digest), (sig,))
    sig = replace(sig, signature=signer.sign(commit.sign_bytes(chain, sig)))
    return {
        "type": PRECOMMIT,
        "height": str(height),
        "round": 0,
        "block_id": {"hash": digest.hex().upper(), "parts": {"total": 1, "hash": digest.hex().upper()}},
        "timestamp": time,
        "validator_address": address.hex().upper(),
        "validator_index": index,
        "signature": base64.b64encode(sig.signature).decode(),
    }
