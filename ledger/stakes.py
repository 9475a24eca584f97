"""Stakes as they were when a vote began, kept by copy on write: moving stake moves no vote.

When a stake changes for the first time since proposal n, the old one is noted under n: it was the stake at
the opening of n, and of all proposals since the note before. Where nothing was noted, it is the present one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ledger import keys
from ledger.records import ProviderRecord
from ledger.state import State


def note(state: State, account: bytes, proposals: int) -> None:
    """Notes a provider's stake, which is about to change, if an open vote may ask for it.

    `proposals` is how many proposals there were so far. Notes that no open vote needs go.
    """
    provider = state.record(keys.provider(account), ProviderRecord)
    assert provider is not None, "stake is a provider's"
    if provider.stake_mark >= proposals:
        return
    state.put(keys.provider(account), replace(provider, stake_mark=proposals))
    oldest = state.first(keys.OPEN)
    needed_from = proposals + 1 if oldest is None else keys.read_open(oldest)
    limit = keys.stake(account, needed_from)
    for key in list(takewhile(lambda key: key < limit, state.scan(keys.STAKE + account))):
        state.delete(key)
    if oldest is not None:
        state.put(keys.stake(account, proposals), keys.u64(provider.stake))


def at_opening(state: State, account: bytes, number: int) -> int:
    """A provider's stake, locked or not, at the opening of the open proposal `number`; 0 if it had none."""
    start, prefix = keys.stake(account, number), keys.STAKE + account
    noted = next((key for key in state.scan(prefix) if key >= start), None)
    if noted is not None:
        return int.from_bytes(state.get(noted) or b"", "big")
    provider = state.record(keys.provider(account), ProviderRecord)
    return 0 if provider is None else provider.stake
