"""How CometBFT and the application find out whether they belong together: Info and InitChain.

CometBFT asks Info at its start, compares height and app hash with its own, and gives the application again
whatever blocks it lacks; it refuses one that is ahead. Source: spec/abci of CometBFT, consensus/replay.go.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ledger.application import Application
from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.abci.convert import validator_update
from ledger.engine.cometbft.errors import Disagreement
from ledger.engine.cometbft.home import chain_params
from ledger.engine.cometbft.home.release import is_known, known_text, parse_version
from ledger.engine.cometbft.light.header import BLOCK_PROTOCOL
from ledger.genesis import Genesis

ABCI_MAJOR: Final = "2"
RESET: Final = "state and blocks are backed up, restored and removed together (docs/operating-validators.md)"


def info(app: Application, request: Any, version: str) -> Any:
    """ResponseInfo: exactly what the last Commit wrote. Raises Disagreement for an unknown CometBFT."""
    _check_version(request)
    return messages.ResponseInfo(
        data=app.chain_id,
        version=version,
        app_version=chain_params.APP_VERSION,
        last_block_height=app.height,
        last_block_app_hash=app.app_hash if app.height else b"",
    )


def _check_version(request: Any) -> None:
    """Tools that are no CometBFT ask without saying what they are."""
    if not request.version and not request.abci_version:
        return
    if request.abci_version.partition(".")[0] != ABCI_MAJOR:
        raise Disagreement(
            f"this cometbft speaks ABCI {request.abci_version}, and this program ABCI {ABCI_MAJOR}: "
            f"use CometBFT {known_text()}"
        )
    version = parse_version(request.version)
    if version is None or not is_known(version) or request.block_version != BLOCK_PROTOCOL:
        raise Disagreement(
            f"this cometbft is {request.version} (blocks of version {request.block_version}), which this "
            f"program has not been tried with: use CometBFT {known_text()}"
        )


def init_chain(app: Application, request: Any) -> Any:
    """ResponseInitChain: app hash of the genesis state, and who validates.

    Raises Disagreement where CometBFT's genesis is not that of this ledger.
    """
    if app.height:
        raise Disagreement(
            f"this cometbft begins at its genesis, and the ledger's state is of block {app.height}: {RESET}"
        )
    ours = app.genesis
    if request.chain_id != ours.chain_id:
        raise Disagreement(
            f"CometBFT's genesis is of chain {request.chain_id}, the ledger's of {ours.chain_id}"
        )
    if request.initial_height not in (0, 1):
        raise Disagreement(f"CometBFT's genesis begins at block {request.initial_height}, the ledger at 1")
    if (request.time.seconds, request.time.nanos) != (ours.time_s, 0):
        raise Disagreement(
            f"CometBFT's genesis is of {request.time.seconds} s since 1970, the ledger's of {ours.time_s} s"
        )
    _check_app_state(ours, request.app_state_bytes)
    if found := chain_params.differences(request.consensus_params):
        raise Disagreement(f"CometBFT's genesis has other consensus parameters: {'; '.join(found)}")
    _check_validators(app, request.validators)
    return messages.ResponseInitChain(
        validators=[validator_update(key, power) for key, power in _powers(app).items()],
        app_hash=app.app_hash,
    )


def _check_app_state(ours: Genesis, raw: bytes) -> None:
    try:
        same = Genesis.from_json(json.loads(raw)).encode() == ours.encode()
    except (ValueError, RecursionError) as error:
        raise Disagreement(f"app_state in CometBFT's genesis is no genesis of a ledger: {error}") from None
    if not same:
        raise Disagreement(
            "app_state in CometBFT's genesis is another genesis than the ledger's genesis.json"
        )


def _powers(app: Application) -> dict[bytes, int]:
    """Power by consensus key, in order of account."""
    return {info.record.consensus_key: info.record.power for info in app.validators()}


def _check_validators(app: Application, given: Any) -> None:
    """CometBFT's genesis may leave them to the application's."""
    theirs, ours = {each.pub_key.ed25519: each.power for each in given}, _powers(app)
    if theirs and theirs != ours:
        raise Disagreement(
            f"CometBFT's genesis has other validators ({len(theirs)}) than the ledger's ({len(ours)}), "
            "or gives them other power"
        )
