"""A light block: a header, the commit that signs it, and its validators; from and to CometBFT's own forms."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError as ProtobufDecodeError

from ledger.engine.cometbft.abci import messages
from ledger.engine.cometbft.home.keys import read_public
from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import HASHES, BlockId, Header
from ledger.engine.cometbft.light.validators import MAX_VALIDATORS, Validator, ValidatorSet
from ledger.engine.cometbft.light.votes import Commit, CommitSig, Flag
from merkledag import rfc3339
from merkledag.errors import MerkledagError

# A validator takes at most 132 bytes, its vote 156: this is the largest set and a header.
MAX_LIGHT_BLOCK_BYTES = 300 * MAX_VALIDATORS + 4_096


@dataclass(frozen=True, slots=True)
class LightBlock:
    """What a light client needs of one height."""

    header: Header
    commit: Commit
    validators: ValidatorSet

    @property
    def height(self) -> int:
        """The header's."""
        return self.header.height

    @property
    def hash(self) -> bytes:
        """The header's: after `check` what the commit signs."""
        return self.commit.block_id.hash

    def check(self, chain: str) -> None:
        """Raises InvalidLightBlock unless its parts belong together; no signature is looked at.

        Source: types/light.go, LightBlock.ValidateBasic and SignedHeader.ValidateBasic.
        """
        header, commit = self.header, self.commit
        header.check()
        commit.check()
        if header.chain != chain:
            raise InvalidLightBlock(f"a header of chain {header.chain[:60]!r}, not of {chain}")
        if commit.height != header.height:
            raise InvalidLightBlock(f"a commit of height {commit.height} for the header {header.height}")
        if header.hash() != commit.block_id.hash:
            raise InvalidLightBlock(f"the commit of height {header.height} signs another header")
        self.validators.check()
        if len(commit.signatures) != len(self.validators.validators):
            raise InvalidLightBlock(f"height {header.height} has not one vote for each validator")
        if self.validators.hash() != header.validators_hash:
            raise InvalidLightBlock(f"header {header.height} is of other validators than are shown with it")

    def encode(self) -> bytes:
        """The message LightBlock."""
        made = messages.LightBlock()
        _put_header(made.signed_header.header, self.header)
        commit = made.signed_header.commit
        commit.height, commit.round = self.commit.height, self.commit.round
        _put_block_id(commit.block_id, self.commit.block_id)
        for vote in self.commit.signatures:
            row = commit.signatures.add(
                block_id_flag=int(vote.flag), validator_address=vote.address, signature=vote.signature
            )
            _put_time(row.timestamp, vote.time_ns)
        for each in self.validators.validators:
            one = made.validator_set.validators.add(address=each.address, voting_power=each.power)
            one.pub_key.ed25519 = each.public_key
        made.validator_set.total_voting_power = self.validators.total_power
        # A proposer belongs to the message; nothing that is signed says who of them it is.
        made.validator_set.proposer.CopyFrom(made.validator_set.validators[0])
        return bytes(made.SerializeToString())

    @classmethod
    def decode(cls, raw: bytes) -> LightBlock:
        """From the message LightBlock; raises InvalidLightBlock. Nothing is verified, not even `check`."""
        found = _message(raw)
        if not found.HasField("validator_set"):
            raise InvalidLightBlock("a light block has a signed header and its validators")
        commit = found.signed_header.commit
        return cls(
            _header(found.signed_header.header),
            Commit(
                commit.height,
                commit.round,
                _block_id(commit.block_id),
                tuple(
                    CommitSig(
                        _flag(vote.block_id_flag),
                        vote.validator_address,
                        _time_ns(vote.timestamp),
                        vote.signature,
                    )
                    for vote in commit.signatures
                ),
            ),
            ValidatorSet(tuple(_validator(one) for one in found.validator_set.validators)),
        )


def encode_header(header: Header) -> bytes:
    """The message LightBlock with a header alone: without votes and validators."""
    made = messages.LightBlock()
    _put_header(made.signed_header.header, header)
    return bytes(made.SerializeToString())


def decode_header(raw: bytes) -> tuple[Header, LightBlock | None]:
    """The header of a message LightBlock, and all of it where it has validators; raises InvalidLightBlock."""
    found = _message(raw)
    if not found.HasField("validator_set"):
        return _header(found.signed_header.header), None
    whole = LightBlock.decode(raw)
    return whole.header, whole


def _message(raw: bytes) -> Any:
    if len(raw) > MAX_LIGHT_BLOCK_BYTES:
        raise InvalidLightBlock(f"a light block has at most {MAX_LIGHT_BLOCK_BYTES} bytes")
    found = messages.LightBlock()
    try:
        found.ParseFromString(raw)
    except ProtobufDecodeError as error:
        raise InvalidLightBlock(f"this is no light block: {error}") from error
    if not found.HasField("signed_header"):
        raise InvalidLightBlock("a light block has a signed header and its validators")
    return found


def from_rpc(signed_header: Any, validators: Sequence[Any]) -> LightBlock:
    """From the JSON of CometBFT's /commit (its `signed_header`) and /validators; raises InvalidLightBlock."""
    try:
        header, commit = signed_header["header"], signed_header["commit"]
        return LightBlock(
            _header_of_json(header),
            Commit(
                int(commit["height"]),
                int(commit["round"]),
                _block_id_of_json(commit["block_id"]),
                tuple(_vote_of_json(vote) for vote in commit["signatures"]),
            ),
            ValidatorSet(tuple(_validator_of_json(one) for one in validators)),
        )
    except (KeyError, TypeError, ValueError, binascii.Error, MerkledagError) as error:
        raise InvalidLightBlock(f"CometBFT gave no header, commit and validators: {error!r}") from error


def header_from_rpc(header: Any) -> Header:
    """From the JSON of a header in CometBFT's /blockchain; raises InvalidLightBlock."""
    try:
        return _header_of_json(header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidLightBlock(f"CometBFT gave no header: {error!r}") from error


def _flag(value: Any) -> Flag:
    try:
        return Flag(value)
    except ValueError:
        raise InvalidLightBlock(f"a vote of kind {value}, which there is not") from None


# The message.


def _time_ns(stamp: Any) -> int:
    if not 0 <= stamp.nanos < canonical.SECOND_NS:
        raise InvalidLightBlock("a time of more nanoseconds than a second has")
    return int(stamp.seconds * canonical.SECOND_NS + stamp.nanos)


def _put_time(stamp: Any, time_ns: int) -> None:
    stamp.SetInParent()
    stamp.seconds, stamp.nanos = divmod(time_ns, canonical.SECOND_NS)


def _block_id(found: Any) -> BlockId:
    return BlockId(found.hash, found.part_set_header.total, found.part_set_header.hash)


def _put_block_id(made: Any, value: BlockId) -> None:
    made.SetInParent()
    made.hash = value.hash
    made.part_set_header.SetInParent()
    made.part_set_header.total, made.part_set_header.hash = value.parts, value.parts_hash


def _validator(found: Any) -> Validator:
    if found.pub_key.WhichOneof("sum") != "ed25519":
        raise InvalidLightBlock("a validator's key is no Ed25519 key")
    return Validator(found.pub_key.ed25519, found.voting_power)


def _header(found: Any) -> Header:
    return Header(
        block_version=found.version.block,
        app_version=found.version.app,
        chain=found.chain_id,
        height=found.height,
        time_ns=_time_ns(found.time),
        last_block_id=_block_id(found.last_block_id),
        last_commit_hash=found.last_commit_hash,
        data_hash=found.data_hash,
        validators_hash=found.validators_hash,
        next_validators_hash=found.next_validators_hash,
        consensus_hash=found.consensus_hash,
        app_hash=found.app_hash,
        last_results_hash=found.last_results_hash,
        evidence_hash=found.evidence_hash,
        proposer=found.proposer_address,
    )


def _put_header(made: Any, header: Header) -> None:
    made.version.SetInParent()
    made.version.block, made.version.app = header.block_version, header.app_version
    made.chain_id, made.height, made.proposer_address = header.chain, header.height, header.proposer
    _put_time(made.time, header.time_ns)
    _put_block_id(made.last_block_id, header.last_block_id)
    for name in HASHES:
        setattr(made, name, getattr(header, name))


# JSON, where 64-bit numbers are text, hashes are upper-case hexadecimal and signatures base64.


def _block_id_of_json(value: Mapping[str, Any]) -> BlockId:
    parts = value["parts"]
    return BlockId(bytes.fromhex(value["hash"]), int(parts["total"]), bytes.fromhex(parts["hash"]))


def _vote_of_json(value: Mapping[str, Any]) -> CommitSig:
    return CommitSig(
        _flag(value["block_id_flag"]),
        bytes.fromhex(value["validator_address"]),
        rfc3339.parse(value["timestamp"]),
        base64.b64decode(value["signature"] or "", validate=True),
    )


def _validator_of_json(value: Mapping[str, Any]) -> Validator:
    return Validator(read_public(value["pub_key"]), int(value["voting_power"]))


def _header_of_json(value: Mapping[str, Any]) -> Header:
    version = value["version"]
    return Header(
        block_version=int(version["block"]),
        app_version=int(version.get("app", 0)),
        chain=value["chain_id"],
        height=int(value["height"]),
        time_ns=rfc3339.parse(value["time"]),
        last_block_id=_block_id_of_json(value["last_block_id"]),
        proposer=bytes.fromhex(value["proposer_address"]),
        **{name: bytes.fromhex(value[name]) for name in HASHES},
    )
