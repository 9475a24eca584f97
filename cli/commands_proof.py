"""`holdfast proof make`, `commit` and `challenge`: proofs out of a ledger, or between two people."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import commands_proof_check
from cli.arguments import cid_argument
from cli.groups import new_app
from cli.home import Home
from cli.options import JsonFlag, NewFileOption
from cli.output import count_text, emit, invalid, not_found, note, size_text, text, usage
from cli.proof_files import (
    Checked,
    Wanted,
    about_document,
    check,
    check_leaves,
    commit_content,
    hexadecimal,
)
from cli.streams import check_binary_stdout, is_stdout
from ledger.limits import MAX_SHARDS
from proofs.challenge import DEFAULT_CHALLENGES
from proofs.commitment import HASH_BYTES
from proofs.kinds import ProofKind

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.evidence import Evidence
    from merkledag.cid import CID
    from storage_node.audit import Audited, Auditor

RANDOM: Final = "random"
MERKLE: Final = ProofKind.MERKLE.value
WORDS: Final = "dataset ID, shard DEAL N, spot DEAL N; or a CID with --seed"

LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
ProofOption = Annotated[
    str, typer.Option("--proof", metavar="KIND", help="How: merkle, or kzg (slow to commit to).")
]
LeavesOption = Annotated[int, typer.Option("-k", "--leaves", metavar="N", help="Leaves of data to draw.")]

app = new_app("Proofs of storage: take or make them, check them without a ledger, see what they show.")
app.command("verify")(commands_proof_check.verify)
app.command("explain")(commands_proof_check.explain)


@app.command("make")
def make(
    what: Annotated[list[str], typer.Argument(metavar="WHAT", help=f"What it is of: {WORDS}.")],
    output: NewFileOption = "",
    period: Annotated[
        int,
        typer.Option(
            "--period", metavar="N", help="That period's; the last one kept without it.", show_default=False
        ),
    ] = -1,
    height: Annotated[
        int,
        typer.Option(
            "--height", metavar="N", help="Of a spot: the answer in that block.", show_default=False
        ),
    ] = -1,
    seed: Annotated[
        str, typer.Option("--seed", metavar="HEX|random", help="What draws the leaves.", show_default=False)
    ] = "",
    leaves: LeavesOption = DEFAULT_CHALLENGES,
    proof: ProofOption = MERKLE,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Take a proof out of the ledger, or make one of your own content for somebody who sent you a seed.

    The file holds all that `proof verify` needs, without a ledger.
    """
    if is_stdout(output):
        check_binary_stdout("a proof", json_output=json_output)
    home = Home.locate()
    match what:
        case [cid] if seed:
            checked = _of_content(home, cid_argument(cid), _kind(proof), seed, leaves)
        case ["dataset" | "shard" | "spot"]:
            raise usage(f"{what[0]} of what? {WORDS}")
        case [_]:
            raise usage(f"say with --seed what draws the leaves, or name what the ledger has: {WORDS}")
        case _:
            if seed or proof != MERKLE:
                raise usage("the ledger has its own seeds and kinds: --seed and --proof go with a CID alone")
            checked = _of_ledger(home, what, period, height, ledger)
    if not checked.holds:
        failed = next(link for link in checked.verdict.links if link.holds is False)
        raise invalid(f"the ledger gave a proof that does not hold: {failed.name}: {failed.says}")
    raw = checked.file.encode()
    _write(output, raw)
    document = about_document(checked) | {"size_bytes": len(raw)}
    if json_output:
        return emit(document)
    return _tell_made(document)


def _write(output: str, raw: bytes) -> None:
    from cli.target import Target

    with Target(output) as target:
        target.append(raw)


def _tell_made(document: dict[str, Any]) -> None:
    from cli.times import time_text

    size = size_text(document["size_bytes"])
    if document["what"] == "audit":
        note(f"a proof ({size}) that answers seed {document['seed']}")
        return note(f"of {document['cid']}, commitment {document['commitment']}")
    which = f"period {document['period']}" if document["what"] == "period" else "a spot challenge"
    note(f"the proof of {which} ({size}), in block {document['height']} of {time_text(document['time'])}")
    return note(f"by node {document['node']}")


# Between two people.


def _of_content(home: Home, cid: CID, kind: ProofKind, seed: str, k: int) -> Checked:
    drawn_from = secrets.token_bytes(HASH_BYTES) if seed == RANDOM else hexadecimal(seed, "--seed")
    check_leaves(k)
    with home:
        auditor, audited = _commit(home, cid, kind)
        file = auditor.prove(audited, drawn_from, min(k, audited.content.data.sum))
    content = audited.content.commitment().hex()
    return check(home, file, Wanted(commitment=content, seed=drawn_from.hex(), k=k))


def _commit(home: Home, cid: CID, kind: ProofKind) -> tuple[Auditor, Audited]:
    from storage_node.errors import BlockNotFound, IncompleteDag

    try:
        return commit_content(home, cid, kind)
    except (BlockNotFound, IncompleteDag) as error:
        raise not_found(str(error)) from error


def _kind(name: str) -> ProofKind:
    try:
        return ProofKind(name)
    except ValueError:
        raise usage(f"--proof {name!r}: merkle or kzg") from None


@app.command("commit")
def commit(
    cid: Annotated[str, typer.Argument(metavar="CID", help="Content that is whole in the local store.")],
    proof: ProofOption = MERKLE,
    json_output: JsonFlag = False,
) -> None:
    """Print the commitment to content of yours: with it you can check a friend's copy without your own."""
    root, kind = cid_argument(cid), _kind(proof)
    home = Home.locate()
    with home:
        _, audited = _commit(home, root, kind)
    content = audited.content
    commitment = content.commitment().hex()
    if json_output:
        return emit(
            {
                "cid": str(root),
                "proof": content.kind.value,
                "commitment": commitment,
                "leaves": content.data.sum,
                "meta_leaves": content.meta.sum,
            }
        )
    text(commitment)
    note(f"leaves: {content.data.sum} of data, {content.meta.sum} of metadata")
    how = f"holdfast proof challenge {root}{_proof_option(kind)}"
    return note(f"keep that line; when you want to know, `{how}` says what to send")


@app.command("challenge")
def challenge(
    cid: Annotated[str, typer.Argument(metavar="CID", help="What a friend of yours keeps.")],
    leaves: LeavesOption = DEFAULT_CHALLENGES,
    proof: Annotated[
        str, typer.Option("--proof", metavar="KIND", help="That of your commitment: merkle, or kzg.")
    ] = MERKLE,
    json_output: JsonFlag = False,
) -> None:
    """Print a new seed and what to do with it; needs neither the content nor a ledger."""
    root, kind = cid_argument(cid), _kind(proof)
    check_leaves(leaves)
    seed = secrets.token_hex(HASH_BYTES)
    more = "" if leaves == DEFAULT_CHALLENGES else f" -k {leaves}"
    send = f"holdfast proof make {root} --seed {seed}{more}{_proof_option(kind)} -o answer.proof"
    then = f"holdfast proof verify answer.proof --commitment COMMITMENT --seed {seed}{more}"
    if json_output:
        document = {"cid": str(root), "proof": kind.value, "seed": seed, "k": leaves}
        return emit(document | {"make": send, "verify": then})
    text(seed)
    note("whoever keeps the content runs, and sends you the file that it makes:")
    note(f"    {send}")
    note("then you run, with the line that `proof commit` printed:")
    return note(f"    {then}")


def _proof_option(kind: ProofKind) -> str:
    return "" if kind is ProofKind.MERKLE else f" --proof {kind.value}"


# Out of a ledger.


def _of_ledger(home: Home, what: list[str], period: int, height: int, flag: str) -> Checked:
    from cli.servers import ask_ledger, ledger_url

    wanted_period, wanted_height = _or_none(period, "--period"), _or_none(height, "--height")
    match what:
        case ["dataset", name]:
            dataset = hexadecimal(name, "dataset")
            question = _period_of(dataset, wanted_period)
        case ["shard", deal, number]:
            question = _period_of_shard(cid_argument(deal), _shard(number), wanted_period)
        case ["spot", deal, number]:
            question = _spot_of(cid_argument(deal), _shard(number), wanted_height)
        case _:
            raise usage(f"{' '.join(what)!r}: {WORDS}")
    if wanted_height is not None and what[0] != "spot":
        raise usage("--height goes with a spot; a dataset's proofs are named by --period")
    if wanted_period is not None and what[0] == "spot":
        raise usage("--period goes with a dataset or shard; answers to spots are named by --height")
    found = ask_ledger(home, ledger_url(home, flag), question)
    return check(home, found, Wanted())


def _or_none(number: int, option: str) -> int | None:
    if number < -1 or number >= 1 << 63:
        raise usage(f"{option} {number}: there is no such number")
    return None if number == -1 else number


def _shard(text_: str) -> int:
    if not (text_.isascii() and text_.isdigit() and len(text_) < 4 and int(text_) < MAX_SHARDS):
        raise usage(f"shard {text_!r}: a number up to {MAX_SHARDS - 1}")
    return int(text_)


Question = Callable[["LedgerClient"], Awaitable["Evidence"]]


def _period_of(dataset: bytes, period: int | None) -> Question:
    from ledger.transactions import Prove

    async def asked(client: LedgerClient) -> Evidence:
        found = await client.period_proof(dataset, period)
        body = found.transaction().body
        if not isinstance(body, Prove) or body.dataset != dataset or period not in (None, body.period):
            raise invalid(f"{client.url} gave another proof than was asked for")
        return found

    return asked


def _period_of_shard(deal: CID, shard: int, period: int | None) -> Question:
    async def asked(client: LedgerClient) -> Evidence:
        view = await client.deal(deal)
        if shard >= len(view.shards):
            raise not_found(f"deal {deal} has {count_text(len(view.shards), 'shard')}, counted from 0")
        dataset = view.shards[shard].dataset
        if not dataset:
            raise not_found(f"shard {shard} of deal {deal} is in no dataset: nobody keeps it now")
        return await _period_of(dataset, period)(client)

    return asked


def _spot_of(deal: CID, shard: int, height: int | None) -> Question:
    from ledger.transactions import Answer

    async def asked(client: LedgerClient) -> Evidence:
        found = await client.spot_proof(deal, shard, height)
        body = found.transaction().body
        if not isinstance(body, Answer) or (body.deal, body.shard) != (deal, shard):
            raise invalid(f"{client.url} gave another proof than was asked for")
        return found

    return asked
