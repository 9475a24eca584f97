"""The table of messages says what CometBFT's own code says, and our bytes are its bytes.

tests/vectors/abci.json is CometBFT 0.39.4's; what 0.38.17 and 0.40.0 say otherwise is named here.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ledger.engine.cometbft.abci import messages
from tests.conftest import ROOT

TABLE = dict(messages.lines(messages.TABLE))
FOUND: dict[str, dict[str, Any]] = {
    each["name"]: each for each in json.loads((ROOT / "tests" / "vectors" / "abci.json").read_text())
}
# A mempool inside the application, which 0.38 does not have and no configuration of ours asks for.
NOT_SPOKEN = {"insert_tx", "reap_txs"}
WELL_KNOWN = {"Timestamp", "Duration"}
# The same on the wire. CometBFT hands on as the path what anybody asked for, text or not.
READ_AS_BYTES = {"RequestQuery": {"path=2:string": "path=2:bytes"}}
UNKNOWN_TO_0_38 = {"authority=6:AuthorityParams", "bls12381=3:bytes@sum"}


def spoken(name: str) -> list[str]:
    """A message's fields as CometBFT has them, but for what is not spoken or read as bytes."""
    changed = READ_AS_BYTES.get(name, {})
    return [
        changed.get(field, field) for field in FOUND[name]["fields"] if field.split("=")[0] not in NOT_SPOKEN
    ]


def test_every_message_has_the_names_numbers_and_types_that_cometbft_has() -> None:
    left_out = {"RequestInsertTx", "ResponseInsertTx", "RequestReapTxs", "ResponseReapTxs"}
    assert set(TABLE) - WELL_KNOWN == set(FOUND) - left_out
    assert {name: TABLE[name] for name in TABLE if name not in WELL_KNOWN} == {
        name: spoken(name) for name in FOUND if name not in left_out
    }


def test_no_field_that_0_38_lacks_is_ever_asked_for() -> None:
    assert {field for fields in TABLE.values() for field in fields} >= UNKNOWN_TO_0_38
    for name in ("RequestInitChain", "ResponseInitChain", "ResponseFinalizeBlock"):
        assert not UNKNOWN_TO_0_38 & set(TABLE[name])


@pytest.mark.parametrize("name", sorted(set(TABLE) - WELL_KNOWN))
def test_bytes_of_cometbft_come_out_as_they_went_in(name: str) -> None:
    raw = base64.b64decode(FOUND[name]["filled"])
    read = getattr(messages, name).FromString(raw)
    assert read.SerializeToString() == raw
    oneofs = {field.partition("@")[2] for field in TABLE[name]} - {""}
    plain = [field for field in TABLE[name] if "@" not in field]
    assert len(read.ListFields()) == len(plain) + len(oneofs)
    rebuilt = getattr(messages, name)(**{field.name: value for field, value in read.ListFields()})
    assert rebuilt.SerializeToString() == raw


@pytest.mark.parametrize("name", ["Vote", "Header", "Commit", "BlockID", "ValidatorUpdate", "VoteInfo"])
def test_what_cometbft_never_leaves_out_can_be_set_though_it_is_empty(name: str) -> None:
    """CometBFT's zero time is the year 1, and ours 1970: times are set by whoever makes such a message."""
    zero_time = messages.Timestamp(seconds=-62135596800)
    made = getattr(messages, name)()
    for field in spoken(name):
        kind = field.partition(":")[2]
        if kind == "Timestamp":
            getattr(made, field.split("=")[0]).CopyFrom(zero_time)
        elif kind in {"BlockID", "PartSetHeader", "Consensus", "AbciValidator", "PublicKey"}:
            getattr(made, field.split("=")[0]).SetInParent()
    for holder in (made, getattr(made, "block_id", None), getattr(made, "last_block_id", None)):
        if holder is not None and "part_set_header" in [each.name for each in holder.DESCRIPTOR.fields]:
            holder.part_set_header.SetInParent()
    assert made.SerializeToString() == base64.b64decode(FOUND[name]["empty"])


def test_a_name_that_is_no_message_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no message RequestBeginBlock"):
        _ = messages.RequestBeginBlock
