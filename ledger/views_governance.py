"""What queries see of parameters, proposals and votes."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import keys
from ledger.genesis import Params
from ledger.records import ChainRecord
from ledger.records_governance import ProposalRecord, VoteRecord
from ledger.state import State
from merkledag.cid import CID


@dataclass(frozen=True, slots=True)
class ProposalInfo:
    """A proposal by its ID."""

    id: CID
    record: ProposalRecord


class GovernanceQueries:
    """Answers from the last committed block. A base of `Application`, which owns the state."""

    _state: State
    _chain: ChainRecord

    @property
    def params_version(self) -> int:
        """The version of the parameters in force for the next block."""
        return self._chain.params_version

    @property
    def rules(self) -> int:
        """The version of the rules in force for the next block."""
        return self._chain.rules

    def params_of(self, version: int) -> Params | None:
        """A version of the parameters, as deals and datasets name it; None if there is no such."""
        if not 0 < version <= self._chain.params_version:
            return None
        return self._state.committed(keys.params(version), Params)

    def proposal(self, proposal: CID) -> ProposalInfo | None:
        """A proposal; those that are over are kept for `retention_periods`."""
        record = self._state.committed(keys.proposal(proposal), ProposalRecord)
        return None if record is None else ProposalInfo(proposal, record)

    def proposals(self) -> list[ProposalInfo]:
        """All proposals that are kept, by number; `MAX_OPEN_PROPOSALS` a vote at most."""
        scanned = self._state.committed_scan(keys.PROPOSAL)
        found = [self.proposal(CID.decode(key[len(keys.PROPOSAL) :])) for key in scanned]
        return sorted((info for info in found if info is not None), key=lambda info: info.record.number)

    def vote_of(self, proposal: CID, account: bytes) -> VoteRecord | None:
        """How a provider voted on a proposal that is kept; None if it did not."""
        return self._state.committed(keys.vote(proposal, account), VoteRecord)
