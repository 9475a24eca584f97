"""By which rules one light block is trusted because of another: adjacent, skipping, and backwards.

Each function raises and returns nothing. What is cheap comes first, and signatures are checked last: at most
one for each trusted validator before the new set is looked at, and then at most one for each of its own.
A vote whose signature is bad counts for nothing; it does not spoil the commit, for else one validator could
keep light clients from a header that the others signed. What is good is what validators count (`zip215`).
Source: light/verifier.go and types/validation.go of CometBFT 0.39; spec/light-client/verification.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ledger.engine.cometbft.light import zip215
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotEnoughTrust, TrustExpired
from ledger.engine.cometbft.light.header import Header
from ledger.engine.cometbft.light.validators import Validator, ValidatorSet
from ledger.engine.cometbft.light.votes import Commit, CommitSig, Flag
from merkledag import ed25519, rfc3339

TWO_THIRDS = Fraction(2, 3)
LEAST_TRUST_LEVEL = Fraction(1, 3)
DAY_S = 86_400
MAX_SLOW = 100  # signatures of a block that are checked by ZIP 215 too: our chains have no more validators


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a trusted header is trusted, how far a server's clock may be ahead, and what skipping needs.

    The trusting period has to be shorter than evidence counts (`chain_params.EVIDENCE_S`), and that shorter
    than a validator's stake stays bound: only then does somebody lose by signing two chains.
    """

    trusting_period_s: int = 7 * DAY_S
    clock_drift_s: int = 10
    trust_level: Fraction = LEAST_TRUST_LEVEL

    def __post_init__(self) -> None:
        if not LEAST_TRUST_LEVEL <= self.trust_level <= 1:
            raise ValueError(f"a trust level is 1/3 to 1, not {self.trust_level}")
        if self.trusting_period_s <= 0 or self.clock_drift_s < 0:
            raise ValueError("a trusting period is positive and a clock drift not negative")


def verify(trusted: LightBlock, new: LightBlock, now_ns: int, rules: Rules) -> None:
    """Trusts `new`, a later block of the same chain, because `trusted` is.

    Raises TrustExpired, InvalidLightBlock; of that NotEnoughTrust where blocks in between may still help.
    """
    require_in_time(trusted.header, now_ns, rules)
    _check_next(trusted, new, now_ns, rules)
    if new.height == trusted.height + 1:
        if new.header.validators_hash != trusted.header.next_validators_hash:
            raise InvalidLightBlock(
                f"header {new.height} is of other validators than header {trusted.height} named"
            )
        checked = _Signatures(new)
    else:
        checked = _Signatures(new)
        checked.require_trusted(trusted.validators, rules.trust_level)
    checked.require_own()


def verify_alone(block: LightBlock, chain: str) -> None:
    """That more than two thirds of its own validators signed it: of a block whose hash is pinned."""
    block.check(chain)
    _Signatures(block).require_own()


def verify_backwards(older: Header, trusted: Header) -> None:
    """That `older` is the header just before `trusted`, by its hash; raises InvalidLightBlock."""
    older.check()
    if older.chain != trusted.chain or older.height + 1 != trusted.height:
        raise InvalidLightBlock(f"header {older.height} is not the one before {trusted.height}")
    if older.time_ns >= trusted.time_ns:
        raise InvalidLightBlock(f"header {older.height} is not older than {trusted.height}")
    if older.hash() != trusted.last_block_id.hash:
        raise InvalidLightBlock(f"header {trusted.height} follows another header {older.height}")


def require_in_time(header: Header, now_ns: int, rules: Rules) -> None:
    """Raises TrustExpired at the end of the trusting period, and after it."""
    until_ns = header.time_ns + rules.trusting_period_s * SECOND_NS
    if until_ns <= now_ns:
        raise TrustExpired(
            f"header {header.height} of {rfc3339.format_ns(header.time_ns)}, the last one that was verified, "
            f"could be trusted until {rfc3339.format_ns(until_ns)}: too long ago"
        )


def _check_next(trusted: LightBlock, new: LightBlock, now_ns: int, rules: Rules) -> None:
    header = new.header
    if header.height <= trusted.height:
        raise InvalidLightBlock(f"header {header.height} does not come after {trusted.height}")
    new.check(trusted.header.chain)
    if header.time_ns <= trusted.header.time_ns:
        raise InvalidLightBlock(f"header {header.height} is not later than header {trusted.height}")
    if header.time_ns >= now_ns + rules.clock_drift_s * SECOND_NS:
        raise InvalidLightBlock(
            f"header {header.height} is of {rfc3339.format_ns(header.time_ns)}, in the future: is the clock "
            "of this machine right?"
        )


class _Signatures:
    """The votes for one block; each signature is checked at most once."""

    def __init__(self, block: LightBlock) -> None:
        self._chain = block.header.chain
        self._commit: Commit = block.commit
        self._own: ValidatorSet = block.validators
        self._known: dict[tuple[int, bytes], bool] = {}
        self._slow_left = MAX_SLOW

    def require_trusted(self, trusted: ValidatorSet, level: Fraction) -> None:
        """More than `level` of the trusted validators' power signed it, wherever they stand now."""
        by_address = trusted.by_address()
        votes: list[tuple[int, CommitSig, Validator]] = []
        seen: set[bytes] = set()
        for index, vote in enumerate(self._commit.signatures):
            validator = by_address.get(vote.address) if vote.flag is Flag.COMMIT else None
            if validator is None:
                continue
            if vote.address in seen:
                raise InvalidLightBlock(f"validator {vote.address.hex()} votes twice in one commit")
            seen.add(vote.address)
            votes.append((index, vote, validator))
        needed = _share(trusted, level)
        power = self._power(votes, needed)
        if power <= needed:
            raise NotEnoughTrust(
                f"trusted validators of at most power {power} signed header {self._commit.height}: more "
                f"than {needed} is needed"
            )

    def require_own(self) -> None:
        """More than two thirds of the power of its own validators signed it."""
        votes = []
        pairs = zip(self._commit.signatures, self._own.validators, strict=True)
        for index, (vote, validator) in enumerate(pairs):
            if vote.flag is not Flag.COMMIT:
                continue
            if vote.address != validator.address:
                raise InvalidLightBlock(
                    f"vote {index} of height {self._commit.height} is of another validator"
                )
            votes.append((index, vote, validator))
        needed = _share(self._own, TWO_THIRDS)
        power = self._power(votes, needed)
        if power <= needed:
            raise InvalidLightBlock(
                f"validators of at most power {power} signed header {self._commit.height}: more "
                f"than {needed} is needed"
            )

    def _power(self, votes: list[tuple[int, CommitSig, Validator]], needed: int) -> int:
        """The most power that can be behind good signatures, or as soon as it is more than `needed`, what is.

        So no more are checked than decide it.
        """
        power, left = 0, sum(validator.power for _, _, validator in votes)
        for index, vote, validator in votes:
            if power > needed or power + left <= needed:
                break
            left -= validator.power
            if self._is_signed(index, vote, validator.public_key):
                power += validator.power
        return power if power > needed else power + left

    def _is_signed(self, index: int, vote: CommitSig, public_key: bytes) -> bool:
        known = self._known.get((index, public_key))
        if known is None:
            signed = self._commit.sign_bytes(self._chain, vote)
            known = ed25519.verify(public_key, vote.signature, signed)
            if not known and self._slow_left:
                self._slow_left -= 1
                known = zip215.verify(public_key, vote.signature, signed)
            self._known[index, public_key] = known
        return known


def _share(validators: ValidatorSet, level: Fraction) -> int:
    """A share of their power, rounded down: more than this is needed."""
    return validators.total_power * level.numerator // level.denominator
