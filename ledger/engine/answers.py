"""What a ledger server's answers and frames become: typed values, or an error that says whose fault it is."""

from __future__ import annotations

from typing import Any, TypeVar

from ledger import state_proof
from ledger.engine.blocks import BlockEvents, Receipt
from ledger.engine.errors import LedgerProtocolError, LedgerPruned, LedgerUnreachable
from ledger.engine.event_filter import EventFilter
from ledger.errors import InvalidStateProof
from ledger.fields import FieldError, Wire
from ledger.state_tree import StateProof
from merkledag.peer import peer_text

W = TypeVar("W", bound=Wire)
GONE = 410  # what was asked for is no longer kept; HTTP's number


def typed(cls: type[W], value: Any) -> W:
    """The object of a map; raises LedgerProtocolError."""
    try:
        return cls.from_map(value)
    except FieldError as error:
        raise LedgerProtocolError(f"not a {cls.__name__} of this version: {error}") from error


def field(value: Any, name: str) -> Any:
    """What a map has under a name; raises LedgerProtocolError."""
    try:
        return value[name]
    except (KeyError, TypeError) as error:
        raise LedgerProtocolError(f"the answer lacks {name!r}; is this a ledger's URL?") from error


def receipt(value: Any) -> Receipt:
    """What became of a transaction; raises LedgerProtocolError."""
    if isinstance(value, dict):
        value = {name: each for name, each in value.items() if name not in ("name", "error")}
    return typed(Receipt, value)


def state_proof_of(value: Any) -> StateProof:
    """A state proof in its compact form; raises LedgerProtocolError."""
    try:
        return state_proof.decode(value)
    except (InvalidStateProof, TypeError) as error:
        raise LedgerProtocolError(f"not a state proof: {error}") from error


def page_of(value: Any) -> tuple[list[Any], str | None]:
    """The items of a page of a list, and the cursor of the next, None on the last; LedgerProtocolError."""
    items, following = field(value, "items"), field(value, "next")
    if not isinstance(items, list) or not (following is None or (isinstance(following, str) and following)):
        raise LedgerProtocolError("the answer is no page of a list; is this a ledger's URL?")
    return items, following


# What others rely on, of what a server says of itself.
_STATUS: dict[str, type] = {
    "chain_id": str,
    "engine": str,
    "height": int,
    "time": int,
    "block_time_s": int,
    "app_hash": bytes,
    "operator": bytes,
    "snapshot_height": int,
    "signed_height": int,
    "trouble": str,
    **dict.fromkeys(("issued", "balances", "escrow", "collateral", "burned"), int),
}


def status_of(value: Any) -> dict[str, Any]:
    """A server's status; raises LedgerProtocolError."""
    if not isinstance(value, dict) or any(type(value.get(name)) is not cls for name, cls in _STATUS.items()):
        raise LedgerProtocolError("the answer is no status; is this a ledger's URL?")
    return value


def filter_query(wanted: EventFilter) -> list[tuple[str, str]]:
    """The query that asks for these events alone."""
    return [
        *(("account", peer_text(account)) for account in sorted(wanted.accounts)),
        *(("deal", str(deal)) for deal in sorted(wanted.deals)),
        *(("kind", kind) for kind in sorted(wanted.kinds)),
    ]


def seen_up_to(heartbeat: Any) -> int:
    """The last block that a heartbeat has seen; raises LedgerProtocolError."""
    height = heartbeat.get("height")
    if type(height) is not int:
        raise LedgerProtocolError("a heartbeat of the event stream names no height")
    return height


def block_events(frame: Any) -> BlockEvents | None:
    """One frame of the stream, None for a heartbeat; LedgerUnreachable, LedgerPruned, LedgerProtocolError."""
    if isinstance(frame, dict) and "error" in frame:
        said = str(frame["error"])[:1_000]
        raise LedgerPruned(said) if frame.get("code") == GONE else LedgerUnreachable(said)
    if isinstance(frame, dict) and frame.get("heartbeat"):
        return None
    try:
        return BlockEvents.from_map(frame)
    except ValueError as error:
        raise LedgerProtocolError(str(error)) from error
