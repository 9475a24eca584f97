"""`holdfast ledger prove` and `verify`: what the ledger's state has at a key, for whoever was not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag, NewFileOption
from cli.output import ExitCode, emit, invalid, not_found, note, text, usage
from cli.streams import check_binary_stdout, is_stdout, read_input

if TYPE_CHECKING:
    from ledger.engine.blocks import Block
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.proof_file import LightProofFile
    from ledger.engine.proof_file import ProofFile

LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
WORDS = (
    "account KEY, provider KEY, validator KEY, deal CID, shard CID N, spot CID N, dataset ID, proposal CID, "
    "params N, chain, totals"
)
HOW = f"write a key in hexadecimal, or {WORDS}"
HASH_BYTES = 32
# Fields of the state's records that are amounts; those of parameters are `cli.ledger_params.AMOUNTS`.
RECORDED_MONEY: Final = {
    *(
        "balance",
        "balances",
        "bounty",
        "burned",
        "collateral",
        "deposit",
        "escrow",
        "fee",
        "issued",
        "locked",
    ),
    *(
        "next_collateral",
        "paid",
        "price",
        "price_total",
        "price_per_gib_period",
        "refunded",
        "reward",
        "stake",
    ),
    *("total", "yes", "no", "weight"),
}
MAX_SHARD = 63
MAX_U32 = 2**32 - 1


def prove(
    what: Annotated[
        list[str], typer.Argument(metavar="KEY", help=f"Hexadecimal, or what is there: {WORDS}.")
    ],
    output: NewFileOption = "",
    cometbft: Annotated[
        bool, typer.Option("--cometbft", help="CometBFT's ProofOps message alone; of what is present only.")
    ] = False,
    ledger: LedgerFlag = "",
    json_output: JsonFlag = False,
) -> None:
    """Write a proof of what the state has at a key, or that it has nothing there.

    It holds what is signed of the app hash that it leads to, by the operator or by validators, so `ledger
    verify` needs no ledger.
    """
    from cli.servers import ask_ledger, ledger_url
    from cli.target import Target
    from ledger.state_proof import cometbft_ops

    key = state_key(what)
    home = Home.locate()
    url = ledger_url(home, ledger)
    if is_stdout(output):
        check_binary_stdout("a proof", json_output=json_output)

    found = ask_ledger(home, url, lambda client: client.prove(key))
    document = _document_of(found)
    if cometbft and found.proof.value is None:
        raise not_found(
            "the state has nothing there, which CometBFT's form cannot show: leave --cometbft out"
        )
    with Target(output) as target:
        target.append(cometbft_ops(found.proof) if cometbft else found.encode())
    if json_output:
        emit(document)


def verify(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A proof, `-` for stdin.")],
    app_hash: Annotated[
        str, typer.Option("--app-hash", help="The app hash that it must lead to.", show_default=False)
    ] = "",
    operator: Annotated[
        str, typer.Option("--operator", help="The key that must have signed the block.", show_default=False)
    ] = "",
    ledger: Annotated[
        str,
        typer.Option("--ledger", "--url", help="Compare the block with this ledger's.", show_default=False),
    ] = "",
    trust: Annotated[
        str,
        typer.Option(
            "--trust", metavar="HEIGHT:HASH", help="A header that it must follow from.", show_default=False
        ),
    ] = "",
    json_output: JsonFlag = False,
) -> int:
    """Check a proof of the state, without a ledger: exit 4 where it does not hold, 2 if it hangs on nothing.

    It must lead to the app hash of a block that the operator signed: the one that this home has pinned, or
    --operator; on CometBFT to that of a header which follows from the one pinned, or --trust; or to an
    --app-hash that you trust.
    """
    from ledger.engine.cometbft.light.proof_file import LightProofFile, is_light
    from ledger.engine.proof_file import MAX_FILE_BYTES, ProofFile

    wanted = _app_hash(app_hash) if app_hash else None
    home = Home.locate()
    raw = read_input(file, MAX_FILE_BYTES, "a proof")
    found = LightProofFile.decode(raw) if is_light(raw) else ProofFile.decode(raw)
    document = _document_of(found)
    if wanted is not None and wanted.hex() != document["app_hash"]:
        raise invalid(f"the proof leads to app hash {document['app_hash']}, not to {app_hash}")
    against = _held_against(home, found, operator, trust, ledger) or ("app-hash" if wanted else None)
    if ledger:
        _check_ledger(home, ledger, found)
        against = against or "ledger"
    document |= {"against": against, "verified": against is not None}
    if json_output:
        emit(document)
    else:
        _show(document)
    if against is not None:
        return ExitCode.DONE
    note(f"holdfast: nothing was given that the file could not have made up: {_unanchored(document)}")
    return ExitCode.USAGE


def state_key(words: list[str]) -> bytes:
    """The state's key that the words name; exit 2 for any others."""
    from cli.arguments import account_argument, cid_argument
    from ledger import keys

    match words:
        case ["account", name]:
            return keys.account(account_argument(name))
        case ["provider", name]:
            return keys.provider(account_argument(name))
        case ["validator", name]:
            return keys.validator(account_argument(name))
        case ["deal", cid]:
            return keys.deal(cid_argument(cid))
        case ["shard", cid, number] if _is_number(number, MAX_SHARD):
            return keys.shard(cid_argument(cid), int(number))
        case ["spot", cid, number] if _is_number(number, MAX_SHARD):
            return keys.spot(cid_argument(cid), int(number))
        case ["proposal", cid]:
            return keys.proposal(cid_argument(cid))
        case ["dataset", name]:
            return keys.dataset(_hexadecimal(name, HASH_BYTES, exact=True))
        case ["params", number] if _is_number(number, MAX_U32):
            return keys.params(int(number))
        case ["chain"]:
            return keys.CHAIN
        case ["totals"]:
            return keys.TOTALS
        case [name]:
            from ledger.limits import MAX_KEY_BYTES

            return _hexadecimal(name, MAX_KEY_BYTES)
    raise usage(f"{' '.join(words)!r}: {HOW}")


def _is_number(text_: str, most: int) -> bool:
    return text_.isascii() and text_.isdigit() and len(text_) < 12 and int(text_) <= most


def _hexadecimal(text_: str, size_bytes: int, *, exact: bool = False) -> bytes:
    try:
        value = bytes.fromhex(text_)
    except ValueError:
        value = b""
    if not value or len(value) > size_bytes or (exact and len(value) != size_bytes):
        raise usage(f"{text_!r}: {HOW}")
    return value


def _app_hash(text_: str) -> bytes:
    try:
        value = bytes.fromhex(text_)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES:
        raise usage(f"--app-hash {text_!r}: 64 hexadecimal digits")
    return value


def _check_operator(home: Home, block: Block, flag: str) -> str | None:
    """Exit 4 where the block is of another operator or chain than wanted or pinned; None where none is."""
    from cli.arguments import account_argument
    from cli.ledger_pin import pin_of
    from merkledag.peer import peer_text

    pin = pin_of(home)
    wanted = account_argument(flag) if flag else pin.operator
    if wanted is None:
        return None
    if wanted != block.account:
        raise invalid(f"the block is signed by {peer_text(block.account)}, not by {peer_text(wanted)}")
    if not flag and pin.chain not in (None, block.chain):
        raise invalid(f"the block is of chain {block.chain}, not of {pin.chain}")
    return "operator"


def _held_against(
    home: Home, found: ProofFile | LightProofFile, operator: str, trust: str, ledger: str
) -> str | None:
    """What the file was held against of all that is trusted; exit 4 where it is of another chain."""
    from cli.ledger_light import check_trust
    from ledger.engine.cometbft.light.errors import NotLater
    from ledger.engine.proof_file import ProofFile

    if isinstance(found, ProofFile):
        if trust:
            raise usage("the operator signed this proof's block: --operator checks whose it is, not --trust")
        return _check_operator(home, found.block, operator)
    if operator:
        raise usage("validators signed this proof's header: --trust checks which chain it is, not --operator")
    try:
        return None if check_trust(home, found.verified(), trust or None) is None else "trust"
    except NotLater as error:
        if ledger:
            return None
        raise invalid(f"whether the proof is of the trusted chain cannot be told: {error}") from error


def _unanchored(document: dict[str, Any]) -> str:
    if document["operator"] is None:
        return "signed by the validators that it names; whether those are the chain's, --trust would check"
    return f"signed by {document['operator']}; whether that is the right one, --operator would check"


def _check_ledger(home: Home, url: str, found: ProofFile | LightProofFile) -> None:
    """Exit 4 unless the ledger at `url` has this very block or header."""
    from cli.servers import ask_ledger, ledger_url
    from ledger.engine.proof_file import ProofFile

    at = ledger_url(home, url)
    if isinstance(found, ProofFile):
        block = found.block
        if ask_ledger(home, at, lambda client: client.block(block.height)) != block:
            raise invalid(f"{url} has another block {block.height} than the proof")
        return
    header = found.verified()[-1].header
    if ask_ledger(home, at, lambda client: client.light_block(header.height)).header != header:
        raise invalid(f"{url} has another header {header.height} than the proof")


def _document_of(found: ProofFile | LightProofFile) -> dict[str, Any]:
    """What a file says; exit 4 where it does not hold in itself."""
    from ledger.engine.proof_file import ProofFile, record_of
    from merkledag.peer import peer_text

    if isinstance(found, ProofFile):
        found.verify()
        block = found.block
        head = {
            "chain_id": block.chain,
            "operator": peer_text(block.account),
            "height": block.height,
            "time": block.time,
            "app_hash": block.app_hash.hex(),
            "block": str(block.cid),
        }
    else:
        head = _head_of(found.verified()[-1])
    record = record_of(found.proof)
    return {
        "key": found.proof.key.hex(),
        "present": found.proof.value is not None,
        "value": None if found.proof.value is None else found.proof.value.hex(),
        "record": None if record is None else record.to_json(),
        **head,
        "against": None,
    }


def _head_of(last: LightBlock) -> dict[str, Any]:
    """The state is the one after the block before this header's, which has the time of when it was signed."""
    from cli.ledger_light import trust_text
    from ledger.engine.cometbft.light.canonical import SECOND_NS

    return {
        "chain_id": last.header.chain,
        "operator": None,
        "height": last.height - 1,
        "time": last.header.time_ns // SECOND_NS,
        "app_hash": last.header.app_hash.hex(),
        "block": None,
        "header": trust_text(last.height, last.header.hash()),
    }


def _show(document: dict[str, Any]) -> None:
    from cli.times import time_text

    for name in ("chain_id", "height", "header", "app_hash", "key"):
        if name in document:
            text(f"{name:11} {document[name]}")
    text(f"{'time':11} {time_text(document['time'])}")
    if not document["present"]:
        text(f"{'value':11} absent")
        return
    record = document["record"]
    for name, value in record.items() if record is not None else [("value", document["value"])]:
        text(f"{name:11} {_value_text(name, value)}")


def _value_text(name: str, value: Any) -> str:
    from cli.ledger_params import AMOUNTS
    from cli.money import amount_text

    is_money = type(value) is int and name in RECORDED_MONEY | AMOUNTS
    return f"{amount_text(value)} ({value} units)" if is_money else str(value)
