"""A proof of one key of the state as a file, with the light blocks that vouch for the app hash.

The file is the DAG-CBOR map {kind, lights, proof}: `proof` as in `ledger.state_proof`; `lights` are
LightBlock messages of rising height. The last one's header has the app hash that the proof leads to, which is
the state's after the block before it. The others are the way to it, from the header that its maker trusted
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final

from ledger import state_proof, state_tree
from ledger.engine.cometbft.light.block import MAX_LIGHT_BLOCK_BYTES, LightBlock
from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotLater
from ledger.engine.cometbft.light.verify import Rules, verify, verify_alone
from ledger.engine.errors import InvalidProofFile
from ledger.engine.proof_file import check_state_proof, decode_map
from ledger.fields import FieldError, Spec, Wire, blob, sequence, text
from ledger.state_tree import StateProof
from merkledag import dag_cbor

LIGHT_KIND: Final = "holdfast/state-proof/2"
MAX_LIGHTS: Final = 64
LIGHT: Final = blob(1, MAX_LIGHT_BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class LightProofFile(Wire):
    """A proof and its light blocks."""

    kind: Annotated[str, text(64)]
    lights: Annotated[tuple[bytes, ...], sequence(LIGHT, MAX_LIGHTS)]
    proof: Annotated[StateProof, Spec(check_state_proof, to_wire=state_proof.encode)]

    @classmethod
    def of(cls, lights: tuple[bytes, ...], proof: StateProof) -> LightProofFile:
        """The file of the newest light blocks among these; there is at least one."""
        return cls(LIGHT_KIND, lights[-MAX_LIGHTS:], proof)

    def encode(self) -> bytes:
        """Canonical DAG-CBOR."""
        return dag_cbor.encode(self.to_map())

    @classmethod
    def decode(cls, raw: bytes) -> LightProofFile:
        """From canonical bytes; raises InvalidProofFile. Nothing is verified."""
        try:
            return cls.from_map(decode_map(raw))
        except FieldError as error:
            raise InvalidProofFile(f"this is no proof of a ledger's state: {error}") from error

    def verified(self) -> list[LightBlock]:
        """The light blocks; raises InvalidProofFile unless the proof leads to the last one's app hash.

        They are of one chain and of rising height, each has the validators that its header names, and more
        than two thirds of its own have signed the last. Whether those are the chain's is what `require_from`
        compares.
        """
        try:
            blocks = [LightBlock.decode(raw) for raw in self.lights]
            if not blocks:
                raise InvalidLightBlock("the file has no light block")
            if any(newer.height <= older.height for older, newer in pairwise(blocks)):
                raise InvalidLightBlock("the file's light blocks are not of rising height")
            for each in blocks[:-1]:
                each.check(blocks[-1].header.chain)
            verify_alone(blocks[-1], blocks[-1].header.chain)
        except InvalidLightBlock as error:
            raise InvalidProofFile(str(error)) from error
        if not state_tree.verify(self.proof, blocks[-1].header.app_hash):
            raise InvalidProofFile("the proof does not lead to the app hash")
        return blocks


def is_light(raw: bytes) -> bool:
    """Whether a file's bytes are of this form rather than the operator's; raises InvalidProofFile."""
    value = decode_map(raw)
    return isinstance(value, dict) and "lights" in value


def has_header(blocks: Sequence[LightBlock], height: int, hash_: bytes) -> int | None:
    """Where among light blocks a trusted header stands; None if nowhere."""
    found = (
        index for index, each in enumerate(blocks) if each.height == height and each.header.hash() == hash_
    )
    return next(found, None)


def require_from(trusted: LightBlock, blocks: Sequence[LightBlock], now_ns: int, rules: Rules) -> None:
    """That the last of these is trusted because `trusted`, an earlier or the same one, is.

    Only the header of `trusted` need be: its validators are held against it here, and those of the others
    before they count. Raises InvalidLightBlock, of that NotLater, and TrustExpired.
    """
    if has_header(blocks[-1:], trusted.height, trusted.header.hash()) is not None:
        return
    if blocks[-1].height <= trusted.height:
        raise NotLater(
            f"header {blocks[-1].height} of the proof is not later than the trusted one, {trusted.height}: "
            "only a ledger shows whether they are of one chain (--ledger URL)"
        )
    trusted.check(trusted.header.chain)
    at = trusted
    for each in blocks:
        if each.height > trusted.height:  # what is not later than the one before it, `verify` refuses
            verify(at, each, now_ns, rules)
            at = each
