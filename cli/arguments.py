"""Arguments that several commands take: CIDs and content paths. What does not parse is exit 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.output import usage
from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath

if TYPE_CHECKING:
    from merkledag.path import ContentPath


def cid_argument(text: str) -> CID:
    """The CID that `text` is; an `/ipfs/` or `ipfs://` path without a sub-path counts. Exit 2 otherwise."""
    for prefix in ("/ipfs/", "ipfs://"):
        if text.startswith(prefix):
            text = text[len(prefix) :].rstrip("/")
    try:
        return CID.parse(text)
    except InvalidCID as error:
        raise usage(f"{text!r} is not a CID: {error}") from None


def path_argument(text: str) -> ContentPath:
    """The content path that `text` is.

    /ipfs/…, /ipns/…, their URIs, or a CID with /sub/path. Exit 2 otherwise.
    """
    from merkledag.path import parse_path

    try:
        return parse_path(text)
    except InvalidPath as error:
        raise usage(str(error)) from None


def account_argument(text: str) -> bytes:
    """An account as people write it (k51…, 12D3Koo…); exit 2 for anything else."""
    from merkledag.errors import InvalidCID
    from merkledag.peer import parse_peer

    try:
        return parse_peer(text)
    except InvalidCID as error:
        raise usage(f"{text!r} is no account: {error}") from None
