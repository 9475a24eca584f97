"""What people do who want to validate, or to be rid of a validator: rightly and wrongly, at random."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

from ledger.forms_validators import RegisterValidator, register_validator
from ledger.limits import MAX_POWER
from proofs.bls.signatures import BlsSigner
from tests.ledger.world import CHAIN, World, key, seed, signer

POOL = 12  # keys that all of them draw from, so that they clash


@cache
def bls(number: int) -> BlsSigner:
    return BlsSigner.from_seed(seed(f"bls {number}"))


def registration(rng: random.Random, world: World, name: str) -> RegisterValidator:
    """Keys of the pool for an account; or those it has, one of the two, or with something wrong."""
    info = world.app.validator(key(name))
    consensus, beacons = signer(f"consensus {rng.randrange(POOL)}"), bls(rng.randrange(POOL))
    if info is not None and rng.random() < 0.5:
        known = {signer(f"consensus {each}").public_key: signer(f"consensus {each}") for each in range(POOL)}
        consensus = known.get(info.record.next_consensus_key or info.record.consensus_key, consensus)
    if info is not None and rng.random() < 0.4:
        known_bls = {bls(each).public_key: bls(each) for each in range(POOL)}
        beacons = known_bls.get(rng.choice([info.record.next_bls_key, info.record.bls_key]), beacons)
    world.beacon_signers[beacons.public_key] = beacons
    body = register_validator(CHAIN, key(name), consensus, beacons)
    match rng.randrange(12):
        case 0:
            return register_validator(CHAIN, key("somebody"), consensus, beacons)
        case 1:
            return replace(body, bls_possession=bls(0).sign(b"another message"))
        case 2:
            return replace(body, consensus_key=bytes(32))
    return body


def powers(rng: random.Random, world: World, people: tuple[str, ...]) -> dict[bytes, int]:
    """A change of who validates: mostly of those who registered, most to stay, some to go."""
    registered = [info.account for info in world.app.validators_page().items]
    some = rng.sample(registered, min(len(registered), rng.randint(1, 4)))
    if rng.random() < 0.1:
        some.append(key(rng.choice(people)))
    return {account: rng.choice([0, 1, 5, 10, 10, 100, MAX_POWER]) for account in some}


def accused(rng: random.Random, world: World, people: tuple[str, ...]) -> tuple[bytes, ...]:
    """Those that there is evidence against: now and then somebody, also twice, or who never validated."""
    if rng.random() > 0.06:
        return ()
    seated = [info.account for info in world.app.validators()]
    one = rng.choice([*seated, *[key(name) for name in people], bytes(32)])
    return (one,) * rng.choice([1, 1, 2])
