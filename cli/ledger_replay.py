"""Runs histories again in folders, with progress, going on where an earlier command was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from cli.ledger_sources import contents_of
from cli.output import CommandError, blocks_text, invalid, meter, note
from cli.part import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from cli.home import Home
    from cli.ledger_sources import History
    from ledger.engine.archive_replay import Replay
    from ledger.engine.chain_check import TrustPin
    from ledger.engine.storage import LedgerStorage
    from ledger.genesis import Genesis


def scratch_folder(home: Home, genesis: Genesis) -> Path:
    """Where a chain is run again for a while; it stays when the command is stopped."""
    from ledger.engine.blocks import node_cid

    return home.path / "verify-history" / str(node_cid(genesis.encode()))


def remove_scratch(scratch: Path) -> None:
    """Removes it, and the folder for such ones if no other chain is under way."""
    remove_tree(scratch)
    with suppress(OSError):
        scratch.parent.rmdir()


@contextmanager
def open_storage(folder: Path) -> Iterator[LedgerStorage]:
    """The store of a ledger in `folder`, which is made."""
    from ledger.engine.storage import LedgerStorage

    storage = LedgerStorage(folder)
    storage.open()
    try:
        yield storage
    finally:
        storage.close()


async def replayed(
    history: History,
    folder: Path,
    label: str,
    pin: TrustPin | None = None,
    *,
    progress: bool,
    keep_history: bool,
) -> dict[str, Any]:
    """Runs a history again in `folder`, from where that is; compares the end; what is to be told of it.

    `pin` is a header that it must have, if it is of validators and reaches it.
    """
    from ledger.engine.archive_replay import Replay, in_batches
    from ledger.engine.cometbft.home.genesis_file import genesis_hash
    from merkledag.peer import peer_text

    with open_storage(folder) as storage:
        _begin(history, storage, folder)
        replay = Replay(storage, history.genesis, history.light, pin, keep_history=keep_history)
        begun = replay.height
        if begun > history.last:
            raise CommandError(f"{folder} is at block {begun}, {history.name} at {history.last}: remove it")
        if begun:
            note(f"going on after block {begun}")
        done = meter(label, history.last - begun, wanted=progress, as_text=blocks_text)
        try:
            async with (
                aclosing(history.blocks(begun + 1)) as blocks,
                aclosing(in_batches(blocks)) as batches,
            ):
                async for batch in batches:
                    replay.look_ahead(batch)
                    for given in batch:
                        await asyncio.sleep(0)  # where Ctrl-C arrives
                        replay.add(given)
                        done.advance(1)
        finally:
            done.finish()
        replay.finish()
        _compare(history, replay, storage)
        return {
            "chain_id": history.genesis.chain_id,
            "operator": peer_text(history.genesis.operator),
            "genesis": genesis_hash(history.genesis) if history.genesis.validators else None,
            "signed_height": replay.height if history.light is None else history.light.height,
            "height": replay.height,
            "app_hash": replay.app.app_hash.hex(),
            "tip": None if replay.tip is None else str(replay.tip),
        }


def _begin(history: History, storage: LedgerStorage, folder: Path) -> None:
    """Gives the new store of a chain that goes on from another one its first state."""
    from ledger.engine.archive_replay import begin_after

    origin = history.origin
    if history.genesis.origin is None or storage.genesis() is not None:
        return
    if origin is None:
        raise invalid(f"{history.name} lacks the end of the chain that it goes on from")
    scratch = folder / "origin"
    remove_tree(scratch)
    with open_storage(scratch) as before:
        begin_after(storage, before, history.genesis, lambda: contents_of(origin))
    remove_tree(scratch)


def _compare(history: History, replay: Replay, storage: LedgerStorage) -> None:
    """Exit 4 unless the replay ended where the source says that it is."""
    if (replay.height, replay.tip) != (history.last, history.tip):
        raise invalid(f"{history.name} ends at another block than its history leads to")
    if replay.app.app_hash != history.app_hash:
        raise invalid(
            f"{history.name} says app hash {history.app_hash.hex()}, its history leads to "
            f"{replay.app.app_hash.hex()}"
        )
    if history.storage is not None and history.storage.height() == history.last:
        history.storage.check_state()
        for kept, led_to in zip(history.storage.state_items(), storage.state_items(), strict=False):
            if kept != led_to:
                raise invalid(f"the state in {history.name} differs at key {min(kept[0], led_to[0]).hex()}")
