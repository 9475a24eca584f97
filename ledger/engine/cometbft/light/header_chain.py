"""A chain's headers one after the other, from its genesis' validators on: what archives are verified with.

Each header has the hash of the one before, so whoever signed a header signed all before it. More than two
thirds of the validators have to have signed the last header that was theirs to sign, before others do, and
the last one of all. That is as much as if all of them were signed, each by its own validators.
"""

from __future__ import annotations

from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light.block import LightBlock, decode_header
from ledger.engine.cometbft.light.errors import InvalidLightBlock
from ledger.engine.cometbft.light.header import Header
from ledger.engine.cometbft.light.validators import Validator, ValidatorSet
from ledger.engine.cometbft.light.verify import verify_alone, verify_backwards
from ledger.genesis import Genesis


class HeaderChain:
    """Takes headers in their order; `last` is the last one.

    `end` is the light block that all of them lead to: of the last height, or of the one after it. It goes on
    after `last`, whose votes were counted before. Whoever has a header's hash from people gives it as `pin`.
    Everything raises InvalidLightBlock.
    """

    def __init__(
        self, genesis: Genesis, end: LightBlock, pin: TrustPin | None = None, last: Header | None = None
    ) -> None:
        verify_alone(end, genesis.chain_id)
        self.end = end
        self.last = last
        self._genesis = genesis
        self._pin = pin
        self._check_pin(end.header)

    def add(self, raw: bytes) -> Header:
        """The next header: a LightBlock message, with votes and validators where others sign from then on."""
        header, whole = decode_header(raw)
        self._link(header)
        if header.height == self.end.height and header != self.end.header:
            raise InvalidLightBlock(f"header {header.height} is not the one that was signed")
        if header.height != self.end.height and header.next_validators_hash != header.validators_hash:
            if whole is None:
                raise InvalidLightBlock(
                    f"after header {header.height} other validators sign, and it is not shown that these did"
                )
            verify_alone(whole, self._genesis.chain_id)
        self.last = header
        return header

    def finish(self) -> None:
        """There are no more headers: they have to lead to `end`."""
        if self.last is not None and self.last.height < self.end.height:
            self._link(self.end.header)
        elif self.last != self.end.header:
            raise InvalidLightBlock("the headers do not end with the one that was signed")

    def _link(self, header: Header) -> None:
        self._check_pin(header)
        if self.last is not None:
            verify_backwards(self.last, header)
            header.check()
            if header.validators_hash != self.last.next_validators_hash:
                raise InvalidLightBlock(
                    f"header {header.height} is of other validators than header {self.last.height} named"
                )
            return
        header.check()
        if header.chain != self._genesis.chain_id:
            raise InvalidLightBlock(
                f"a header of chain {header.chain[:60]!r}, not of {self._genesis.chain_id}"
            )
        if header.height != 1 or not header.last_block_id.is_nil:
            raise InvalidLightBlock(f"header {header.height} stands where the first one belongs")
        if header.validators_hash != genesis_validators(self._genesis).hash():
            raise InvalidLightBlock("the first header is of other validators than the genesis names")

    def _check_pin(self, header: Header) -> None:
        pin = self._pin
        if pin is not None and pin.height == header.height and pin.hash != header.hash():
            raise InvalidLightBlock(f"header {pin.height} is not the one that is trusted ({pin.hash.hex()})")


def genesis_validators(genesis: Genesis) -> ValidatorSet:
    """Who signs the first block."""
    return ValidatorSet.of(Validator(each.consensus_key, each.power) for each in genesis.validators)
