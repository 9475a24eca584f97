"""ABCI queries: what the state has at a key, with the proof that CometBFT's light client checks.

The app hash after block H is in header H + 1. So a proof is of the state after the block before the last one,
unless another height is asked for: the header that it leads to is there already (`light/rpc/client.go`
verifies against the height of the answer + 1). Without a proof the answer is of the last block.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from ledger import state_proof
from ledger.engine.cometbft.abci import messages
from ledger.engine.engine import Provable
from ledger.engine.storage import LedgerStorage, Moment
from ledger.errors import CorruptState
from ledger.limits import MAX_KEY_BYTES
from ledger.state_tree import BUCKET_KEY, StateProof, StateTree

# The proxy takes the first part of the path of the proof out of the middle of the first of these; the last is
# what every application has to know (spec/abci of CometBFT, Query).
PATHS: Final = (b"/store/" + BUCKET_KEY + b"/key", b"/" + BUCKET_KEY + b"/key", b"/store")
# Asked of every peer where `filter_peers` is on: none is turned away here.
PEER_FILTER: Final = b"/p2p/filter/"
MAX_SHOWN_BYTES: Final = 100
HELD: Final = 2
# Its codes are not those of transactions.
CODESPACE: Final = "holdfast-query"
UNKNOWN_PATH, BAD_KEY, NO_HEIGHT, ABSENT, DAMAGED = 1, 2, 3, 4, 5


@dataclass
class _Held:
    """A block's state, which can be read as long as `reading` is open."""

    reading: ExitStack
    moment: Moment

    @cached_property
    def tree(self) -> StateTree:
        """What the state's values are held against, and proven by."""
        return StateTree(self.moment.store.tree)

    def get(self, key: bytes) -> bytes | None:
        """What is at a key; raises CorruptState."""
        value = self.moment.store.state.get(key)
        self.tree.check_value(key, value)
        return value

    def prove(self, key: bytes) -> StateProof:
        """See `StateTree.prove`."""
        return self.tree.prove(key, self.moment.store.state.get)


class StateQueries:
    """Answers from the states after the last block and the one before, and holds no older one.

    A held state keeps pages of the database from being used again: two blocks' worth. Used in one thread.
    """

    def __init__(self, storage: LedgerStorage) -> None:
        self._storage = storage
        self._held: list[_Held] = []

    def hold(self) -> None:
        """After each block that was written, and once before the first. Raises StoreError."""
        with ExitStack() as opening:
            moment = opening.enter_context(self._storage.moment())
            self._held.append(_Held(opening.pop_all(), moment))
        while len(self._held) > HELD:
            self._held.pop(0).reading.close()

    def close(self) -> None:
        """Lets go of what is held; harmless twice."""
        while self._held:
            self._held.pop().reading.close()

    def answer(self, request: Any) -> Any:
        """ResponseQuery. Raises StoreError."""
        if request.path.startswith(PEER_FILTER):
            return messages.ResponseQuery()
        if request.path not in PATHS:
            asked = request.path[:MAX_SHOWN_BYTES].decode(errors="replace")
            known = ", ".join(map(bytes.decode, PATHS))
            return _refused(UNKNOWN_PATH, f"no path {asked!r}; there are {known}")
        if not 0 < len(request.data) <= MAX_KEY_BYTES:
            return _refused(BAD_KEY, f"data is a key of the state, 1 to {MAX_KEY_BYTES} bytes")
        held = self._at(request.height, prove=request.prove)
        if held is None:
            heights = " and ".join(str(each.moment.height) for each in self._held) or "none"
            return _refused(NO_HEIGHT, f"that state is not kept; the heights that are: {heights}")
        try:
            return self._read(held, request)
        except CorruptState as error:
            return _refused(DAMAGED, str(error))

    def _read(self, held: _Held, request: Any) -> Any:
        value = held.get(request.data)
        answer = messages.ResponseQuery(key=request.data, height=held.moment.height)
        if value is None:
            answer.code, answer.codespace = ABSENT, CODESPACE
            answer.log = "the state has nothing there; /v1/prove of the ledger's own interface proves that"
            return answer
        answer.value = value
        if request.prove:
            answer.proof_ops.ParseFromString(state_proof.cometbft_ops(held.prove(request.data)))
        return answer

    def signed(self, least: int) -> Provable | None:
        """The state after the block before the last, if it is held and not before block `least`."""
        if len(self._held) < HELD or self._held[0].moment.height < least:
            return None
        return Provable(self._held[0].moment.height, self._held[0].prove)

    def _at(self, height: int, *, prove: bool) -> _Held | None:
        if height == 0 and self._held:
            if not prove:
                return self._held[-1]
            height = self._held[-1].moment.height - 1
        return next((each for each in self._held if each.moment.height == height), None)


def _refused(code: int, why: str) -> Any:
    return messages.ResponseQuery(code=code, log=why, codespace=CODESPACE)
