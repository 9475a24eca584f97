"""`holdfast proof verify` and `explain`: whether a proof holds, and which bytes of which file it showed."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import cid_argument
from cli.home import Home
from cli.options import JsonFlag
from cli.output import ExitCode, emit, note, text
from cli.proof_files import (
    AgainstLedgerFlag,
    AppHashFlag,
    ChainFlag,
    Checked,
    CommitmentFlag,
    FileArgument,
    OperatorFlag,
    SeedFlag,
    TrustFlag,
    Wanted,
    about_document,
    check,
    link_documents,
    read_file,
    show_links,
)

if TYPE_CHECKING:
    from cli.proof_places import Leaf
    from ledger.engine.verdict import About

ONE_PERCENT = 100
OUTCOMES = ("same", "differs", "absent")
UNANCHORED = (
    "nothing was given that the file could not have made up: ask the ledger (--ledger URL), or name the "
    "--operator, the header (--trust HEIGHT:HASH) or the --app-hash that you trust"
)
UNANCHORED_AUDIT = (
    "nothing was given that the file could not have made up: give the --commitment that you keep, or the CID "
    "of content that is here"
)
LeavesOption = Annotated[
    int | None,
    typer.Option(
        "-k", "--leaves", metavar="N", help="Leaves that you asked for; 30 without it.", show_default=False
    ),
]


def verify(
    file: FileArgument,
    operator: OperatorFlag = None,
    trust: TrustFlag = None,
    chain: ChainFlag = None,
    app_hash: AppHashFlag = None,
    ledger: AgainstLedgerFlag = None,
    commitment: CommitmentFlag = None,
    seed: SeedFlag = None,
    leaves: LeavesOption = None,
    json_output: JsonFlag = False,
) -> int:
    """Check a proof and print each link of it: exit 4 where one does not hold, 2 if it hangs on nothing.

    Out of a ledger: against the operator (or, on CometBFT, the header) and chain that this home has pinned,
    --operator (and --chain), --trust, --app-hash or --ledger.
    Between two people: against the --commitment (or the CID of content that you have) and --seed.
    """
    home = Home.locate()
    checked = check(
        home, read_file(file), Wanted(operator, chain, app_hash, ledger, commitment, seed, leaves, trust)
    )
    if json_output:
        emit(_document(checked))
    else:
        show_links(checked.verdict)
        _sum_up(checked)
    return _exit_code(checked)


def _exit_code(checked: Checked) -> int:
    if not checked.holds:
        return ExitCode.INVALID
    if _is_anchored(checked):
        return ExitCode.DONE
    note("holdfast: " + (UNANCHORED if _is_of_ledger(checked) else UNANCHORED_AUDIT))
    return ExitCode.USAGE


def _is_of_ledger(checked: Checked) -> bool:
    from ledger.engine.evidence import Evidence

    return isinstance(checked.file, Evidence)


def _is_anchored(checked: Checked) -> bool:
    """Whether it hangs on something that its maker could not choose; a seed or a chain's ID is not enough."""
    return bool(set(checked.against) - {"seed", "chain"})


def _document(checked: Checked) -> dict[str, Any]:
    return {
        "verified": checked.holds and _is_anchored(checked),
        "against": checked.against,
        **about_document(checked),
        "links": link_documents(checked.verdict),
    }


def _sum_up(checked: Checked) -> None:
    """What follows from it, and what does not."""
    from merkledag.peer import peer_text
    from proofs.challenge import detection

    if not checked.holds or not _is_anchored(checked):
        return
    challenge, shown = checked.shown
    about = checked.verdict.about
    unit_bytes = challenge.kind.rules.unit_bytes
    size_bytes = sum(min(unit_bytes, unit.length - unit.unit * unit_bytes) for unit in shown)
    what = f"could read the drawn leaves ({size_bytes} bytes)"
    if about is not None:
        text(f"{'so':11}  whoever has the key of {peer_text(about.node)} {what} {_when(checked, about)}")
    elif "seed" in checked.against:
        text(f"{'so':11}  whoever answered {what} after the seed was sent")
    else:
        text(f"{'so':11}  whoever made it {what} at some time")
        text(f"{'not shown':11}  that it is an answer to you: a seed of their own may be one that suits them")
        return
    total, k = challenge.data.sum, len(challenge.data_leaves())
    found = detection(total, -(-total // ONE_PERCENT), k)
    text(f"{'':11}  had 1 % of the leaves been lost, {found:.0%} of such proofs would fail")
    text(f"{'not shown':11}  where the bytes lie, whether they were fetched for it, which files they are of")


def _when(checked: Checked, about: About) -> str:
    """Between when the leaves could be read, as far as somebody vouches for it."""
    from cli.times import time_text

    drawn = time_text(about.drawn_at)
    if {"operator", "ledger"} & set(checked.against):
        return f"between {drawn} and {time_text(about.proven_at)}"
    if about.period is not None:  # the state says that it was in time
        return f"between {drawn} and {time_text(about.closes_at)}"
    return f"after {drawn}"


def explain(
    file: FileArgument,
    content: Annotated[
        list[str] | None,
        typer.Option("--content", metavar="CID", help="Content to look for the leaves in; repeatable."),
    ] = None,
    operator: OperatorFlag = None,
    trust: TrustFlag = None,
    chain: ChainFlag = None,
    app_hash: AppHashFlag = None,
    ledger: AgainstLedgerFlag = None,
    commitment: CommitmentFlag = None,
    seed: SeedFlag = None,
    leaves: LeavesOption = None,
    json_output: JsonFlag = False,
) -> int:
    """Say when and by whom a proof was made and which bytes of which files it showed; compare with your own.

    Files are found in the content that the proof or --content names, or that the ledger's deals do: from the
    local store, or fetched from the ledger's nodes where one is known.
    """
    from cli.proof_places import explain_leaves

    home = Home.locate()
    roots = [cid_argument(cid) for cid in content or ()]
    checked = check(
        home, read_file(file), Wanted(operator, chain, app_hash, ledger, commitment, seed, leaves, trust)
    )
    if not checked.holds:
        if json_output:
            emit(_document(checked) | {"leaves": []})
        else:
            show_links(checked.verdict)
        note("holdfast: the proof does not hold, so it shows nothing")
        return ExitCode.INVALID
    found = explain_leaves(home, checked, roots, ledger or "")
    if json_output:
        emit(
            _document(checked)
            | {"leaves": [leaf.document() for leaf in found.leaves], "untold": found.untold}
        )
    else:
        _tell(checked)
        for heading, group in groupby(found.leaves, lambda leaf: leaf.heading):
            text(f"{'in':11}  {heading}")
            for leaf in group:
                text(leaf.line())
        _tell_local(found.leaves)
        for line in found.untold:
            note(line)
    if not _is_anchored(checked):
        note("this is what the file says; " + (UNANCHORED if _is_of_ledger(checked) else UNANCHORED_AUDIT))
    differs = any(leaf.local == "differs" for leaf in found.leaves)
    return ExitCode.INVALID if differs else ExitCode.DONE


def _tell(checked: Checked) -> None:
    from cli.times import time_text

    document = about_document(checked)
    if document["what"] == "audit":
        text(f"{'audit':11}  of {document['cid']}")
    else:
        text(f"{'node':11}  {document['node']}")
        text(f"{'client':11}  {document['client']}")
        if document["what"] == "period":
            text(f"{'period':11}  {document['period']} of dataset {document['dataset']}")
        else:
            text(f"{'spot':11}  of shard {document['shard']} of deal {document['deal']}")
        text(f"{'drawn':11}  {time_text(document['drawn_at'])}")
        vouched = "" if {"operator", "ledger"} & set(checked.against) else " (as the file says)"
        text(f"{'proven':11}  {time_text(document['time'])}, block {document['height']}{vouched}")
    challenge, shown = checked.shown
    total = challenge.data.sum + challenge.meta.sum
    text(f"{'leaves':11}  {len(shown)} of {total} were drawn, by seed {challenge.seed.hex()}")


def _tell_local(leaves: list[Leaf]) -> None:
    same, differs, absent = ([leaf.local for leaf in leaves].count(each) for each in OUTCOMES)
    said = [
        f"{same} the same as here" if same else "",
        f"{differs} OTHER than here: `holdfast repo verify` finds the damage" if differs else "",
        f"{absent} of blocks that are not here" if absent else "",
    ]
    text(f"{'your copy':11}  {', '.join(each for each in said if each)}")
