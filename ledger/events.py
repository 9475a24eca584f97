"""Events: what a block did, for whoever follows the ledger. They are not part of the app hash.

Kinds and attributes (accounts as k51… text, deals as CID text, datasets and seeds as hex in JSON):

    transfer             from, to, amount
    provider_registered  provider, stake
    provider_asked       provider, open
    stake_withdrawn      provider, payout, amount
    deal_created         deal, client, shards
    deal_renewed         deal, periods, shards
    deal_ending          deal
    topped_up            deal, shard, amount
    shard_assigned       deal, shard, provider, repair, handover, expires_at
    shard_accepted       deal, shard, provider, dataset
    offer_expired        deal, shard, provider          ("" when nobody could be drawn)
    handover_started     deal, shard, provider
    handover_failed      deal, shard, provider          (nobody took it, it stays, or the deal ends)
    shard_handed_over    deal, shard, from, to
    dataset_changed      dataset, provider, period, pieces   (the set of pieces from `period` on is settled)
    window_opened        dataset, provider, period, seed, closes_at
    proof_accepted       dataset, provider, period
    period_void          dataset, provider, period, until     (until: the last void period of the run)
    fault_declared       dataset, provider, period
    fault                dataset, provider, period, fee, in_a_row, declared
    shard_terminated     deal, shard, provider, forfeited, reward
    shard_given_up       deal, shard, provider, fee
    paid                 deal, shard, provider, amount, reward, bounty
    shard_closed         deal, shard, status, refund
    deal_ended           deal, client, refund
    spot_opened          deal, shard, provider, seed, closes_at, challenges
    spot_answered        deal, shard, provider
    spot_missed          deal, shard, provider, missed, fee      (missed: in a row)
    spot_void            deal, shard, provider
    proposed             proposal, provider, number, closes_at
    voted                proposal, provider, approve, weight
    proposal_closed      proposal, status            (passed, rejected, no_quorum; at last active, void)
    params_changed       proposal, version           (in force from the next block on)
    rules_changed        proposal, rules             (in force from the next block on)
    validator_registered  validator, consensus_key, bls_key, counts_from   (from this ledger time)
    beacon_key_counts    validator, bls_key          (signs its beacons from the next block on)
    consensus_key_changed  validator, consensus_key
    validator_granted    validator, power            (by governance; 0: it is to go)
    validator_power      validator, power            (what the engine is told)
    validator_jailed     validator, forfeited
    validator_resigned   validator
    validator_forgotten  validator, deposit          (of one that resigned, long ago by now)
    work_stuck           work, why                   (a mistake in the rules; the key of what was set aside)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from merkledag.cid import CID
from merkledag.peer import peer_text

Attribute = int | str | bytes | CID

ACCOUNT_ATTRIBUTES = frozenset({"provider", "client", "from", "to", "payout", "validator"})


# An account's text takes longer than most of what else is done for a transaction.
account_text = lru_cache(4_096)(peer_text)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: its kind and attributes (accounts and hashes as bytes, IDs as CID)."""

    kind: str
    attributes: Mapping[str, Attribute]

    def to_json(self) -> dict[str, object]:
        """{"kind": …, "attributes": {name: text, number or truth value}}."""
        return {"kind": self.kind, "attributes": self.shown()}

    def shown(self) -> dict[str, int | str]:
        """The attributes as text, number or truth value, in their order."""
        return {name: _json(name, value) for name, value in self.attributes.items()}


def _json(name: str, value: Attribute) -> int | str:
    if isinstance(value, bytes):
        return account_text(value) if value and name in ACCOUNT_ATTRIBUTES else value.hex()
    return str(value) if isinstance(value, CID) else value
