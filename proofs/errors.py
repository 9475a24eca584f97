"""Errors of this package; each says which input is at fault."""

from __future__ import annotations


class ProofsError(Exception):
    """Base of every error raised about others' data or one's own damaged data."""


class InvalidProof(ProofsError, ValueError):
    """The proof does not answer the challenge: the prover is at fault."""


class InvalidManifest(ProofsError, ValueError):
    """The blocks are not an erasure manifest in the one form that is allowed: its maker is at fault."""


class InvalidPieceCID(ProofsError, ValueError):
    """The CID is no Filecoin piece CID, or one that no piece can have: who gave it is at fault."""


class PieceTooLarge(ProofsError, ValueError):
    """More bytes than a Filecoin piece can have."""


class InvalidBeacon(ProofsError, ValueError):
    """A beacon signature does not verify: the proposer is at fault."""


class UndecodableGroup(ProofsError):
    """An erasure group cannot be restored from the shares at hand: too few, or of the wrong length."""


class SumOverflow(ProofsError, ValueError):
    """A sum of leaf counts would exceed 2⁶³ − 1; nothing was changed."""


class ViewMismatch(ProofsError):
    """The node's own mirror of a dataset is not the one that was challenged: bring it up to date."""


class DamagedSetup(ProofsError, ValueError):
    """The bytes are not the ceremony's setup: this installation is damaged."""

    def __init__(self) -> None:
        super().__init__("the KZG setup file is not the one that Holdfast ships; install Holdfast again")


class BlockChanged(ProofsError):
    """A block that the node holds does not hash to its proof root any more: fetch or rebuild it.

    `multihash` names the block.
    """

    def __init__(self, multihash: bytes) -> None:
        super().__init__(f"block {multihash.hex()} no longer hashes to its proof root; fetch it again")
        self.multihash = multihash
