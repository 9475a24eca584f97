"""CometBFT's genesis.json, made from a ledger's genesis alone: all validators have the same bytes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ledger.engine.cometbft.home.chain_params import consensus_params
from ledger.engine.cometbft.home.keys import public_json
from ledger.engine.cometbft.home.layout import CometFilesError, CometHome, read_object, write_new
from ledger.engine.cometbft.light.header import MAX_CHAIN_ID_BYTES
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis, require_chain_id
from ledger.keys import address

INITIAL_HEIGHT: Final = 1
PARAMS: Final = "consensus_params"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def require_comet_chain_id(chain_id: str) -> None:
    """InvalidGenesis for what no chain on CometBFT can be called."""
    require_chain_id(chain_id)
    if len(chain_id) > MAX_CHAIN_ID_BYTES:
        raise InvalidGenesis(f"chain_id: on CometBFT it has at most {MAX_CHAIN_ID_BYTES} bytes")


def genesis_document(genesis: Genesis) -> dict[str, Any]:
    """CometBFT's genesis, the ledger's own being its `app_state`; InvalidGenesis for one it cannot run."""
    require_comet_chain_id(genesis.chain_id)
    if not genesis.validators:
        raise InvalidGenesis("validators: this genesis is of an embedded ledger, whose operator is alone")
    return {
        "genesis_time": (_EPOCH + timedelta(seconds=genesis.time_s)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "chain_id": genesis.chain_id,
        "initial_height": str(INITIAL_HEIGHT),
        PARAMS: consensus_params(),
        "validators": [
            {
                "address": address(each.consensus_key).hex().upper(),
                "pub_key": public_json(each.consensus_key),
                "power": str(each.power),
                "name": "",
            }
            for each in genesis.validators
        ],
        "app_hash": "",
        "app_state": genesis.to_json(),
    }


def genesis_bytes(genesis: Genesis) -> bytes:
    """The file; founders compare its `genesis_hash`."""
    return (json.dumps(genesis_document(genesis), indent=2, ensure_ascii=False) + "\n").encode()


def genesis_hash(genesis: Genesis) -> str:
    """SHA-256 of the file in hexadecimal, as `cometbft start --genesis_hash` takes it."""
    return hashlib.sha256(genesis_bytes(genesis)).hexdigest()


def install_genesis(home: CometHome, genesis: Genesis) -> None:
    """Writes the file, or checks that the one which is there says the same: CometFilesError if not."""
    raw = genesis_bytes(genesis)
    try:
        write_new(home.genesis_file, raw)
    except FileExistsError:
        found, ought = read_object(home.genesis_file), json.loads(raw)
        if found != ought:
            if found | {PARAMS: ought[PARAMS]} == ought:
                raise CometFilesError(
                    f"{home.genesis_file} has consensus parameters that this release does not know: run the "
                    "release that the chain was made with, or a later one that says it can. Change no file"
                ) from None
            raise CometFilesError(
                f"{home.genesis_file} is not of the chain in the ledger's genesis.json: put the right "
                "one back, or move it away and it is written anew"
            ) from None
