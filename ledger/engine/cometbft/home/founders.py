"""Founders: what each validator hands in before there is a chain, and what all get back from who collects.

A founder's file says who validates with which keys and where its peers find it. It is signed with the
validator's account and its consensus key, so that whoever collects can neither change nor make up one.
The founding file is the genesis with all of these, for each founder to check for itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ledger.engine.cometbft.home.config import is_peer
from ledger.errors import InvalidGenesis
from ledger.genesis import Genesis, GenesisValidator
from merkledag import dag_cbor
from merkledag.ed25519 import Ed25519Signer, verify
from merkledag.errors import MerkledagError

FOUNDER_FORMAT: Final = "holdfast-founder-1"
FOUNDING_FORMAT: Final = "holdfast-founding-1"
MAX_FOUNDER_BYTES: Final = 1 << 14
MAX_FOUNDING_BYTES: Final = 4 << 20
SIGN_TAG: Final = b"holdfast/founder/1\x00"
SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Founder:
    """One validator of a chain to come. `peer` is ID@HOST:PORT; the signatures are over all else."""

    chain_id: str
    validator: GenesisValidator
    peer: str
    account_signature: bytes = b""
    consensus_signature: bytes = b""

    def signed(self, account: Ed25519Signer, consensus: Ed25519Signer) -> Founder:
        """The same with both signatures."""
        message = self._message()
        return replace(
            self, account_signature=account.sign(message), consensus_signature=consensus.sign(message)
        )

    def check(self) -> Founder:
        """Itself; InvalidGenesis where a signature or the peer's address is none."""
        message, keys = self._message(), self.validator
        if not verify(keys.account, self.account_signature, message):
            raise InvalidGenesis("a founder's file is not signed by the account that it names")
        if not verify(keys.consensus_key, self.consensus_signature, message):
            raise InvalidGenesis("a founder's file is not signed by the consensus key that it names")
        if not is_peer(self.peer):
            raise InvalidGenesis(f"{self.peer[:200]!r} is no address of a peer: it must be ID@HOST:PORT")
        return self

    def to_json(self) -> dict[str, Any]:
        """The file's object."""
        return {
            "format": FOUNDER_FORMAT,
            "chain_id": self.chain_id,
            "validator": self.validator.to_json(),
            "peer": self.peer,
            "account_signature": self.account_signature.hex(),
            "consensus_signature": self.consensus_signature.hex(),
        }

    @classmethod
    def from_json(cls, value: Any) -> Founder:
        """From the file's object, checked; InvalidGenesis."""
        try:
            if value["format"] != FOUNDER_FORMAT:
                raise InvalidGenesis(f"not a founder's file of this version ({FOUNDER_FORMAT})")
            texts = [value["chain_id"], value["peer"]]
            if not all(isinstance(text, str) for text in texts):
                raise InvalidGenesis("not a founder's file")
            validator = GenesisValidator.from_json(value["validator"])
            first, second = (bytes.fromhex(value[f"{name}_signature"]) for name in ("account", "consensus"))
        except (KeyError, TypeError, ValueError, MerkledagError) as error:
            raise InvalidGenesis(f"not a founder's file: {error}") from None
        return cls(texts[0], validator, texts[1], first, second).check()

    def _message(self) -> bytes:
        return SIGN_TAG + dag_cbor.encode([self.chain_id, self.validator.to_map(), self.peer])


def read_founder(raw: bytes) -> Founder:
    """From a founder's file; InvalidGenesis."""
    return Founder.from_json(_json(raw))


@dataclass(frozen=True, slots=True)
class Founding:
    """A genesis and the founders whose validators it has, in the same order."""

    genesis: Genesis
    founders: tuple[Founder, ...]

    def dumps(self) -> bytes:
        """The file."""
        document = {
            "format": FOUNDING_FORMAT,
            "genesis": self.genesis.to_json(),
            "founders": [founder.to_json() for founder in self.founders],
        }
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def loads(cls, raw: bytes) -> Founding:
        """From the file, all of it checked; InvalidGenesis."""
        value = _json(raw)
        try:
            if value["format"] != FOUNDING_FORMAT or not isinstance(value["founders"], list):
                raise InvalidGenesis(f"not a founding file of this version ({FOUNDING_FORMAT})")
            genesis = Genesis.from_json(value["genesis"]).validated()
            founders = tuple(Founder.from_json(each) for each in value["founders"])
        except (KeyError, TypeError, ValueError, MerkledagError) as error:
            raise InvalidGenesis(f"not a founding file: {error}") from None
        require_chain(founders, genesis.chain_id)
        if genesis.validators != tuple(founder.validator for founder in founders):
            raise InvalidGenesis("the genesis has other validators than the founders who signed")
        return cls(genesis, founders)

    def peers_of(self, consensus_key: bytes) -> tuple[str, ...]:
        """The addresses of the founders, but for who has that key."""
        return tuple(
            founder.peer for founder in self.founders if founder.validator.consensus_key != consensus_key
        )

    def require_founder(self, consensus_key: bytes) -> None:
        """InvalidGenesis for who is none of them."""
        if all(founder.validator.consensus_key != consensus_key for founder in self.founders):
            raise InvalidGenesis(
                "this home's validator is not among the founders: hand in its founder's file"
            )


def require_chain(founders: Sequence[Founder], chain_id: str) -> None:
    """InvalidGenesis where somebody signed for another chain, or hands in the same address twice."""
    for founder in founders:
        if founder.chain_id != chain_id:
            raise InvalidGenesis(f"a founder signed for chain {founder.chain_id}, not {chain_id}")
    if len({founder.peer.partition("@")[0] for founder in founders}) < len(founders):
        raise InvalidGenesis("two founders have the same node key: each makes its own")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidGenesis(f"not a JSON file: {error}") from None
