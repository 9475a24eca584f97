"""CometBFT's protobuf messages: ABCI 2.0, types, crypto and version, built from one table at import.

Every message of the table is an attribute of this module by its name (`messages.Request`). Two messages are
called Validator: ABCI's is `AbciValidator`. Enumerations are int32 on the wire and IntEnums here. Source:
`proto/tendermint/` of CometBFT 0.39, which 0.38 and 0.40 agree with but for fields that they do not know.

`SerializeToString` gives what CometBFT's own code gives if sub-messages that it never leaves out
(`nullable = false` there) are set even where they are empty: `message.field.SetInParent()`.

A query's `path` is bytes here: anybody may ask CometBFT's RPC for `path=0xff`, which it hands on as the
string that it is to be, and what could not be decoded would end the connection, and `cometbft` with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Name, then its fields: name=number:type, with [] after the type of repeated ones and @name for those of a
# oneof. A message's line goes on where the next one is indented.
TABLE = """
Timestamp seconds=1:int64 nanos=2:int32
Duration seconds=1:int64 nanos=2:int32
PublicKey ed25519=1:bytes@sum secp256k1=2:bytes@sum bls12381=3:bytes@sum
Proof total=1:int64 index=2:int64 leaf_hash=3:bytes aunts=4:bytes[]
ValueOp key=1:bytes proof=2:Proof
ProofOp type=1:string key=2:bytes data=3:bytes
ProofOps ops=1:ProofOp[]
Consensus block=1:uint64 app=2:uint64

ConsensusParams block=1:BlockParams evidence=2:EvidenceParams validator=3:ValidatorParams
  version=4:VersionParams abci=5:ABCIParams authority=6:AuthorityParams
BlockParams max_bytes=1:int64 max_gas=2:int64
EvidenceParams max_age_num_blocks=1:int64 max_age_duration=2:Duration max_bytes=3:int64
ValidatorParams pub_key_types=1:string[]
VersionParams app=1:uint64
HashedParams block_max_bytes=1:int64 block_max_gas=2:int64
ABCIParams vote_extensions_enable_height=1:int64
AuthorityParams authority=1:string

Validator address=1:bytes pub_key=2:PublicKey voting_power=3:int64 proposer_priority=4:int64
SimpleValidator pub_key=1:PublicKey voting_power=2:int64
ValidatorSet validators=1:Validator[] proposer=2:Validator total_voting_power=3:int64
PartSetHeader total=1:uint32 hash=2:bytes
BlockID hash=1:bytes part_set_header=2:PartSetHeader
Header version=1:Consensus chain_id=2:string height=3:int64 time=4:Timestamp last_block_id=5:BlockID
  last_commit_hash=6:bytes data_hash=7:bytes validators_hash=8:bytes next_validators_hash=9:bytes
  consensus_hash=10:bytes app_hash=11:bytes last_results_hash=12:bytes evidence_hash=13:bytes
  proposer_address=14:bytes
Data txs=1:bytes[]
Vote type=1:int32 height=2:int64 round=3:int32 block_id=4:BlockID timestamp=5:Timestamp
  validator_address=6:bytes validator_index=7:int32 signature=8:bytes extension=9:bytes
  extension_signature=10:bytes
Commit height=1:int64 round=2:int32 block_id=3:BlockID signatures=4:CommitSig[]
CommitSig block_id_flag=1:int32 validator_address=2:bytes timestamp=3:Timestamp signature=4:bytes
SignedHeader header=1:Header commit=2:Commit
LightBlock signed_header=1:SignedHeader validator_set=2:ValidatorSet
Block header=1:Header data=2:Data evidence=3:EvidenceList last_commit=4:Commit
TxProof root_hash=1:bytes data=2:bytes proof=3:Proof
Evidence duplicate_vote_evidence=1:DuplicateVoteEvidence@sum
  light_client_attack_evidence=2:LightClientAttackEvidence@sum
EvidenceList evidence=1:Evidence[]
DuplicateVoteEvidence vote_a=1:Vote vote_b=2:Vote total_voting_power=3:int64 validator_power=4:int64
  timestamp=5:Timestamp
LightClientAttackEvidence conflicting_block=1:LightBlock common_height=2:int64
  byzantine_validators=3:Validator[] total_voting_power=4:int64 timestamp=5:Timestamp
CanonicalPartSetHeader total=1:uint32 hash=2:bytes
CanonicalBlockID hash=1:bytes part_set_header=2:CanonicalPartSetHeader
CanonicalProposal type=1:int32 height=2:sfixed64 round=3:sfixed64 pol_round=4:int64
  block_id=5:CanonicalBlockID timestamp=6:Timestamp chain_id=7:string
CanonicalVote type=1:int32 height=2:sfixed64 round=3:sfixed64 block_id=4:CanonicalBlockID
  timestamp=5:Timestamp chain_id=6:string

Request echo=1:RequestEcho@value flush=2:RequestFlush@value info=3:RequestInfo@value
  init_chain=5:RequestInitChain@value query=6:RequestQuery@value check_tx=8:RequestCheckTx@value
  commit=11:RequestCommit@value list_snapshots=12:RequestListSnapshots@value
  offer_snapshot=13:RequestOfferSnapshot@value load_snapshot_chunk=14:RequestLoadSnapshotChunk@value
  apply_snapshot_chunk=15:RequestApplySnapshotChunk@value
  prepare_proposal=16:RequestPrepareProposal@value process_proposal=17:RequestProcessProposal@value
  extend_vote=18:RequestExtendVote@value verify_vote_extension=19:RequestVerifyVoteExtension@value
  finalize_block=20:RequestFinalizeBlock@value
RequestEcho message=1:string
RequestFlush
RequestInfo version=1:string block_version=2:uint64 p2p_version=3:uint64 abci_version=4:string
RequestInitChain time=1:Timestamp chain_id=2:string consensus_params=3:ConsensusParams
  validators=4:ValidatorUpdate[] app_state_bytes=5:bytes initial_height=6:int64
RequestQuery data=1:bytes path=2:bytes height=3:int64 prove=4:bool
RequestCheckTx tx=1:bytes type=2:int32
RequestCommit
RequestListSnapshots
RequestOfferSnapshot snapshot=1:Snapshot app_hash=2:bytes
RequestLoadSnapshotChunk height=1:uint64 format=2:uint32 chunk=3:uint32
RequestApplySnapshotChunk index=1:uint32 chunk=2:bytes sender=3:string
RequestPrepareProposal max_tx_bytes=1:int64 txs=2:bytes[] local_last_commit=3:ExtendedCommitInfo
  misbehavior=4:Misbehavior[] height=5:int64 time=6:Timestamp next_validators_hash=7:bytes
  proposer_address=8:bytes
RequestProcessProposal txs=1:bytes[] proposed_last_commit=2:CommitInfo misbehavior=3:Misbehavior[]
  hash=4:bytes height=5:int64 time=6:Timestamp next_validators_hash=7:bytes proposer_address=8:bytes
RequestExtendVote hash=1:bytes height=2:int64 time=3:Timestamp txs=4:bytes[]
  proposed_last_commit=5:CommitInfo misbehavior=6:Misbehavior[] next_validators_hash=7:bytes
  proposer_address=8:bytes
RequestVerifyVoteExtension hash=1:bytes validator_address=2:bytes height=3:int64 vote_extension=4:bytes
RequestFinalizeBlock txs=1:bytes[] decided_last_commit=2:CommitInfo misbehavior=3:Misbehavior[]
  hash=4:bytes height=5:int64 time=6:Timestamp next_validators_hash=7:bytes proposer_address=8:bytes

Response exception=1:ResponseException@value echo=2:ResponseEcho@value flush=3:ResponseFlush@value
  info=4:ResponseInfo@value init_chain=6:ResponseInitChain@value query=7:ResponseQuery@value
  check_tx=9:ResponseCheckTx@value commit=12:ResponseCommit@value
  list_snapshots=13:ResponseListSnapshots@value offer_snapshot=14:ResponseOfferSnapshot@value
  load_snapshot_chunk=15:ResponseLoadSnapshotChunk@value
  apply_snapshot_chunk=16:ResponseApplySnapshotChunk@value
  prepare_proposal=17:ResponsePrepareProposal@value process_proposal=18:ResponseProcessProposal@value
  extend_vote=19:ResponseExtendVote@value verify_vote_extension=20:ResponseVerifyVoteExtension@value
  finalize_block=21:ResponseFinalizeBlock@value
ResponseException error=1:string
ResponseEcho message=1:string
ResponseFlush
ResponseInfo data=1:string version=2:string app_version=3:uint64 last_block_height=4:int64
  last_block_app_hash=5:bytes
ResponseInitChain consensus_params=1:ConsensusParams validators=2:ValidatorUpdate[] app_hash=3:bytes
ResponseQuery code=1:uint32 log=3:string info=4:string index=5:int64 key=6:bytes value=7:bytes
  proof_ops=8:ProofOps height=9:int64 codespace=10:string
ResponseCheckTx code=1:uint32 data=2:bytes log=3:string info=4:string gas_wanted=5:int64 gas_used=6:int64
  events=7:Event[] codespace=8:string
ResponseCommit retain_height=3:int64
ResponseListSnapshots snapshots=1:Snapshot[]
ResponseOfferSnapshot result=1:int32
ResponseLoadSnapshotChunk chunk=1:bytes
ResponseApplySnapshotChunk result=1:int32 refetch_chunks=2:uint32[] reject_senders=3:string[]
ResponsePrepareProposal txs=1:bytes[]
ResponseProcessProposal status=1:int32
ResponseExtendVote vote_extension=1:bytes
ResponseVerifyVoteExtension status=1:int32
ResponseFinalizeBlock events=1:Event[] tx_results=2:ExecTxResult[] validator_updates=3:ValidatorUpdate[]
  consensus_param_updates=4:ConsensusParams app_hash=5:bytes

CommitInfo round=1:int32 votes=2:VoteInfo[]
ExtendedCommitInfo round=1:int32 votes=2:ExtendedVoteInfo[]
Event type=1:string attributes=2:EventAttribute[]
EventAttribute key=1:string value=2:string index=3:bool
ExecTxResult code=1:uint32 data=2:bytes log=3:string info=4:string gas_wanted=5:int64 gas_used=6:int64
  events=7:Event[] codespace=8:string
TxResult height=1:int64 index=2:uint32 tx=3:bytes result=4:ExecTxResult
AbciValidator address=1:bytes power=3:int64
ValidatorUpdate pub_key=1:PublicKey power=2:int64
VoteInfo validator=1:AbciValidator block_id_flag=3:int32
ExtendedVoteInfo validator=1:AbciValidator vote_extension=3:bytes extension_signature=4:bytes
  block_id_flag=5:int32
Misbehavior type=1:int32 validator=2:AbciValidator height=3:int64 time=4:Timestamp
  total_voting_power=5:int64
Snapshot height=1:uint64 format=2:uint32 chunks=3:uint32 hash=4:bytes metadata=5:bytes
"""


class CheckTxType(IntEnum):
    """Whether the engine's mempool has had the transaction already."""

    NEW = 0
    RECHECK = 1


class OfferSnapshotResult(IntEnum):
    """Answers to an offered snapshot."""

    UNKNOWN = 0
    ACCEPT = 1
    ABORT = 2
    REJECT = 3
    REJECT_FORMAT = 4
    REJECT_SENDER = 5


class ApplySnapshotChunkResult(IntEnum):
    """Answers to a snapshot's chunk."""

    UNKNOWN = 0
    ACCEPT = 1
    ABORT = 2
    RETRY = 3
    RETRY_SNAPSHOT = 4
    REJECT_SNAPSHOT = 5


class ProposalStatus(IntEnum):
    """Answers to a proposed block."""

    UNKNOWN = 0
    ACCEPT = 1
    REJECT = 2


class VerifyStatus(IntEnum):
    """Answers to a vote extension."""

    UNKNOWN = 0
    ACCEPT = 1
    REJECT = 2


class MisbehaviorType(IntEnum):
    """What a validator is proven to have done."""

    UNKNOWN = 0
    DUPLICATE_VOTE = 1
    LIGHT_CLIENT_ATTACK = 2


_PACKAGE = "holdfast.cometbft"
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = ("bool", "bytes", "int32", "int64", "sfixed64", "string", "uint32", "uint64")


def lines(table: str) -> Iterator[tuple[str, list[str]]]:
    """The messages of a table: name, and each field as it is written there."""
    for line in table.replace("\n  ", " ").split("\n"):
        if line:
            name, *fields = line.split()
            yield name, fields


def _add_field(message: Any, text: str) -> None:
    name, _, rest = text.partition("=")
    number, _, rest = rest.partition(":")
    kind, _, oneof = rest.partition("@")
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if kind.endswith("[]"):
        field.label = _FIELD.LABEL_REPEATED
        kind = kind.removesuffix("[]")
    if kind in _SCALARS:
        field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if oneof:
        if not message.oneof_decl:
            message.oneof_decl.add(name=oneof)
        field.oneof_index = 0


def _classes() -> dict[str, Any]:
    """The classes of the table's messages by name, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="cometbft.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in lines(TABLE):
        message = file.message_type.add(name=name)
        for text in fields:
            _add_field(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}")
        )
        for message in file.message_type
    }


# As if each were written down here: a module's `__getattr__` alone would be asked at every use.
globals().update(_classes())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"CometBFT has no message {name}")
