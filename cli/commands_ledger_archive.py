"""`holdfast ledger export`, `import`, `verify-history`: a chain's history kept, brought back and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_ledger_run import (
    EngineFlag,
    ExternalFlag,
    FoundersFlag,
    FoundingFlag,
    P2pFlag,
    PeersFlag,
    ProfileFlag,
    RpcFlag,
    TestNetworkFlag,
    chosen_engine,
    engine_of,
    places_of,
    refuse_of_comet,
    say_validators,
)
from cli.home import Home
from cli.options import JsonFlag, ProgressFlag
from cli.output import emit, note, text, usage
from cli.settings import COMETBFT

if TYPE_CHECKING:
    from ledger.genesis import Genesis

TrustFlag = Annotated[
    str,
    typer.Option(
        "--trust",
        metavar="HEIGHT:HASH",
        help="On CometBFT: a header that it must have; by default this home's.",
        show_default=False,
    ),
]
LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file, `-` for stdout.")],
    source: Annotated[
        str, typer.Option("--from", help="URL, ledger's folder or archive; by default this home's ledger.")
    ] = "",
    state: Annotated[
        bool,
        typer.Option("--state", help="A late state too (a running ledger's snapshot), for a fast import."),
    ] = False,
    ledger: LedgerFlag = "",
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Write the chain's history into a CAR of its own nodes.

    What an interrupted export had written is gone on with by the same command.
    """
    from cli.ledger_archive import write_archive
    from cli.serve import run_once

    home = Home.locate()
    writing = write_archive(
        home, source, ledger, file, state=state, progress=progress, json_output=json_output
    )
    written = run_once(writing)
    if json_output:
        emit(written)
    else:
        note(f"wrote blocks {written['first']} to {written['last']} of chain {written['chain_id']}")


def import_(
    file: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="An archive, or `-` for stdin; with --snapshot also a ledger's URL."
        ),
    ],
    snapshot: Annotated[
        bool,
        typer.Option("--snapshot", help="Take the state that is there as it is, and run what follows alone."),
    ] = False,
    as_chain: Annotated[
        str,
        typer.Option(
            "--as-chain",
            metavar="ID",
            help="Make a new chain of this name that goes on from the archive's end.",
            show_default=False,
        ),
    ] = "",
    engine: EngineFlag = "",
    founder: FoundersFlag = None,
    founding: FoundingFlag = None,
    profile: ProfileFlag = "laptop",
    p2p_listen: P2pFlag = "",
    rpc_listen: RpcFlag = "",
    external_address: ExternalFlag = "",
    peer: PeersFlag = None,
    trust: TrustFlag = "",
    test_network: TestNetworkFlag = False,
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Make this home's ledger from an archive: runs every block again and compares every app hash.

    What an interrupted import had done is gone on with by the same command. With --as-chain and --engine
    cometbft the new chain has validators: this home's, those of the --founder files, or, for all founders but
    the one who collected those, what --founding says.
    """
    from cli.ledger_carry import OnComet, carry_on
    from cli.ledger_files import require_no_ledger
    from cli.ledger_import import import_history
    from cli.serve import run_once

    home = Home.locate()
    is_on_comet = bool(engine or founding) and chosen_engine(home, engine) == COMETBFT
    places = places_of(profile, p2p_listen, rpc_listen, external_address, peer)
    if not (as_chain and is_on_comet):
        of_comet = {"--founder": founder, "--founding": founding, "--engine cometbft": is_on_comet}
        refuse_of_comet(places, "laptop", of_comet, "--as-chain and --engine cometbft")
    if founder and founding:
        raise usage("--founding brings all founders with it: leave --founder out")
    require_no_ledger(home)
    if as_chain:
        comet = OnComet(places, tuple(founder or ()), founding, test_network) if is_on_comet else None
        made: Genesis = run_once(carry_on(home, file, as_chain, progress=progress, comet=comet))
        return emit(made.to_json()) if json_output else _say_carried(home, made)
    found = run_once(import_history(home, file, trust, snapshot=snapshot, progress=progress))
    return emit(found) if json_output else _say_imported(home, found)


def _say_imported(home: Home, found: dict[str, Any]) -> None:
    text(f"imported chain {found['chain_id']} up to block {found['height']}, app hash {found['app_hash']}")
    if found["first"] > 1:
        note(
            f"not here: transactions, events and account histories of blocks 1 to {found['first'] - 1}; "
            "this ledger has no history to export, and `verify-history` needs one that is whole"
        )
    if found["genesis"]:
        note(
            "this home has the history, for `verify-history`, `export` and `import --as-chain`; a node that "
            "takes part is made with `holdfast ledger join URL --engine cometbft`, in another home"
        )
    else:
        note(f"to run it, put its operator's keys (operator, beacon) into {home.keys}")


def _say_carried(home: Home, made: Genesis) -> None:
    from merkledag.peer import peer_text

    assert made.origin is not None, "it goes on from another chain"
    text(f"made chain {made.chain_id}: it goes on from block {made.origin.height} of {made.origin.chain_id}")
    if engine_of(made) == COMETBFT:
        say_validators(home, made)
        known_by = "--trust HEIGHT:HASH"
    else:
        known_by = f"--operator {peer_text(made.operator)}"
    text("`holdfast ledger start` runs it; everybody joins it anew:")
    text(f"holdfast ledger join URL --chain {made.chain_id} {known_by} --replace")


def verify_history(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="URL, ledger's folder or archive; by default this home's ledger."
        ),
    ] = "",
    ledger: LedgerFlag = "",
    trust: TrustFlag = "",
    progress: ProgressFlag = True,
    json_output: JsonFlag = False,
) -> None:
    """Run the whole chain again from its genesis: every block must be signed and lead to its app hash.

    On CometBFT more than two thirds of the validators, from those of the genesis on; compare its hash with
    people, or give a late header that they told you.
    What an interrupted check had done is gone on with by the same command.
    """
    from cli.serve import run_once

    home = Home.locate()

    async def verified() -> dict[str, Any]:
        from cli.ledger_light import pinned_header
        from cli.ledger_pin import hold_against_pin
        from cli.ledger_replay import remove_scratch, replayed, scratch_folder
        from cli.ledger_sources import open_history, require_signed

        async with open_history(home, source, ledger) as history:
            hold_against_pin(home, history.name, history.genesis)
            require_signed(history)
            pin = pinned_header(home, history, trust)
            home.ensure()
            scratch = scratch_folder(home, history.genesis)
            found = await replayed(history, scratch, "verifying", pin, progress=progress, keep_history=False)
            remove_scratch(scratch)
            return found

    found = run_once(verified())
    if json_output:
        emit(found)
    else:
        of = f"genesis {found['genesis']}" if found["genesis"] else found["operator"]
        text(
            f"chain {found['chain_id']} of {of} is sound up to block {found['height']}, "
            f"app hash {found['app_hash']}"
        )
        if found["signed_height"] <= found["height"] and found["genesis"]:
            note("its validators signed all blocks, and no header yet that has the last one's app hash")
