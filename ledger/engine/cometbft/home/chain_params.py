"""What a chain of Holdfast asks of CometBFT's consensus: fixed at its genesis, the same on every node.

They are in every chain's headers (their consensus hash) and follow from no genesis of the ledger's: a release
with other ones could neither run nor join the chains that there are. So they stay; a chain changes its own by
`consensus_param_updates`, under a version of the rules.
"""

from __future__ import annotations

from typing import Any, Final

from ledger import limits

# In every header; a node that restores a snapshot compares it. It changes with the meaning of blocks.
APP_VERSION: Final = 1
# A whole block, evidence and commit included. Half as much as the rules allow: it has to reach everybody.
BLOCK_BYTES: Final = limits.MAX_BLOCK_BYTES // 2
# Evidence counts until it is older than both. In time: for longer than a light client trusts a header
# (`verify.Rules`, 7 days; three more to notice and tell of it), or whoever leads it astray goes free; and for
# shorter than a stake stays bound after its validator left (`unbonding_s`, 21 days).
EVIDENCE_BLOCKS: Final = 100_000
EVIDENCE_S: Final = 10 * 86_400
EVIDENCE_BYTES: Final = 1 << 20


def consensus_params() -> dict[str, Any]:
    """`consensus_params` of CometBFT's genesis.json."""
    return {
        "block": {"max_bytes": str(BLOCK_BYTES), "max_gas": "-1"},
        "evidence": {
            "max_age_num_blocks": str(EVIDENCE_BLOCKS),
            "max_age_duration": str(EVIDENCE_S * 10**9),
            "max_bytes": str(EVIDENCE_BYTES),
        },
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": str(APP_VERSION)},
        "abci": {"vote_extensions_enable_height": "0"},
    }


def differences(params: Any) -> list[str]:
    """Where a `ConsensusParams` message is not what `consensus_params` says: `name value, not value`."""
    evidence = params.evidence
    found = {
        "block.max_bytes": (params.block.max_bytes, BLOCK_BYTES),
        "block.max_gas": (params.block.max_gas, -1),
        "evidence.max_age_num_blocks": (evidence.max_age_num_blocks, EVIDENCE_BLOCKS),
        "evidence.max_age_duration": (_nanoseconds(evidence.max_age_duration), EVIDENCE_S * 10**9),
        "evidence.max_bytes": (evidence.max_bytes, EVIDENCE_BYTES),
        "validator.pub_key_types": (list(params.validator.pub_key_types), ["ed25519"]),
        "version.app": (params.version.app, APP_VERSION),
        "abci.vote_extensions_enable_height": (params.abci.vote_extensions_enable_height, 0),
    }
    return [f"{name} {is_!r}, not {ought!r}" for name, (is_, ought) in found.items() if is_ != ought]


def _nanoseconds(duration: Any) -> int:
    return int(duration.seconds) * 10**9 + int(duration.nanos)
