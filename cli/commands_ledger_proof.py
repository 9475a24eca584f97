"""`holdfast ledger prove` and `verify`: what the ledger's state has at a key, for whoever was not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag, NewFileOption
from cli.output import emit, invalid, not_found, note, text, usage
from cli.streams import check_binary_stdout, is_stdout, read_input

if TYPE_CHECKING:
    from ledger.engine.blocks import Block
    from ledger.engine.proof_file import ProofFile

LedgerFlag = Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)]
WORDS = (
    "account KEY, provider KEY, deal CID, shard CID N, spot CID N, dataset ID, proposal CID, params N, "
    "chain, totals"
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

    It holds the signed block whose app hash it leads to, so `ledger verify` needs no ledger.
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
    found.verify()
    if cometbft and found.proof.value is None:
        raise not_found(
            "the state has nothing there, which CometBFT's form cannot show: leave --cometbft out"
        )
    with Target(output) as target:
        target.append(cometbft_ops(found.proof) if cometbft else found.encode())
    if json_output:
        emit(_document(found, None))


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
    json_output: JsonFlag = False,
) -> None:
    """Check a proof of the state, without a ledger: exit 4 where it does not hold.

    It must lead to the app hash of a block that the operator signed: the one that this home has pinned, or
    --operator; or to an --app-hash that you trust.
    """
    from ledger.engine.proof_file import MAX_FILE_BYTES, ProofFile

    wanted = _app_hash(app_hash) if app_hash else None
    home = Home.locate()
    found = ProofFile.decode(read_input(file, MAX_FILE_BYTES, "a proof"))
    found.verify()
    if wanted not in (None, found.block.app_hash):
        raise invalid(f"the proof leads to app hash {found.block.app_hash.hex()}, not to {app_hash}")
    against = _check_operator(home, found.block, operator) or ("app-hash" if wanted else None)
    if ledger:
        _check_block(home, ledger, found.block)
        against = against or "ledger"
    document = _document(found, against)
    if json_output:
        return emit(document)
    _show(document)
    if against is None:
        note(f"signed by {document['operator']}; whether that is the right one, --operator would check")
    return None


def state_key(words: list[str]) -> bytes:
    """The state's key that the words name; exit 2 for any others."""
    from cli.arguments import account_argument, cid_argument
    from ledger import keys

    match words:
        case ["account", name]:
            return keys.account(account_argument(name))
        case ["provider", name]:
            return keys.provider(account_argument(name))
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


def _check_block(home: Home, url: str, block: Block) -> None:
    """Exit 4 unless the ledger at `url` has this very block."""
    from cli.servers import ask_ledger, ledger_url

    if ask_ledger(home, ledger_url(home, url), lambda client: client.block(block.height)) != block:
        raise invalid(f"{url} has another block {block.height} than the proof")


def _document(found: ProofFile, against: str | None) -> dict[str, Any]:
    from merkledag.peer import peer_text

    record = found.record()
    return {
        "key": found.proof.key.hex(),
        "present": found.proof.value is not None,
        "value": None if found.proof.value is None else found.proof.value.hex(),
        "record": None if record is None else record.to_json(),
        "chain_id": found.block.chain,
        "operator": peer_text(found.block.account),
        "height": found.block.height,
        "time": found.block.time,
        "app_hash": found.block.app_hash.hex(),
        "block": str(found.block.cid),
        "against": against,
    }


def _show(document: dict[str, Any]) -> None:
    from cli.times import time_text

    for name in ("chain_id", "height", "app_hash", "key"):
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
