"""Peer identities: an Ed25519 key as libp2p peer ID, IPNS name and account (libp2p peer-ids spec)."""

from __future__ import annotations

from merkledag import base, multihash
from merkledag.cid import CID, MAX_TEXT_CHARS
from merkledag.codecs import DAG_PB, LIBP2P_KEY, name
from merkledag.errors import DecodeError, InvalidCID, LimitExceeded

_ED25519_PREFIX = b"\x08\x01\x12\x20"  # protobuf PublicKey{Type: Ed25519, Data: 32 bytes}
_KEY_BYTES = 32


def peer_cid(public_key: bytes) -> CID:
    """The libp2p-key CID of a 32-byte Ed25519 public key; ValueError for another length."""
    if len(public_key) != _KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has {_KEY_BYTES} bytes, not {len(public_key)}")
    return CID(1, LIBP2P_KEY, multihash.digest(_ED25519_PREFIX + public_key, multihash.IDENTITY))


def peer_text(public_key: bytes) -> str:
    """`k51…`: the peer's CID in base36, the form that fits in a DNS label."""
    return peer_cid(public_key).encode("base36")


def parse_peer(text: str) -> bytes:
    """The 32-byte Ed25519 public key named by `k51…`, `12D3Koo…` or any other form of its CID.

    Raises InvalidCID, also for peer IDs that only hash their key (RSA: `Qm…`).
    """
    return key_of_multihash(_multihash(text, (LIBP2P_KEY,)))


def parse_name(text: str) -> bytes:
    """The multihash that an IPNS name in any form stands for; raises InvalidCID.

    Forms: `k51…`, `k2k4…`, `bafz…` and other libp2p-key CIDs, `12D3Koo…`, `16Uiu2…` and `Qm…`. A CID that
    says dag-pb, as old tools wrote, means the key as well.
    """
    return _multihash(text, (LIBP2P_KEY, DAG_PB))


def name_text(mh: bytes) -> str:
    """The canonical text of the IPNS name with this multihash: its libp2p-key CID in base36."""
    return CID(1, LIBP2P_KEY, mh).encode("base36")


def _multihash(text: str, codecs: tuple[int, ...]) -> bytes:
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidCID(f"peer ID of {len(text)} characters; at most {MAX_TEXT_CHARS}")
    if not text.startswith(("1", "Qm")):
        cid = CID.parse(text)
        if cid.codec not in codecs:
            raise InvalidCID(f"{text[:80]!r} has codec {name(cid.codec)}; a peer ID has libp2p-key")
        return cid.multihash
    mh = base.decode_base58(text)
    try:
        multihash.split(mh)
    except (DecodeError, LimitExceeded) as error:
        raise InvalidCID(f"not a peer ID: {error}") from error
    return mh


def key_of_multihash(mh: bytes) -> bytes:
    """The Ed25519 public key inside a peer ID's multihash; raises InvalidCID."""
    try:
        code, digest = multihash.split(mh)
    except (DecodeError, LimitExceeded) as error:
        raise InvalidCID(f"not a peer ID: {error}") from error
    if code != multihash.IDENTITY:
        raise InvalidCID("this peer ID is the hash of a key, not an Ed25519 key")
    if len(digest) != len(_ED25519_PREFIX) + _KEY_BYTES or not digest.startswith(_ED25519_PREFIX):
        raise InvalidCID("this peer ID holds no Ed25519 key")
    return digest[len(_ED25519_PREFIX) :]
