"""`holdfast ledger validator`: the keys that an account validates with, and who validates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.groups import new_app
from cli.home import OPERATOR_KEY, Home
from cli.money import amount_text, parse_amount
from cli.options import JsonFlag
from cli.output import emit, invalid, text, usage
from cli.servers import ask_found_ledger
from cli.spending import Desk, DryRunFlag, Intent, KeyFlag, LedgerFlag, Manner, YesFlag, send
from cli.times import time_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.engine.client import LedgerClient
    from ledger.engine.views import ValidatorView
    from ledger.records import ProviderRecord
    from ledger.records_validators import ValidatorRecord
    from merkledag.ed25519 import Signer
    from proofs.bls.signatures import BlsSigner

    Choose = Callable[[Home, ValidatorRecord | None], tuple[Signer, BlsSigner]]

app = new_app("Who makes a ledger's blocks, and by which keys.")
NO_NODE: Final = "https://no-storage-node.invalid"  # where somebody is found who keeps nothing for others
ConsensusOption = Annotated[
    str,
    typer.Option(
        "--consensus-key",
        metavar="FILE",
        help="priv_validator_key.json of the cometbft that is to sign.",
        show_default=False,
    ),
]


@app.command("ls")
def list_validators(
    all_registered: Annotated[
        bool, typer.Option("--all", help="Also who registered keys and has no power.")
    ] = False,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """List the validators, their power, and what they wait for."""
    from merkledag.peer import peer_text

    for view in ask_found_ledger(ledger, lambda client: client.validators()):
        found = view.validator
        if not (all_registered or found.power or found.granted):
            continue
        if json_output:
            emit(view.to_json())
        else:
            text(f"{peer_text(view.account)}  power {found.power}  {_standing(found)}")


def _standing(found: ValidatorRecord) -> str:
    """What governance says of it, and what is still to come."""
    words = [f"granted {found.granted}" if found.granted else "not admitted"]
    if found.resigned:
        words = ["has resigned"]
    if found.jailed:
        words = ["misbehaved: out until it is granted power again"]
    if found.next_bls_key:
        words.append(f"next BLS key counts from {time_text(found.next_from)}")
    if found.next_consensus_key:
        words.append("changes its consensus key")
    words.append(f"signs with {found.consensus_key.hex()}")
    return ", ".join(words)


@app.command()
def register(
    consensus_key: ConsensusOption = "",
    key: KeyFlag = OPERATOR_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Register this home's keys, so that `holdfast gov propose --validator` can name the account.

    The consensus key is that of this home's cometbft, the BLS key is `beacon`. They give no power.
    """

    def choose(home: Home, known: ValidatorRecord | None) -> tuple[Signer, BlsSigner]:
        if known is not None:
            raise usage("this account has registered keys: `holdfast ledger validator rotate` changes them")
        return _consensus(home, consensus_key, key), home.bls_signer()

    _send(Manner(key, ledger, yes, dry_run, "", json_output), choose, "registered")


@app.command()
def rotate(
    consensus_key: ConsensusOption = "",
    beacon: Annotated[
        bool,
        typer.Option("--beacon", help="Also a new BLS key, which is what rotates without --consensus-key."),
    ] = False,
    key: KeyFlag = OPERATOR_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Put a new BLS key, or the consensus key of another cometbft, in the place of the one in use.

    A new BLS key is made in this home and signs once it counts, two periods later; keep the old one until
    then. The old consensus key is asked for one block more after `ls` shows the new one: only then may its
    cometbft stop.
    """

    def choose(home: Home, known: ValidatorRecord | None) -> tuple[Signer, BlsSigner]:
        if known is None:
            raise usage("this account has registered no keys: `holdfast ledger validator register` does")
        fresh = beacon or not consensus_key
        bls = _next_beacon(home, known) if fresh else _beacon(home, known)
        return _consensus(home, consensus_key, key), bls

    _send(Manner(key, ledger, yes, dry_run, "", json_output), choose, "rotated")


@app.command()
def stake(
    amount: Annotated[str, typer.Argument(help="HOLD to add, such as 1000.")],
    key: KeyFlag = OPERATOR_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Add to the account's stake: it votes with that, and loses a share of it for misbehaviour.

    `holdfast node withdraw --key` takes it out again once it is not bound any more.
    """
    units = parse_amount(amount)
    if not units:
        raise usage("an amount of 0 adds nothing")

    async def prepare(desk: Desk) -> Intent:
        from ledger.transactions import Register

        known = await _provider(desk.ledger, desk.account)
        if known is None:
            body = Register(NO_NODE, 0, desk.account, units)
            lines = [
                f"stake    {amount_text(units)}",
                f"deposit  {amount_text(desk.params.deposit)}, held for good",
            ]
            return Intent(body, tuple(lines), units + desk.params.deposit)
        body = Register(known.endpoint, known.capacity_bytes, known.payout, units)
        return Intent(
            body,
            (f"stake    {amount_text(known.stake)}, {amount_text(known.stake + units)} after it",),
            units,
        )

    manner = Manner(key, ledger, yes, dry_run, "", json_output)
    send(manner, prepare, lambda receipt: f"staked in block {receipt.height}: {receipt.tx_id}")


@app.command()
def resign(
    key: KeyFlag = OPERATOR_KEY,
    ledger: LedgerFlag = "",
    yes: YesFlag = False,
    dry_run: DryRunFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Validate no more. Keep the validator running until `ls` does not list it any more.

    The stake stays bound for the unbonding time; then the keys are forgotten and their deposit comes back.
    """

    async def prepare(desk: Desk) -> Intent:
        from cli.durations import duration_text
        from ledger.transactions import Resign

        known = await _registered(desk.ledger, desk.account)
        if known is None:
            raise usage("this account has registered no keys")
        if known.resigned:
            raise usage("this account has resigned already: its keys are forgotten when its stake is free")
        bound = duration_text(desk.params.unbonding_s)
        lines = (
            f"power    {known.power}, which goes within some blocks; nobody can grant it any again before",
            f"         {bound} later: until then the stake stays bound, and the keys are this account's",
            f"deposit  {amount_text(known.deposit)}, back after that",
        )
        return Intent(Resign(), lines)

    manner = Manner(key, ledger, yes, dry_run, "", json_output)
    send(manner, prepare, lambda receipt: f"resigned in block {receipt.height}: {receipt.tx_id}")


def _send(manner: Manner, choose: Choose, done: str) -> None:
    async def prepare(desk: Desk) -> Intent:
        from ledger.forms_validators import register_validator
        from ledger.rules_validators import KEY_PERIODS

        known = await _registered(desk.ledger, desk.account)
        consensus, bls = choose(Home.locate(), known)
        lines = []
        if known is None or consensus.public_key not in (known.consensus_key, known.next_consensus_key):
            lines.append(f"consensus key {consensus.public_key.hex()}")
            if known is not None:
                lines.append("         its home needs the BLS keys of this one, or it proposes no block")
        if known is None or bls.public_key not in (known.bls_key, known.next_bls_key):
            counts = time_text(desk.time + KEY_PERIODS * desk.params.period_s)
            lines.append(f"BLS key  {bls.public_key.hex()}, which counts from {counts}")
        spends = desk.params.deposit if known is None else 0
        if spends:
            lines.append(f"deposit  {amount_text(spends)}, back some time after the account has resigned")
        return Intent(register_validator(desk.chain, desk.account, consensus, bls), tuple(lines), spends)

    send(manner, prepare, lambda receipt: f"{done} in block {receipt.height}: {receipt.tx_id}")


async def _registered(ledger: LedgerClient, account: bytes) -> ValidatorRecord | None:
    from ledger.engine.errors import LedgerNotFound

    try:
        found: ValidatorView = await ledger.validator(account)
    except LedgerNotFound:
        return None
    return found.validator


async def _provider(ledger: LedgerClient, account: bytes) -> ProviderRecord | None:
    from ledger.engine.errors import LedgerNotFound

    try:
        return await ledger.provider(account)
    except LedgerNotFound:
        return None


def _consensus(home: Home, file: str, key: str) -> Signer:
    """The key in a cometbft's file, in this home's; without a cometbft the account's own, as on embedded."""
    from cli.comet_service import comet_home
    from ledger.engine.cometbft.home.keys import validator_signer
    from ledger.engine.cometbft.home.layout import CometFilesError, CometHome

    comet = comet_home(home)
    if file:
        path = Path(file).resolve()
        comet = CometHome(path.parent.parent)
        if path != comet.validator_key_file.resolve():
            raise usage(f"{file}: a cometbft's consensus key is in config/{comet.validator_key_file.name}")
    elif not comet.validator_key_file.is_file():
        return home.signer(key)
    try:
        return validator_signer(comet)
    except CometFilesError as error:
        raise invalid(str(error)) from error


def _beacon(home: Home, known: ValidatorRecord) -> BlsSigner:
    """The BLS key that was registered last; exit 4 where it is not in this home."""
    from cli.beacon_keys import BeaconKeys
    from ledger.rules_validators import wanted_bls

    try:
        return BeaconKeys(home)[wanted_bls(known)]
    except KeyError:
        raise invalid(
            f"{home.keys} lacks the BLS key that is registered: add --beacon for a new one"
        ) from None


def _next_beacon(home: Home, known: ValidatorRecord) -> BlsSigner:
    """A BLS key of this home that was never registered, else a new one."""
    from cli.beacon_keys import BeaconKeys, next_key_name
    from cli.keystore import BLS12_381
    from cli.output import note

    used = (known.bls_key, known.next_bls_key, known.last_bls_key)
    signers = BeaconKeys(home)
    unused = next((key for key in signers if key not in used), None)
    if unused is not None:
        return signers[unused]
    name = next_key_name(home)
    note(home.keystore().create(name, BLS12_381).sentence())
    return home.bls_signer(name)
