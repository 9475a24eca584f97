"""What can go wrong in a storage node, by whose fault: the caller's, a peer's, the environment's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merkledag.cid import CID

if TYPE_CHECKING:
    from storage_node.trail import Asked


class StorageNodeError(Exception):
    """Any failure that this package reports. The message is one line that says what to do."""


class PeerError(StorageNodeError):
    """Another node, or a client of this one, is at fault."""


class SignatureRefused(PeerError):
    """A request is not signed, or not by the right key, or the signature is stale or used up."""


class UploadRefused(PeerError):
    """The shard is none that this node takes, or what was uploaded is not the piece of the deal."""


class PeerMisbehaved(PeerError):
    """A node answered with something that its protocol does not allow, or with bytes that fit no CID."""


class PeerUnreachable(PeerError):
    """A node cannot be reached, or does not answer in time."""


class PeerBusy(PeerUnreachable):
    """A node is well and asks to be asked again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EndpointRefused(PeerError):
    """An address that we do not connect to."""


class PlacementFailed(StorageNodeError):
    """Content cannot be placed: too few nodes, too high a price, or no node took a shard."""


# --- the local store: the caller asked for something that is not here, or gave something unusable ---


class BlockNotFound(StorageNodeError, LookupError):
    """The block is not in this store (or, for a network source, nowhere that was asked).

    A network source tells whom it asked, and `unsure` if somebody gave no answer: later it may be found.
    """

    def __init__(self, message: str, asked: Sequence[Asked] = (), *, unsure: bool = False) -> None:
        super().__init__(message)
        self.asked = tuple(asked)
        self.unsure = unsure


class PinNotFound(StorageNodeError, LookupError):
    """The CID is not pinned in the way the caller named."""


class JobNotFound(StorageNodeError, LookupError):
    """There is no pin job of this number: it ended, was cancelled, or never was."""


class BlockRefused(StorageNodeError, ValueError):
    """A multihash or block that no store accepts (too long, too large, empty key)."""


class LockHeld(StorageNodeError):
    """Another process holds the lock that this needs; `.pid` is its process ID, None if unknown."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class FileInUse(StorageNodeError):
    """Another process has a file of the store open that nobody else may use just now."""


# --- names ---


class NameNotFound(StorageNodeError, LookupError):
    """Nothing valid is known of an IPNS key or DNSLink name."""


class NameLoop(StorageNodeError):
    """A name leads back to itself, or through more names than anybody follows."""


class RecordOutdated(StorageNodeError):
    """A record that would take the place of a newer one."""


# --- the environment: these clear by themselves when there is room, or memory, again ---


class StoreFull(StorageNodeError):
    """The disk (or its reserve, or the address space of a shard) has no room; nothing was lost."""


class QuotaExceeded(StoreFull):
    """The store's own quota has no room; nothing was lost."""


class StoreFailed(StorageNodeError):
    """The operating system or LMDB failed in a way that is neither lack of room nor damage."""


class WorkersLost(StorageNodeError):
    """A process that worked for this one was killed; what it had finished is kept."""


# --- the local store: the data on disk is not what it must be ---


class CorruptStore(StorageNodeError):
    """A file of the store is damaged, of another program, or of a newer version; the message names it."""


class OtherRelease(CorruptStore):
    """A piece's file that another release of this program wrote; it may be whole."""


class DamagedBlock(StorageNodeError):
    """The bytes on disk do not hash to the block's multihash; `.multihash` says which."""

    def __init__(self, message: str, multihash: bytes) -> None:
        super().__init__(message)
        self.multihash = multihash


class IncompleteDag(StorageNodeError):
    """A block that a pin needs is missing or damaged, nothing was freed; `.cid` is the block if known."""

    def __init__(self, message: str, cid: CID | None = None) -> None:
        super().__init__(message)
        self.cid = cid


# --- backups ---


class SnapshotNotFound(StorageNodeError, LookupError):
    """A folder holds no backup, or none of the name that the caller gave."""


class BackupRefused(StorageNodeError):
    """A place that a backup is not written to, or not restored into; the message says why."""


class DamagedBackup(StorageNodeError):
    """A file of a backup is damaged or missing; the message names it."""


# --- what a provider has promised to keep and cannot find ---


class PieceLost(StorageNodeError):
    """A piece that the ledger counts as ours has no rows on this node; `.deal` and `.shard` say which."""

    def __init__(self, deal: CID, shard: int) -> None:
        super().__init__(f"the rows of shard {shard} of deal {deal} are not on this node")
        self.deal = deal
        self.shard = shard


class BlockLost(StorageNodeError):
    """A block of a piece in custody is not in the store; `.multihash` says which."""

    def __init__(self, multihash: bytes) -> None:
        super().__init__(f"block {multihash.hex()} of a piece in custody is not in the store")
        self.multihash = multihash
