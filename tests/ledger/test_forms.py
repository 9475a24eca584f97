"""Wire and JSON forms: what is encoded decodes to the same, and everything else is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import cbor2
import pytest

from ledger import limits, transactions
from ledger.errors import CorruptState, InvalidGenesis, InvalidTransaction
from ledger.events import Event
from ledger.fields import FieldError, Wire, specs
from ledger.genesis import DEMO_PARAMS, HOLD, Genesis, Params
from ledger.records import (
    AccountRecord,
    DatasetRecord,
    DealRecord,
    ProviderRecord,
    ShardRecord,
    ShardStatus,
    SlotRecord,
)
from ledger.result import EXPLANATIONS, Code, TxResult, explain
from ledger.transactions import (
    BODIES,
    Accept,
    Answer,
    Ask,
    Body,
    CreateDeal,
    DeclareFault,
    EndDeal,
    GiveUp,
    HandOver,
    PieceCommitment,
    Propose,
    Prove,
    Register,
    RegisterValidator,
    Renew,
    Resign,
    Settle,
    Spot,
    Stay,
    TopUp,
    Transaction,
    Transfer,
    Vote,
    Withdraw,
    decode,
    sign,
)
from merkledag import dag_cbor
from merkledag.cid import CID
from merkledag.codecs import DAG_CBOR
from merkledag.peer import peer_cid, peer_text
from proofs.kinds import ProofKind
from tests.ledger.world import CHAIN, CONTENT, FAR_S, MANIFEST, PARAMS, World, genesis, key, signer

PIECE = PieceCommitment(b"\x01" * 32, 3, 3_000, b"\x02" * 32, 1, 10)
BODY_EXAMPLES: list[Body] = [
    Transfer(key("a"), 5),
    Register("https://node.example/x", 2**40, key("b"), HOLD),
    Ask(7, 0, 2**30, True),
    Withdraw(3),
    CreateDeal(
        CONTENT,
        MANIFEST,
        1,
        2,
        False,
        30,
        5_000,
        30,
        (PIECE, PIECE),
        (key("a"), key("b")),
        ProofKind.KZG,
    ),
    Accept(MANIFEST, 1),
    Prove(b"\x03" * 32, 12, b"proof"),
    Settle(MANIFEST, 0),
    Renew(MANIFEST, 7),
    EndDeal(MANIFEST),
    TopUp(MANIFEST, 2, 5),
    HandOver(MANIFEST, 3),
    GiveUp(MANIFEST, 4),
    Stay(MANIFEST, 5),
    DeclareFault(b"\x03" * 32, 12),
    Propose({"base_fee": 5, "period_s": 60}, 2, "because", {key("a"): 7, key("b"): 0}),
    Vote(MANIFEST, True),
    Spot(MANIFEST, 1),
    Answer(MANIFEST, 1, b"proof"),
    RegisterValidator(b"\x04" * 32, b"\x05" * 64, b"\x06" * 48, b"\x07" * 96),
    Resign(),
]


def example(body: Body) -> Transaction:
    return sign(Transaction(CHAIN, key("a"), 3, 1_000, FAR_S, body), signer("a"))


@pytest.mark.parametrize("body", BODY_EXAMPLES, ids=lambda body: body.kind)
def test_a_transaction_decodes_to_itself_and_its_id_leaves_the_signature_out(body: Body) -> None:
    tx = example(body)
    assert decode(tx.encode()) == tx
    assert transactions.verify(tx)
    assert tx.id == CID.of(tx.unsigned_bytes(), codec=DAG_CBOR) == replace(tx, sig=bytes(64)).id
    assert "sig" not in dag_cbor.decode(tx.unsigned_bytes())
    document = json.loads(json.dumps(tx.to_json()))
    assert document["body"]["kind"] == body.kind
    shown = {name: value for name, value in document["body"].items() if name != "kind"}
    assert type(body).from_json(shown) == body


@pytest.mark.parametrize(
    "fee", [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 0x63736967, 2**63 - 1]
)
def test_the_unsigned_bytes_are_cut_out_of_the_signed_ones(fee: int) -> None:
    tx = replace(example(BODY_EXAMPLES[0]), fee=fee, sig=b"\x63sig" * 16)
    assert transactions.unsigned_of(tx.encode(), transactions.decode(tx.encode())) == tx.unsigned_bytes()


def test_there_is_an_example_of_each_kind() -> None:
    assert [body.kind for body in BODY_EXAMPLES] == list(BODIES)


@pytest.mark.parametrize("body", BODY_EXAMPLES, ids=lambda body: body.kind)
def test_no_field_takes_a_value_of_another_type(body: Body) -> None:
    tx = example(body)
    whole = {**tx.unsigned_map(), "sig": tx.sig}
    for name, right in whole["body"].items():
        wrong: Any
        for wrong in (None, True, -1, 2**63, 1.5, "", "x" * 5_000, b"", bytes(31), [], {}, MANIFEST):
            if type(wrong) is type(right) or (name == "providers" and wrong == []):
                continue
            raw = dag_cbor.encode({**whole, "body": {**whole["body"], name: wrong}})
            with pytest.raises(InvalidTransaction):
                decode(raw)


def test_an_account_in_a_map_has_one_form() -> None:
    tx = example(Propose({}, 0, "", {key("a"): 7}))
    for name in (str(peer_cid(key("a"))), "", "k51", peer_text(key("a")).upper(), "x" * 62):
        body = {**tx.unsigned_map()["body"], "validators": {name: 7}}
        with pytest.raises(InvalidTransaction, match="validators"):
            decode(dag_cbor.encode({**tx.unsigned_map(), "sig": tx.sig, "body": body}))


def test_the_largest_forms_have_fewer_values_than_are_read() -> None:
    largest = limits.MAX_UINT
    piece = PieceCommitment(
        b"\x01" * 32,
        limits.MAX_PIECE_LEAVES,
        limits.MAX_PIECE_BYTES,
        b"\x02" * 32,
        limits.MAX_PIECE_LEAVES,
        limits.MAX_PIECE_BYTES,
    )
    many = limits.MAX_SHARDS
    nodes = tuple(bytes([number]) * 32 for number in range(many))
    deal = CreateDeal(CONTENT, MANIFEST, many, many, False, 1, largest, largest, (piece,) * many, nodes)
    names = [f"{number:0>{limits.MAX_PARAM_CHARS}}" for number in range(limits.MAX_PARAMS)]
    voted_on = {number.to_bytes(32, "big"): limits.MAX_POWER for number in range(limits.MAX_VALIDATORS)}
    proposal = Propose(dict.fromkeys(names, largest), limits.MAX_RULES, "n" * limits.MAX_NOTE_CHARS, voted_on)
    for body in (deal, proposal):
        tx = sign(Transaction(CHAIN, key("a"), largest, largest, largest, body), signer("a"))
        assert decode(tx.encode()) == tx


@pytest.mark.parametrize("item", [b"\x00", b"\x80", b"\xa0", b"\x61a", b"\xd8\x2a\x45\x00\x01\x55\x00\x00"])
@pytest.mark.parametrize("head", [b"", b"\xa3\x65chain", b"\xa7\x63fee"])
def test_long_bytes_of_many_small_values_are_refused_unread(
    item: bytes, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = limits.MAX_TX_BYTES // len(item) - 20
    raw = head + b"\x9a" + count.to_bytes(4, "big") + count * item
    monkeypatch.delattr(cbor2, "loads")
    with pytest.raises(InvalidTransaction, match="more than 1024 values"):
        decode(raw)
    assert not transactions.is_beacon(raw)


def test_limits_of_a_deal_hold_in_its_bytes() -> None:
    tx = example(BODY_EXAMPLES[4])
    whole = {**tx.unsigned_map(), "sig": tx.sig}
    piece = PIECE.to_map()
    for wrong in ({"k": 0}, {"k": 65}, {"periods": 0}, {"periods": 2**21}, {"pieces": [piece] * 65}):
        with pytest.raises(InvalidTransaction):
            decode(dag_cbor.encode({**whole, "body": {**whole["body"], **wrong}}))


RECORDS: list[Wire] = [
    AccountRecord(5, 6),
    ProviderRecord(key("a"), key("b"), "http://x", 1, 2, 3, 4, 5, 6, 7, 8, True),
    SlotRecord(MANIFEST, 3),
    DatasetRecord(key("a"), key("b"), 30, 1, 5, seed=b"\x05" * 32, price_total=7),
    PARAMS,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_go_to_maps_and_json_and_back(record: Wire) -> None:
    assert [name for name, _ in specs(type(record))] == [each.name for each in fields(record)]
    assert type(record).from_map(dag_cbor.decode(dag_cbor.encode(record.to_map()))) == record
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_records_of_a_live_deal_do_too() -> None:
    world = World()
    world.fund("client")
    world.provider("node")
    deal, dataset = world.active("client", "node")
    info = world.app.deal(deal)
    assert info is not None
    for record in (info.record, info.shards[0], world.dataset(dataset).record):
        again: Any = type(record).from_json(json.loads(json.dumps(record.to_json())))
        assert again == record
        assert type(record).decode(record.encode()) == record
    for cls, name in ((DealRecord, b"deal/"), (ShardRecord, b"shard/")):
        raw = next(value for stored, value in world.app.items() if stored.startswith(name))
        with pytest.raises(CorruptState):
            cls.decode(raw[:-1])


def test_json_of_the_wrong_shape_is_refused() -> None:
    wrong: Any
    for wrong in ([], {"balance": 1}, {"balance": 1, "nonce": "2"}, {"balance": 1, "nonce": 2, "x": 3}):
        with pytest.raises(FieldError):
            AccountRecord.from_json(wrong)
    with pytest.raises(FieldError):
        SlotRecord.from_json({"deal": "nonsense", "shard": 1})
    with pytest.raises(FieldError):
        Transfer.from_json({"to": "nonsense", "amount": 1})


def test_genesis_is_a_file_and_a_block() -> None:
    one = genesis(DEMO_PARAMS)
    assert Genesis.loads(one.dumps()) == one
    assert Genesis.decode(one.encode()) == one
    with pytest.raises(InvalidGenesis):
        Genesis.loads("{")
    with pytest.raises(InvalidGenesis):
        Genesis.decode(one.encode()[:-1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"chain_id": ""},
        {"chain_id": "A b"},
        {"issued": 0},
        {"issued": 2**63},
        {"bls_possession": bytes(96)},
        {"params": replace(PARAMS, window_s=21)},
        {"params": replace(PARAMS, period_s=1)},
        {"params": replace(PARAMS, challenges=65)},
        {"params": replace(PARAMS, base_fee=0)},
    ],
    ids=str,
)
def test_a_genesis_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidGenesis):
        replace(genesis(), **wrong).validated()


def test_parameters_state_their_bounds() -> None:
    assert Params().check() == Params()
    assert DEMO_PARAMS.check() == DEMO_PARAMS
    assert Params().proof_fee >= Params().base_fee


def test_every_code_is_explained_and_success_is_zero() -> None:
    assert set(EXPLANATIONS) == set(Code)
    assert int(Code.OK) == 0
    assert explain(9_999) == "unknown result code 9999"
    assert TxResult(Code.NONCE_GAP, "x").to_json() == {"code": 9, "name": "NONCE_GAP", "log": "x", "tx": None}


def test_events_are_text_in_json() -> None:
    event = Event("fault", {"provider": key("a"), "dataset": b"\x01" * 32, "fee": 3, "deal": MANIFEST})
    shown = event.to_json()["attributes"]
    assert isinstance(shown, dict)
    assert shown["provider"].startswith("k51")
    assert shown["dataset"] == "01" * 32
    assert shown["deal"] == str(MANIFEST)
    assert shown["fee"] == 3
    assert ShardStatus.REPAIR.value == "repair-offered"
