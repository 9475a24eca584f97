"""Validators, the plain form: every block looks at all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from ledger import limits
from ledger.result import Code
from ledger.transactions import RegisterValidator, Resign
from merkledag import ed25519
from merkledag.cid import CID
from proofs.bls import signatures as bls
from tests.ledger.naive.state import Map, Plain

BLS, CONSENSUS, RESIGNED = 6, 7, 9
BLS_KEYS = ("bls_key", "next_bls_key", "last_bls_key")
HOLD = 10**9

Does = Callable[[], None]


def address(consensus_key: bytes) -> bytes:
    return hashlib.sha256(consensus_key).digest()[:20]


def signed(chain: str, account: bytes, key: bytes) -> bytes:
    return b"holdfast/validator-key/1\0" + bytes([len(chain)]) + chain.encode() + account + key


def register_validator(s: Plain, sender: bytes, body: RegisterValidator, _: CID) -> Iterator[Code | Does]:
    s.registrations += 1
    known = s.validators.get(sender)
    last = (known["next_consensus_key"] or known["consensus_key"]) if known else b""
    last_bls = (known["next_bls_key"] or known["bls_key"]) if known else b""
    chain = s.genesis.chain_id
    if s.registrations > limits.MAX_REGISTRATIONS_PER_BLOCK:
        yield Code.BLOCK_FULL
    if not ed25519.is_usable_key(body.consensus_key):
        yield Code.INVALID_TERMS
    if body.consensus_key != last and address(body.consensus_key) in s.consensus:
        yield Code.KEY_TAKEN
    mine = [known["bls_key"], known["next_bls_key"]] if known else []
    used = {each[name] for each in s.validators.values() for name in BLS_KEYS}
    if body.bls_key in used and body.bls_key not in mine:
        yield Code.KEY_TAKEN
    message, message_bls = (signed(chain, sender, each) for each in (body.consensus_key, body.bls_key))
    is_held = ed25519.verify(body.consensus_key, body.consensus_possession, message)
    if not is_held or not bls.verify(body.bls_key, message_bls, body.bls_possession):
        yield Code.INVALID_POSSESSION
    rotates = body.consensus_key != last
    is_full = names(s, sender) == limits.MAX_CONSENSUS_KEYS
    if known and rotates and not known["next_consensus_key"] and is_full:
        yield Code.TOO_MANY_KEYS
    if known and known["resigned"]:
        yield Code.RESIGNED
    if not rotates and body.bls_key == last_bls:
        yield Code.NOTHING_TO_DO
    deposit = 0 if known else s.params.deposit
    if deposit > s.balance(sender):
        yield Code.INSUFFICIENT_FUNDS

    def do() -> None:
        if known is None:
            s.give(sender, -deposit)
            add_validator(s, sender, body.consensus_key, deposit=deposit)
        elif rotates:
            rotate(s, sender, known, body.consensus_key)
        record = s.validators[sender]
        if body.bls_key != last_bls:
            rotate_bls(s, sender, record, body.bls_key)
        record["keys"] = names(s, sender)
        s.emit(
            "validator_registered",
            validator=sender,
            consensus_key=body.consensus_key,
            bls_key=body.bls_key,
            counts_from=record["next_from"] or s.time,
        )

    yield do


def add_validator(s: Plain, account: bytes, consensus_key: bytes, **fields: object) -> None:
    blank: Map = {
        "consensus_key": consensus_key,
        **dict.fromkeys(("next_consensus_key", "bls_key", "last_bls_key", "next_bls_key"), b""),
        **dict.fromkeys(("next_from", "granted", "power", "left_at", "deposit"), 0),
        "keys": 1,
        "jailed": False,
        "resigned": False,
    }
    s.validators[account] = {**blank, **fields}
    s.consensus[address(consensus_key)] = bound(account, consensus_key)


def bound(account: bytes, consensus_key: bytes) -> Map:
    return {"account": account, "consensus_key": consensus_key, "left": 0, "forget_at": 0}


def names(s: Plain, account: bytes) -> int:
    return sum(each["account"] == account for each in s.consensus.values())


def rotate(s: Plain, account: bytes, record: Map, key: bytes) -> None:
    if record["next_consensus_key"]:
        del s.consensus[address(record["next_consensus_key"])]
    s.consensus[address(key)] = bound(account, key)
    record["next_consensus_key"] = key
    if record["power"] == 0:
        take_next(s, record)


def take_next(s: Plain, record: Map) -> None:
    old = address(record["consensus_key"])
    if record["power"] or record["left_at"]:
        at = s.time + s.params.unbonding_s
        s.consensus[old].update(left=s.height, forget_at=at)
        s.alarms.add((at, CONSENSUS, old))
    else:
        del s.consensus[old]
    record["consensus_key"], record["next_consensus_key"] = record["next_consensus_key"], b""


def forget_key(s: Plain, address: bytes) -> None:
    if s.height < s.consensus[address]["left"] + 3:
        s.alarms.add((s.time + 1, CONSENSUS, address))
        return
    account = s.consensus.pop(address)["account"]
    record = s.validators[account]
    record["keys"] = names(s, account)
    if record["keys"] == 0:
        s.alarms.discard((record["next_from"], BLS, account))
        del s.validators[account]
        s.give(account, record["deposit"])
        s.emit("validator_forgotten", validator=account, deposit=record["deposit"])


def resign(s: Plain, sender: bytes, _: Resign, __: CID) -> Iterator[Code | Does]:
    record = s.validators.get(sender)
    if record is None or record["resigned"]:
        yield Code.NOTHING_TO_DO
        return
    others = [each for account, each in s.validators.items() if account != sender]
    is_last = record["granted"] and not any(each["granted"] and each["bls_key"] for each in others)
    if is_last or (sender == s.genesis.operator and not s.genesis.validators):
        yield Code.LAST_VALIDATOR

    def do() -> None:
        record.update(granted=0, resigned=True)
        if record["power"] == 0:
            is_free_at(s, sender, record)
        s.emit("validator_resigned", validator=sender)

    yield do


def is_free_at(s: Plain, account: bytes, record: Map) -> None:
    """When nothing can be held against who resigned and has no power."""
    until = record["left_at"] + s.params.unbonding_s if record["left_at"] else 0
    s.alarms.add((max(s.time, until), RESIGNED, account))


def free(s: Plain, account: bytes) -> None:
    record = s.validators[account]
    if record["left_at"] and s.time < record["left_at"] + s.params.unbonding_s:
        is_free_at(s, account, record)
        return
    s.consensus.pop(address(record["next_consensus_key"]), None)
    record.update(next_consensus_key=b"", keys=names(s, account))
    key = s.consensus[address(record["consensus_key"])]
    key.update(left=s.height if record["left_at"] else key["left"], forget_at=s.time)
    s.alarms.add((s.time, CONSENSUS, address(record["consensus_key"])))


def rotate_bls(s: Plain, account: bytes, record: Map, key: bytes) -> None:
    s.alarms.discard((record["next_from"], BLS, account))
    if key == record["bls_key"]:
        record.update(next_bls_key=b"", next_from=0)
        return
    record.update(next_bls_key=key, next_from=s.time + 2 * s.params.period_s)
    s.alarms.add((record["next_from"], BLS, account))


def bls_counts(s: Plain, account: bytes) -> None:
    record = s.validators[account]
    record.update(last_bls_key=record["bls_key"], bls_key=record["next_bls_key"])
    record.update(next_bls_key=b"", next_from=0)
    s.emit("beacon_key_counts", validator=account, bls_key=record["bls_key"])


def may_grant(s: Plain, powers: dict[bytes, int]) -> bool:
    after = {account: record["granted"] for account, record in s.validators.items()} | powers
    count = sum(power > 0 for power in after.values())
    if not powers.keys() <= s.validators.keys():
        return False
    if any(power and s.validators[each]["resigned"] for each, power in powers.items()):
        return False
    return not powers or 1 <= count <= limits.MAX_VALIDATORS


def still(s: Plain, powers: dict[bytes, int]) -> dict[bytes, int]:
    stay = {account for account, record in s.validators.items() if not record["resigned"]}
    return {account: power for account, power in powers.items() if account in stay}


def grant(s: Plain, powers: dict[bytes, int]) -> None:
    for account in sorted(powers):
        record = s.validators[account]
        record["granted"] = powers[account]
        record["jailed"] = record["jailed"] and powers[account] == 0
        s.emit("validator_granted", validator=account, power=powers[account])


def punish(s: Plain, account: bytes) -> None:
    record = s.validators.get(account)
    if record is None or record["jailed"]:
        return
    is_gone = not record["left_at"] or s.time >= record["left_at"] + s.params.unbonding_s
    if not record["granted"] and not record["power"] and is_gone:
        return
    record.update(jailed=True, granted=0)
    stake = s.providers.get(account, {"stake": 0})["stake"]
    lost = stake * s.params.misbehaviour_percent // 100
    if lost:
        s.stake(account, -lost)
        s.burned += lost
    s.emit("validator_jailed", validator=account, forfeited=lost)


def targets(s: Plain) -> dict[bytes, int]:
    """What each should have; what it has, if nobody should have any."""
    able = {each: r["granted"] for each, r in s.validators.items() if r["granted"] and r["bls_key"]}
    found = dict.fromkeys(s.validators, 0)
    for each, granted in able.items():
        others = sum(able.values()) - granted
        by_stake = s.providers.get(each, {"stake": 0})["stake"] // HOLD
        found[each] = min(max(granted, min(by_stake, others // 2)), 1 << 40)
    return found if any(found.values()) else {each: r["power"] for each, r in s.validators.items()}


def settle(s: Plain) -> dict[bytes, int]:
    """Keys, then what is taken, then what is given; returns what the engine is told, by key."""
    told = {r["consensus_key"]: r["power"] for r in s.validators.values() if r["power"]}
    total = sum(told.values())
    wanted = targets(s)
    left = third = max(1, total // 3)
    for account in sorted(s.validators):
        record = s.validators[account]
        if record["next_consensus_key"] and (left == third or record["power"] <= left):
            left = max(0, left - record["power"])
            take_next(s, record)
            s.emit("consensus_key_changed", validator=account, consensus_key=record["consensus_key"])
    for sign in (-1, 1):
        for account in sorted(s.validators):
            record = s.validators[account]
            most = total - 1 if sign < 0 else left
            moved = max(0, min(sign * (wanted[account] - record["power"]), left, most))
            record["power"] += sign * moved
            total += sign * moved
            left -= moved
            if moved:
                if record["power"] == 0:
                    record["left_at"] = s.time
                    if record["resigned"]:
                        is_free_at(s, account, record)
                    if account in s.providers:
                        until = s.time + s.params.unbonding_s
                        s.providers[account]["bound_until"] = max(s.providers[account]["bound_until"], until)
                s.emit("validator_power", validator=account, power=record["power"])
    now = {r["consensus_key"]: r["power"] for r in s.validators.values() if r["power"]}
    return {key: now.get(key, 0) for key in told | now if told.get(key, 0) != now.get(key, 0)}
