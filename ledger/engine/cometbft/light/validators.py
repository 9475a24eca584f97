"""A set of validators and its hash, which headers carry as `validators_hash` and `next_validators_hash`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ledger import keys
from ledger.engine.cometbft.light import canonical
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from merkledag.ed25519 import PUBLIC_KEY_BYTES

MAX_VALIDATORS = 10_000  # CometBFT's MaxVotesCount
MAX_TOTAL_POWER = (2**63 - 1) // 8


@dataclass(frozen=True, slots=True)
class Validator:
    """An Ed25519 key and its voting power."""

    public_key: bytes
    power: int

    @property
    def address(self) -> bytes:
        """20 bytes."""
        return keys.address(self.public_key)

    def encode(self) -> bytes:
        """The message SimpleValidator, a leaf of the set's hash (types/validator.go, Validator.Bytes)."""
        return canonical.message(1, canonical.message(1, self.public_key)) + canonical.number(2, self.power)


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The validators of one height, in CometBFT's order: by power, the largest first, then by address."""

    validators: tuple[Validator, ...]

    @classmethod
    def of(cls, validators: Iterable[Validator]) -> ValidatorSet:
        """Any validators, put into that order."""
        return cls(tuple(sorted(validators, key=lambda each: (-each.power, each.address))))

    @property
    def total_power(self) -> int:
        """The sum of their powers."""
        return sum(each.power for each in self.validators)

    def hash(self) -> bytes:
        """32 bytes (types/validator_set.go, ValidatorSet.Hash)."""
        return canonical.tree_root([each.encode() for each in self.validators])

    def by_address(self) -> dict[bytes, Validator]:
        """Each validator by its address."""
        return {each.address: each for each in self.validators}

    def check(self) -> None:
        """Raises InvalidLightBlock for a set that no chain has."""
        if not 0 < len(self.validators) <= MAX_VALIDATORS:
            raise InvalidLightBlock(f"a set of {len(self.validators)} validators; 1 to {MAX_VALIDATORS}")
        if any(len(each.public_key) != PUBLIC_KEY_BYTES for each in self.validators):
            raise InvalidLightBlock("a validator's key is no Ed25519 key")
        if any(each.power < 0 for each in self.validators) or not 0 < self.total_power <= MAX_TOTAL_POWER:
            raise InvalidLightBlock("the validators' voting power is negative, none, or too large")
        if len({each.public_key for each in self.validators}) != len(self.validators):
            raise InvalidLightBlock("a validator is twice in its set")
