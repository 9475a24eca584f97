"""`holdfast repo verify`: hashes every stored block again, and heals those that are damaged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.home import Home, folder_argument
from cli.options import JsonFlag
from cli.output import ExitCode, count_text, emit, meter, note, size_text, text, unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from storage_node.scrub import Damaged, Healed, Round, Rounds

SHOWN: Final = 10


def verify(
    heal: Annotated[
        bool,
        typer.Option(
            "--heal", help="Replace damaged blocks with good ones from the ledger's nodes, or parity."
        ),
    ] = False,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Heal from this gateway or folder of backups too; repeatable.",
        ),
    ] = None,
    drop: Annotated[
        bool,
        typer.Option("--drop", help="Delete damaged blocks, so that they can be added or fetched again."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a verification that was interrupted.")
    ] = False,
    rate: Annotated[str, typer.Option("--rate", help="Bytes a second at most, such as 50M.")] = "0",
    ledger: Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)] = "",
    json_output: JsonFlag = False,
) -> int:
    """Hash every stored block again; exit 4 when some stay damaged."""
    from cli.commands_pin_jobs import source_urls
    from cli.maintenance_duties import healing_facts
    from cli.money import parse_size
    from storage_node.backup_folder import open_folder
    from storage_node.maintenance import HEAL, VERIFY, DutyRecords
    from storage_node.scrub import Damaged, Rounds

    pace_bytes = parse_size(rate)
    heal = heal or bool(sources)
    folders = {each: folder_argument(each) for each in sources or () if "://" not in each}
    backups = [folder for folder in folders.values() if folder.is_dir()]
    gateways = source_urls([each for each in sources or () if folders.get(each) not in backups])
    for folder in backups:
        open_folder(folder)  # what is none is said before anything is read
    with Home.locate() as home:
        url = _ledger(home, ledger, sources or ()) if heal else None
        began_s = time.monotonic()
        damaged = Damaged(home.open_meta())
        done = _round(home, Rounds(home.open_meta(), VERIFY), damaged, pace_bytes, resume=resume)
        healed = _heal(home, damaged, url, gateways, backups) if heal and damaged.count() else None
        dropped = _drop(home, damaged) if drop else 0
        left = list(damaged)
        if healed is not None:
            DutyRecords(home.open_meta()).note(HEAL, healing_facts(healed))
    took_s = time.monotonic() - began_s
    return _report(done, left, healed, dropped, took_s, json_output=json_output)


def _ledger(home: Home, flag: str, sources: Sequence[str]) -> str | None:
    """Known before anything is read: whoever asks for healing without a place to heal from learns it now."""
    from cli.servers import known_ledger

    url = known_ledger(home, flag)
    if url is None and not sources:
        raise unreachable(
            "nothing to heal from: --from names a gateway or a folder of backups, --ledger a ledger"
        )
    return url


def _round(home: Home, rounds: Rounds, damaged: Damaged, rate: int, *, resume: bool) -> Round:
    from storage_node.blockstore.verify import THREADS
    from storage_node.scrub import Pace, scrub

    if not resume:
        rounds.forget()
    store = home.open_store()
    before = rounds.current()
    seen = before.size_bytes if before is not None else 0
    if before is not None:
        note(f"going on behind {count_text(before.blocks, 'block')}, {size_text(seen)}")
    bar = meter("verified", max(0, store.stat().bytes - seen))

    def progress(now: Round) -> None:
        nonlocal seen
        bar.advance(now.size_bytes - seen)
        seen = now.size_bytes

    pace = Pace(rate or None, time.monotonic, time.sleep)
    try:
        return scrub(store, rounds, damaged, clock=time.time, pace=pace, threads=THREADS, progress=progress)
    except KeyboardInterrupt:
        note("`repo verify --resume` goes on from here")
        raise
    finally:
        bar.finish()


def _heal(
    home: Home, damaged: Damaged, url: str | None, gateways: Sequence[str], backups: Sequence[Path]
) -> Healed:
    from cli.healing import finder
    from storage_node.scrub import heal_listed

    with finder(home, url, gateways, backups) as find:
        return heal_listed(home.open_store(), damaged, find)


def _drop(home: Home, damaged: Damaged) -> int:
    """Takes the lock: a repair by a server must not come between."""
    with home.daemon_lock():
        gone = home.open_store().delete_many(damaged).multihashes
        damaged.remove(gone)
    return len(gone)


def _report(
    done: Round, left: list[bytes], healed: Healed | None, dropped: int, took_s: float, *, json_output: bool
) -> int:
    from merkledag.cid import CID
    from merkledag.codecs import RAW

    cids = [str(CID(1, RAW, multihash)) for multihash in left]
    from_others = healed.healed if healed is not None else 0
    dropped += healed.dropped if healed is not None else 0
    if json_output:
        emit(
            {
                "blocks": done.blocks,
                "size_bytes": done.size_bytes,
                "damaged": cids,
                "found": done.damaged,
                "unverifiable": done.unverifiable,
                "healed": from_others,
                "dropped": dropped,
                "seconds": round(took_s, 3),
            }
        )
    else:
        what = [f"{len(cids) or 'none'} damaged"]
        what += [f"{from_others} healed"] if from_others else []
        what += [f"{dropped} dropped"] if dropped else []
        count = count_text(done.blocks, "block")
        text(f"{count}, {size_text(done.size_bytes)}: {', '.join(what)}")
    if not cids:
        return ExitCode.DONE
    for cid in cids[:SHOWN]:
        note(f"damaged: {cid}")
    if healed is None:
        note("holdfast: `repo verify --heal` replaces them from the network, `--from FOLDER` from a backup")
    else:
        note("holdfast: nobody had them whole: --from names others, --drop deletes them; see `pin verify`")
    return ExitCode.INVALID
