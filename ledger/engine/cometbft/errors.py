"""Errors of the ledger on CometBFT, each saying whose fault it is."""

from __future__ import annotations

from ledger.engine.errors import EngineError


class AbciProtocolError(EngineError):
    """The other side of the ABCI socket sent what is no ABCI 2.0; check that it is a supported `cometbft`."""


class Disagreement(EngineError):
    """Engine and state do not belong together, or differ; the process must end and say this reason."""
