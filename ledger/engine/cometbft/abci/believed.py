"""Which engine is believed: of two that ask one application, never both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ledger.engine.cometbft.errors import AbciProtocolError

_DECIDING: Final = ("init_chain", "prepare_proposal", "process_proposal", "finalize_block", "commit")
# An engine has four connections, and asks all of one kind on the same one. On these a second one shows.
_ROLES: Final = {
    "info": "who we are",
    **dict.fromkeys((*_DECIDING, "extend_vote", "verify_vote_extension"), "blocks"),
    **dict.fromkeys(("offer_snapshot", "apply_snapshot_chunk"), "state sync"),
}


class SecondEngine(AbciProtocolError):
    """An engine asks for what another one is being answered; stop one of them."""


@dataclass(slots=True, eq=False)
class Peer:
    """One connection; `origin` names the process or the host at its other end."""

    origin: str


class Believed:
    """The engine that asked first, as long as its connections last.

    ABCI names no engine. So an engine is whoever is at one origin, and has the one connection for each role.
    It opens none anew (a `cometbft` that loses one ends), so that another one is another engine's.
    Source: proxy/multi_app_conn.go of CometBFT.
    """

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}

    def check(self, peer: Peer, kind: str, request: Any) -> None:
        """Raises SecondEngine where this request may be another one's.

        What changes nothing anybody may ask, and tools that do not say what they are, who we are.
        """
        role = _ROLES.get(kind)
        if role is None or (kind == "info" and not request.version):
            return
        for taken, other in self._peers.items():
            if other is not peer and (taken == role or other.origin != peer.origin):
                raise SecondEngine(
                    f"{peer.origin} asks for {kind}, and another cometbft ({other.origin}) has this "
                    "application already: one application serves one cometbft; stop the other one first"
                )
        self._peers[role] = peer

    def forget(self, peer: Peer) -> None:
        """Its connection has ended."""
        self._peers = {role: other for role, other in self._peers.items() if other is not peer}
