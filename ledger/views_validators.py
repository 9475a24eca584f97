"""What queries see of validators."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import keys, limits
from ledger.paging import Page, page_of, subjects
from ledger.records_validators import ConsensusKeyRecord, ValidatorRecord
from ledger.state import State


@dataclass(frozen=True, slots=True)
class ValidatorInfo:
    """A validator, or who registered to be one, by its account."""

    account: bytes
    record: ValidatorRecord


class ValidatorQueries:
    """Answers from the last committed block. A base of `Application`, which owns the state."""

    _state: State

    def validator(self, account: bytes) -> ValidatorInfo | None:
        """Who registered keys to validate with, whether it validates or not."""
        record = self._state.committed(keys.validator(account), ValidatorRecord)
        return None if record is None else ValidatorInfo(account, record)

    def validators(self) -> tuple[ValidatorInfo, ...]:
        """Those with power, by account: `limits.MAX_VALIDATORS` and those on their way out at most."""
        seated = self._state.committed_scan(keys.SEATED)
        found = [self.validator(key[len(keys.SEATED) :]) for key in seated]
        return tuple(info for info in found if info is not None and info.record.power)

    def validators_page(self, after: bytes = b"", limit: int = limits.MAX_PAGE) -> Page[ValidatorInfo]:
        """Everybody registered, from behind the account `after` on, by account."""
        return page_of(subjects(self._state, keys.VALIDATOR, after), self.validator, limit)

    def proposer_of(self, address: bytes) -> bytes | None:
        """The account that a consensus key's address (20 bytes) is of; also of a key rotated away lately."""
        record = self._state.committed(keys.consensus(address), ConsensusKeyRecord)
        return None if record is None else record.account

    def bls_key(self, proposer: bytes) -> bytes | None:
        """The key, 48 bytes, that a proposer's next beacon is signed with; None for who proposes nothing."""
        info = self.validator(proposer)
        return info.record.bls_key or None if info is not None else None
