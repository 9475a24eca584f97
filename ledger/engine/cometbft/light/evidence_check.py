"""Checks a file with a proof of storage out of a ledger on CometBFT: headers vouch for what is in it.

The last light block's header has the app hash that the file's state proofs lead to; for a period's proof that
is the one after the block with the proof, whose own header is in the file too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.block_match import differs
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.verify import verify_alone, verify_backwards
from ledger.engine.evidence import Evidence
from ledger.engine.evidence_check import Check, PeriodCheck, SpotCheck
from ledger.engine.verdict import Anchor, Broken, NotChecked
from ledger.transactions import Prove, Transaction
from proofs.beacon import chain as beacon


def check_of(evidence: Evidence, tx: Transaction, anchor: Anchor) -> Check:
    """The check of a file that has light blocks."""
    cls = LightPeriodCheck if isinstance(tx.body, Prove) else LightSpotCheck
    return cls(evidence, tx, anchor)


class ByValidators(Check):
    """What differs where validators sign headers and nobody signs blocks."""

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """See `Check`; who signed is a question of validators, not of an operator."""
        return [(("validators" if name == "operator" else name), step) for name, step in super().steps()]

    def signature(self) -> str:
        """The headers belong together, two thirds signed the last, and the blocks say what they do."""
        try:
            found = [LightBlock.decode(raw) for raw in self.evidence.lights]
            verify_alone(found[-1], self.block.chain)
            for older, newer in pairwise(found):
                verify_backwards(older.header, newer.header)
        except InvalidLightBlock as error:
            raise Broken(str(error)) from error
        self._bind(found)
        power = found[-1].validators.total_power
        return (
            f"header {found[-1].height} of chain {self.block.chain} signed by more than two thirds of the "
            f"power {power} that it names"
        )

    def _bind(self, found: list[LightBlock]) -> None:
        block, before = self.block, self.evidence.before
        headers = {each.height: each.header for each in found}
        wanted = {block.height, self.evidence.state_block.height + 1}
        if headers.keys() != wanted:
            raise Broken(f"headers {sorted(headers)} are shown where {sorted(wanted)} belong")
        if other := differs(block, headers[block.height]):
            raise Broken(f"block {block.height} has not {other} of its header")
        if before is not None and (before.chain, before.height + 1) != (block.chain, block.height):
            raise Broken(f"block {before.height} is not the one before block {block.height}")
        if headers[self.evidence.state_block.height + 1].app_hash != self.evidence.state_block.app_hash:
            raise Broken(f"block {self.evidence.state_block.height} has another app hash than is signed")

    def operator(self) -> str:
        """Whether the signed header is of the chain that is trusted."""
        block, anchor = self.block, self.anchor
        said = []
        if anchor.chain not in (None, block.chain):
            raise Broken(f"the chain ought to be {anchor.chain}")
        if anchor.follows is not None:
            said.append(anchor.follows(self.evidence.lights))
        if anchor.app_hash is not None:
            found = self.evidence.state_block.app_hash
            if anchor.app_hash != found:
                raise Broken(f"the state has app hash {found.hex()}, not the one that was given")
            said.append("the state has the app hash that you gave")
        if not said:
            raise NotChecked("nobody said which header is trusted (--trust HEIGHT:HASH)")
        return ", ".join(said)

    def beacon(self) -> str:
        """The value that the seed came from, as the file says; the seed in the state shows that it is so."""
        step = self.evidence.beacon
        if step.height > self.evidence.state_block.height:
            raise Broken(f"block {step.height} comes after the state that has the seed")
        self.beacon_value = beacon.next_value(step.previous, step.signature)
        raise NotChecked(
            "whose BLS signature it is does not show here: validators checked it before they signed the state"
        )


class LightPeriodCheck(ByValidators, PeriodCheck):
    """Of a period's proof."""


class LightSpotCheck(ByValidators, SpotCheck):
    """Of the answer to a spot challenge."""
