"""CometBFT's key files: the consensus key that signs blocks and votes, and the key that peers know a node by.

Both are Ed25519 keys as JSON, readable by their owner alone. CometBFT reads them as they are: they cannot be
sealed with a passphrase. Source: privval/file.go and p2p/key.go of CometBFT 0.39.
"""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any, Final

from ledger.engine.cometbft.home.layout import CometFilesError, CometHome, read_object, write_new
from ledger.engine.cometbft.home.signing import begin
from ledger.keys import address
from merkledag.ed25519 import Ed25519Signer

PRIVATE_TYPE: Final = "tendermint/PrivKeyEd25519"
PUBLIC_TYPE: Final = "tendermint/PubKeyEd25519"
SEED_BYTES: Final = 32
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def node_id(public_key: bytes) -> str:
    """A node's ID, as in ID@HOST:PORT."""
    return address(public_key).hex()


def create_node_key(home: CometHome, seed: bytes) -> None:
    """Writes the node's key, 32 bytes of seed, unless there is one already."""
    document = {"priv_key": _private(Ed25519Signer.from_seed(seed), seed)}
    try:
        write_new(home.node_key_file, json.dumps(document).encode())
    except FileExistsError:
        return


def create_validator_key(home: CometHome, seed: bytes) -> None:
    """Writes the consensus key, 32 bytes of seed, unless there is one already.

    What it signed last belongs to it: a new key gets an empty state. CometFilesError where a state is there
    without its key: it would be taken for the new one's.
    """
    if home.validator_key_file.exists():
        return
    if home.validator_state_file.exists():
        raise CometFilesError(
            f"{home.validator_state_file} is there and its key {home.validator_key_file} is not: "
            "restore the key from a backup, or move the state away to begin with a new key"
        )
    signer = Ed25519Signer.from_seed(seed)
    document = {
        "address": address(signer.public_key).hex().upper(),
        "pub_key": public_json(signer.public_key),
        "priv_key": _private(signer, seed),
    }
    state = {"height": "0", "round": 0, "step": 0}
    write_new(home.validator_state_file, json.dumps(state, indent=2).encode())
    write_new(home.validator_key_file, json.dumps(document, indent=2).encode())
    begin(home)


def node_signer(home: CometHome) -> Ed25519Signer:
    """The node's key; CometFilesError where it is missing, damaged or readable by others."""
    return _signer(home.node_key_file)


def validator_signer(home: CometHome) -> Ed25519Signer:
    """The consensus key; CometFilesError where it is missing, damaged or readable by others."""
    signer = _signer(home.validator_key_file)
    named = read_object(home.validator_key_file)
    if named.get("pub_key") != public_json(signer.public_key):
        raise CometFilesError(f"{home.validator_key_file} is damaged: its two halves do not belong together")
    if str(named.get("address", "")).lower() != address(signer.public_key).hex():
        raise CometFilesError(f"{home.validator_key_file} is damaged: its address is another key's")
    return signer


def public_json(public_key: bytes) -> dict[str, str]:
    """A public key as CometBFT's JSON has it."""
    return {"type": PUBLIC_TYPE, "value": base64.b64encode(public_key).decode()}


def read_public(value: Any) -> bytes:
    """The 32 bytes of an Ed25519 key in CometBFT's JSON; ValueError for anything else."""
    if not isinstance(value, dict) or value.get("type") != PUBLIC_TYPE:
        raise ValueError("not an Ed25519 key")
    found = base64.b64decode(str(value.get("value")), validate=True)
    if len(found) != 32:
        raise ValueError("an Ed25519 key has 32 bytes")
    return found


def _private(signer: Ed25519Signer, seed: bytes) -> dict[str, str]:
    return {"type": PRIVATE_TYPE, "value": base64.b64encode(seed + signer.public_key).decode()}


def _signer(path: Path) -> Ed25519Signer:
    private = read_object(path).get("priv_key")
    if path.stat().st_mode & OTHERS:
        raise CometFilesError(f"others may read {path}: `chmod 600` it, and make a new key if they did")
    if not isinstance(private, dict) or private.get("type") != PRIVATE_TYPE:
        raise CometFilesError(f"{path} holds no Ed25519 key: only those can validate here")
    try:
        both = base64.b64decode(str(private.get("value")), validate=True)
    except ValueError:
        both = b""
    seed, public = both[:SEED_BYTES], both[SEED_BYTES:]
    if len(seed) != SEED_BYTES or Ed25519Signer.from_seed(seed).public_key != public:
        raise CometFilesError(f"{path} is damaged: restore it from a backup")
    return Ed25519Signer.from_seed(seed)
