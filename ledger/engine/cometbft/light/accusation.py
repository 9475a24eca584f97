"""Evidence that validators signed a second history, in the form that CometBFT takes, checks and punishes.

Sources: light/detector.go (newLightClientAttackEvidence) and types/evidence.go (LightClientAttackEvidence) of
CometBFT 0.39; the JSON is that of its `broadcast_evidence`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ledger.engine.cometbft.home.keys import public_json
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.header import HASHES, BlockId, Header
from ledger.engine.cometbft.light.validators import Validator
from ledger.engine.cometbft.light.votes import CommitSig, Flag
from merkledag import rfc3339

# A header that differs in one of these was not made by the chain's rules: a "lunatic" attack.
DERIVED = (
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
)


def evidence(conflicting: LightBlock, trusted: LightBlock, common: LightBlock) -> dict[str, Any]:
    """What `broadcast_evidence` takes as its `evidence`, for a node whose chain has `trusted` and `common`.

    `conflicting` is the other block of the height of `trusted`, `common` the last one before both that both
    histories have.
    """
    made_up = _is_made_up(conflicting.header, trusted.header)
    at = common if made_up else trusted
    return {
        "type": "tendermint/LightClientAttackEvidence",
        "value": {
            "ConflictingBlock": _light_block(conflicting),
            "CommonHeight": str(at.height),
            "ByzantineValidators": [_validator(each) for each in guilty(conflicting, trusted, common)],
            "TotalVotingPower": str(at.validators.total_power),
            "Timestamp": rfc3339.format_ns(at.header.time_ns),
        },
    }


def guilty(conflicting: LightBlock, trusted: LightBlock, common: LightBlock) -> list[Validator]:
    """Who is known to have signed against the rules, by power, the largest first.

    Of a history that the rules would not make: whoever signed it and had power at `common`. Of two blocks of
    one round: whoever signed both. Of two rounds nobody: which of them broke the rules does not show.
    """
    if _is_made_up(conflicting.header, trusted.header):
        known = common.validators.by_address()
        signed = [known[each.address] for each in _signers(conflicting) if each.address in known]
    elif conflicting.commit.round == trusted.commit.round:
        pairs = zip(conflicting.commit.signatures, trusted.commit.signatures, strict=True)
        both = [one.address for one, other in pairs if one.flag is other.flag is Flag.COMMIT]
        known = conflicting.validators.by_address()
        signed = [known[address] for address in both if address in known]
    else:
        signed = []
    return sorted(signed, key=lambda each: (-each.power, each.address))


def _is_made_up(header: Header, trusted: Header) -> bool:
    return any(getattr(header, name) != getattr(trusted, name) for name in DERIVED)


def _signers(block: LightBlock) -> Sequence[CommitSig]:
    return [each for each in block.commit.signatures if each.flag is Flag.COMMIT]


def _light_block(block: LightBlock) -> dict[str, Any]:
    validators = [_validator(each) for each in block.validators.validators]
    commit = block.commit
    return {
        "signed_header": {
            "header": _header(block.header),
            "commit": {
                "height": str(commit.height),
                "round": commit.round,
                "block_id": _block_id(commit.block_id),
                "signatures": [_vote(each) for each in commit.signatures],
            },
        },
        # A proposer belongs to the form; nothing that is signed says who of them it is.
        "validator_set": {"validators": validators, "proposer": validators[0]},
    }


def _header(header: Header) -> dict[str, Any]:
    return {
        "version": {"block": str(header.block_version), "app": str(header.app_version)},
        "chain_id": header.chain,
        "height": str(header.height),
        "time": rfc3339.format_ns(header.time_ns),
        "last_block_id": _block_id(header.last_block_id),
        "proposer_address": _hex(header.proposer),
        **{name: _hex(getattr(header, name)) for name in HASHES},
    }


def _block_id(value: BlockId) -> dict[str, Any]:
    return {"hash": _hex(value.hash), "parts": {"total": value.parts, "hash": _hex(value.parts_hash)}}


def _vote(vote: CommitSig) -> dict[str, Any]:
    return {
        "block_id_flag": int(vote.flag),
        "validator_address": _hex(vote.address),
        "timestamp": rfc3339.format_ns(vote.time_ns),
        "signature": base64.b64encode(vote.signature).decode() if vote.signature else None,
    }


def _validator(each: Validator) -> dict[str, Any]:
    return {
        "address": _hex(each.address),
        "pub_key": public_json(each.public_key),
        "voting_power": str(each.power),
        "proposer_priority": "0",
    }


def _hex(value: bytes) -> str:
    return value.hex().upper()
