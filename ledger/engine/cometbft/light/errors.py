"""Why a header is not believed, or not yet."""

from __future__ import annotations

from ledger.engine.errors import ChainMismatch
from ledger.errors import LedgerError


class InvalidLightBlock(ChainMismatch):
    """A header, its commit or its validators do not belong together, or are not signed by enough power."""


class NotEnoughTrust(InvalidLightBlock):
    """Too little of the trusted validators' power signed it: headers in between have to be verified first."""


class NotLater(InvalidLightBlock):
    """It is not after the trusted header, so that one cannot show that both are of one chain."""


class TrustLost(LedgerError):
    """No server can help: what is trusted does not lead on. Base of the two below."""


class TrustExpired(TrustLost):
    """The last trusted header is older than the trusting period: only a new pin from people helps."""


class Divergence(TrustLost):
    """Two servers show different headers of one height, and each has enough signatures: an attack."""
