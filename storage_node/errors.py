"""What can go wrong in a storage node, by whose fault: the caller's, a peer's, the environment's."""

from __future__ import annotations


class StorageNodeError(Exception):
    """Any failure that this package reports. The message is one line that says what to do."""


class PeerError(StorageNodeError):
    """Another node, or a client of this one, is at fault."""


class SignatureRefused(PeerError):
    """A request is not signed, or not by the right key, or the signature is stale or used up."""


class UploadRefused(PeerError):
    """What was uploaded is not the piece that the deal describes."""


class PeerMisbehaved(PeerError):
    """A node answered with something that its protocol does not allow, or with bytes that fit no CID."""


class PeerUnreachable(PeerError):
    """A node cannot be reached, or does not answer in time."""


class EndpointRefused(PeerError):
    """An address that we do not connect to."""


class PlacementFailed(StorageNodeError):
    """Content cannot be placed: too few nodes, too high a price, or no node took a shard."""
