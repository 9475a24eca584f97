"""`holdfast gov`: what providers vote on, parameters, rules and validators of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.arguments import account_argument, cid_argument
from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.money import amount_text
from cli.options import JsonFlag
from cli.output import emit, printable, text, usage
from cli.servers import ask_found_ledger
from cli.spending import (
    Desk,
    DryRunFlag,
    Intent,
    KeyFlag,
    LedgerFlag,
    Manner,
    UnsignedOption,
    YesFlag,
    owner,
    send,
)
from cli.times import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger.engine.client import LedgerClient
    from ledger.engine.views import ProposalView
    from ledger.genesis import Params
    from ledger.records_governance import ProposalRecord, VoteRecord

app = new_app("Votes of the providers on parameters and rules.")
ProposalArgument = Annotated[str, typer.Argument(metavar="PROPOSAL", help="ID of the proposal.")]


@app.command("ls")
def list_proposals(
    all_proposals: Annotated[bool, typer.Option("--all", help="Finished ones too.")] = False,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """List the proposals that are voted on or wait to come into force."""
    from ledger.records_governance import ProposalStatus

    running = (ProposalStatus.OPEN, ProposalStatus.PASSED)
    for view in ask_found_ledger(ledger, lambda client: client.proposals()):
        found = view.proposal
        if not all_proposals and found.status not in running:
            continue
        if json_output:
            emit(_document(view))
        else:
            text(f"{view.id} {found.status.value:9} {_next(found)}  {_short(found)}")


@app.command()
def show(
    proposal: ProposalArgument,
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Show what a proposal changes, how the vote stands, and one's own vote."""
    from merkledag.peer import peer_text

    wanted = cid_argument(proposal)
    home = Home.locate()
    account = owner(home, key) if home.keystore().has(key) else None

    async def question(client: LedgerClient) -> tuple[ProposalView, Params, VoteRecord | None]:
        view = await client.proposal(wanted)
        return view, await client.params(), await _own_vote(client, view, account)

    view, params, own = ask_found_ledger(ledger, question)
    found = view.proposal
    if json_output:
        return emit({**_document(view), "own_vote": None if own is None else own.to_json()})
    text(f"proposal  {view.id}, number {found.number} ({found.status.value})")
    text(f"by        {peer_text(found.proposer)}")
    if found.note:
        text(f"says      {printable(found.note)}")
    for line in _changes(found.changes, params):
        text(f"changes   {line}")
    if found.rules:
        text(f"rules     version {found.rules}")
    for line in _grants(found.validators):
        text(f"validator {line}")
    text(f"votes     {amount_text(found.yes)} for, {amount_text(found.no)} against it")
    text(f"stake     {amount_text(found.total)} could vote")
    text("needs     a third of all stake to vote, and two thirds of what votes for it")
    text(f"vote      from {time_text(found.opened_at)} to {time_text(found.closes_at)}")
    text(f"in force  {time_text(found.activates_at)}, if it passes")
    if own is not None:
        text(f"own vote  {'for' if own.approve else 'against'} it, with {amount_text(own.weight)}")
    return None


async def _own_vote(client: LedgerClient, view: ProposalView, account: bytes | None) -> VoteRecord | None:
    from ledger.engine.errors import LedgerNotFound

    if account is None:
        return None
    try:
        return await client.vote(view.id, account)
    except LedgerNotFound:
        return None


@app.command()
def propose(
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help="New values, such as base_fee=0.000002 or period_s=2d."),
    ] = None,
    rules: Annotated[
        int, typer.Option("--rules", min=0, help="A version of the rules to go over to.", show_default=False)
    ] = 0,
    validators: Annotated[
        list[str] | None,
        typer.Option(
            "--validator",
            metavar="ACCOUNT=POWER",
            help="Power for who registered keys, 0 to end it.",
            show_default=False,
        ),
    ] = None,
    note_: Annotated[str, typer.Option("--note", help="Why, in one line.")] = "",
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Put new values of parameters, new rules, or who validates, to the vote of the providers."""
    from cli.ledger_params import parse_params
    from ledger import limits
    from ledger.genesis import Params

    powers = _powers(validators or [])
    if not changes and not rules and not powers:
        raise usage(
            "say what to change: NAME=VALUE, as `holdfast ledger params` lists them, --rules N or --validator"
        )
    if len(note_) > limits.MAX_NOTE_CHARS:
        raise usage(f"--note has {len(note_)} characters: at most {limits.MAX_NOTE_CHARS}")
    values = parse_params(changes or [], Params().to_map())

    async def prepare(desk: Desk) -> Intent:
        from cli.durations import duration_text
        from ledger.fields import FieldError
        from ledger.transactions import Propose

        try:
            Params.from_map({**desk.params.to_map(), **values}).check()
        except FieldError as error:
            raise usage(f"the ledger does not take this: {error}") from None
        await _may_vote(desk)
        deposit = desk.params.proposal_deposit
        effect = [f"propose  {line}" for line in _changes(values, desk.params)]
        if rules:
            effect.append(f"propose  rules of version {rules}")
        effect += [f"propose  {line}" for line in _grants(powers)]
        effect.append(
            f"vote     for {duration_text(desk.params.vote_s)}; what passes comes into force "
            f"{duration_text(desk.params.timelock_s)} later, deals keep their terms"
        )
        effect.append(f"deposit  {amount_text(deposit)}; burned if less than a third of all stake votes")
        return Intent(Propose(values, rules, note_, powers), tuple(effect), deposit)

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"proposed in block {receipt.height}: {receipt.tx_id}")


@app.command()
def vote(
    proposal: ProposalArgument,
    answer: Annotated[str, typer.Argument(metavar="yes|no", help="For it, or against it.")],
    key: KeyFlag = NODE_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    unsigned: UnsignedOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Vote on a proposal with all of the node's stake; a vote cannot be changed."""
    wanted = cid_argument(proposal)
    if answer not in ("yes", "no"):
        raise usage(f"{answer!r}: write yes or no")

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Vote

        found = (await desk.ledger.proposal(wanted)).proposal
        await _may_vote(desk)
        lines = [f"vote     {answer} on {wanted}, with the least stake since it began, bound to its end"]
        lines += [f"changes  {line}" for line in _changes(found.changes, desk.params)]
        if found.rules:
            lines.append(f"changes  rules to version {found.rules}")
        lines += [f"changes  {line}" for line in _grants(found.validators)]
        return Intent(Vote(wanted, answer == "yes"), tuple(lines))

    manner = Manner(key, ledger, yes, dry_run, unsigned, json_output)
    send(manner, prepare, lambda receipt: f"voted in block {receipt.height}: {receipt.tx_id}")


async def _may_vote(desk: Desk) -> None:
    """Exit 7 for an account that is no provider: it has no stake to vote with."""
    from cli.commands_node_terms import NODE_REGISTERS, registered

    staked = "`holdfast ledger validator stake AMOUNT` gives a validator the stake that it votes with"
    await registered(desk.ledger, desk.account, f"{NODE_REGISTERS}, or {staked}")


def _document(view: ProposalView) -> dict[str, Any]:
    return {"id": str(view.id), **view.proposal.to_json()}


def _changes(changes: Mapping[str, int], params: Params) -> list[str]:
    """One line a parameter: its new value and the one in force."""
    from cli.ledger_params import param_text

    now = params.to_map()
    return [
        f"{name} to {param_text(name, value)} from {param_text(name, now[name])}"
        for name, value in changes.items()
        if name in now
    ]


def _powers(words: list[str]) -> dict[bytes, int]:
    """ACCOUNT=POWER as the ledger takes it; exit 2 for anything else."""
    from ledger.limits import MAX_POWER

    found: dict[bytes, int] = {}
    for word in words:
        name, _, number = word.partition("=")
        if not (number.isascii() and number.isdigit() and len(number) < 20 and int(number) <= MAX_POWER):
            raise usage(f"--validator {word}: write ACCOUNT=POWER, a whole number from 0 to {MAX_POWER}")
        account = account_argument(name)
        if account in found:
            raise usage(f"--validator {name} is named twice")
        found[account] = int(number)
    return found


def _grants(powers: Mapping[bytes, int]) -> list[str]:
    """One line a validator: what it is to have."""
    from merkledag.peer import peer_text

    return [
        f"{peer_text(account)} validates with power {power}" if power else f"{peer_text(account)} goes"
        for account, power in powers.items()
    ]


def _short(found: ProposalRecord) -> str:
    from cli.ledger_params import param_text

    words = [
        f"{name}={param_text(name, value).removesuffix(' HOLD')}" for name, value in found.changes.items()
    ]
    words += [f"rules {found.rules}"] if found.rules else []
    words += [f"{len(found.validators)} of the validators"] if found.validators else []
    return ", ".join(words)


def _next(found: ProposalRecord) -> str:
    """What happens to a proposal next, and when; or when its vote ended."""
    if found.status.value == "open":
        return f"vote until {time_text(found.closes_at)}"
    if found.status.value == "passed":
        return f"in force at {time_text(found.activates_at)}"
    return f"vote ended {time_text(found.closes_at)}"
