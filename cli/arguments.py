"""Arguments of several commands: CIDs, content paths, accounts, shards. What does not parse is exit 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import count_text, not_found, usage
from merkledag.cid import CID
from merkledag.errors import InvalidCID, InvalidPath

if TYPE_CHECKING:
    from ledger.engine.views import DealView
    from merkledag.path import ContentPath

DealArgument = Annotated[str, typer.Argument(metavar="DEAL", help="ID of the deal.")]
ShardArgument = Annotated[int, typer.Argument(metavar="SHARD", help="Number of the shard, from 0.")]


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
    from merkledag.peer import parse_peer

    try:
        return parse_peer(text)
    except InvalidCID as error:
        raise usage(f"{text!r} is no account: {error}") from None


def check_shard(view: DealView, shard: int) -> None:
    """Exit 3 for a shard that the deal does not have."""
    if not 0 <= shard < len(view.shards):
        raise not_found(
            f"deal {view.id} has no shard {shard}: it has {count_text(len(view.shards), 'shard')}"
        )
