"""Which leaves a dataset's node must show in a period: the seed, the draw and the challenge made of both.

Seed and draw are plain SHA-256, specified in docs/proofs.md, "Challenge", so that anyone can repeat the draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from proofs import tags
from proofs.commitment import HASH_BYTES, MAX_MULTIHASH_BYTES, MAX_SUM, SumNode
from proofs.kinds import ProofKind
from proofs.slot_tree import MAX_DEPTH

DEFAULT_CHALLENGES = 30
DEFAULT_META_CHALLENGES = 4
MAX_DRAWN = 512  # leaves in one draw
MAX_CHAIN_ID_BYTES = 255
MAX_DEAL_BYTES = 255
MAX_PIECE_DEPTH = 32
_WORDS = range(0, HASH_BYTES, 8)


def period_seed(chain_id: str, dataset_id: bytes, node: bytes, period: int, beacon: bytes) -> bytes:
    """The seed of one dataset's period, 32 bytes.

    `dataset_id`, `node` (the node's public key) and `beacon` have 32 bytes each. Raises ValueError otherwise.
    """
    chain = chain_id.encode()
    if not 0 < len(chain) <= MAX_CHAIN_ID_BYTES:
        raise ValueError(f"a chain ID of {len(chain)} bytes; 1 to {MAX_CHAIN_ID_BYTES} are allowed")
    if not len(dataset_id) == len(node) == len(beacon) == HASH_BYTES:
        raise ValueError("dataset ID, node key and beacon value have 32 bytes each")
    if not 0 <= period <= MAX_SUM:
        raise ValueError(f"period {period}")
    length = len(chain).to_bytes(1, "big")
    return hashlib.sha256(
        tags.PERIOD_SEED + length + chain + dataset_id + node + period.to_bytes(8, "big") + beacon
    ).digest()


def spot_seed(chain_id: str, deal: bytes, shard: int, node: bytes, height: int, beacon: bytes) -> bytes:
    """The seed of a challenge to one shard between its windows, 32 bytes.

    `deal` is the bytes of the deal's CID, at most 255; `height` that of the block that opened the challenge;
    `node` (the node's public key) and `beacon` (of a later block) have 32 bytes each. Raises ValueError
    otherwise.
    """
    chain = chain_id.encode()
    if not 0 < len(chain) <= MAX_CHAIN_ID_BYTES:
        raise ValueError(f"a chain ID of {len(chain)} bytes; 1 to {MAX_CHAIN_ID_BYTES} are allowed")
    if not 0 < len(deal) <= MAX_DEAL_BYTES:
        raise ValueError(f"a deal's ID of {len(deal)} bytes; 1 to {MAX_DEAL_BYTES} are allowed")
    if not len(node) == len(beacon) == HASH_BYTES:
        raise ValueError("node key and beacon value have 32 bytes each")
    if not 0 <= shard < 1 << 16 or not 0 <= height <= MAX_SUM:
        raise ValueError(f"shard {shard}, height {height}")
    what = _counted(chain) + _counted(deal) + shard.to_bytes(2, "big") + node
    return hashlib.sha256(tags.SPOT_SEED + what + height.to_bytes(8, "big") + beacon).digest()


def _counted(text: bytes) -> bytes:
    return len(text).to_bytes(1, "big") + text


def meta_seed(seed: bytes) -> bytes:
    """The seed of the draw from the metadata tree, from the period's seed."""
    return hashlib.sha256(tags.META_SEED + seed).digest()


def sample(seed: bytes, total: int, k: int) -> tuple[int, ...]:
    """`k` distinct numbers below `total` in ascending order, each set of k as likely as any other.

    All of them if `total` ≤ `k`. Candidates are the big-endian 64-bit words of SHA-256(tag ‖ seed ‖ u64be i),
    i = 0, 1, …, each modulo `total`; a word at or above the largest multiple of `total` is passed over (so
    nothing is favoured), and so is a number already drawn. Raises ValueError for a seed not of 32 bytes, a
    `k` outside 0…512 or a `total` outside 0…2⁶³ − 1.
    """
    if len(seed) != HASH_BYTES or not 0 <= k <= MAX_DRAWN or not 0 <= total <= MAX_SUM:
        raise ValueError(f"cannot draw {k} of {total} from a seed of {len(seed)} bytes")
    if total <= k:
        return tuple(range(total))
    limit = 2**64 // total * total
    drawn: set[int] = set()
    counter = 0
    while len(drawn) < k:
        stream = hashlib.sha256(tags.SAMPLE + seed + counter.to_bytes(8, "big")).digest()
        counter += 1
        for offset in _WORDS:
            word = int.from_bytes(stream[offset : offset + 8], "big")
            if word < limit:
                drawn.add(word % total)
                if len(drawn) == k:
                    break
    return tuple(sorted(drawn))


def detection(total: int, lost: int, k: int) -> float:
    """The probability, 0 to 1, that `k` leaves drawn of `total` meet one of `lost`: 1 − C(n−d,k) / C(n,k)."""
    if not 0 <= lost <= total:
        raise ValueError(f"{lost} of {total} leaves lost")
    missed = 1.0
    for drawn in range(min(k, total)):
        missed *= max(0, total - lost - drawn) / (total - drawn)
    return 1.0 - missed


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a node must show: `k` leaves of its data tree and `meta_k` of its metadata tree (all, if fewer).

    `data` and `meta` are the roots of the dataset's two slot trees as they stood when the period began, from
    the ledger; `seed` is `period_seed`. Raises ValueError for values that no ledger
    has.
    """

    seed: bytes
    data: SumNode
    data_depth: int
    meta: SumNode
    meta_depth: int
    k: int = DEFAULT_CHALLENGES
    meta_k: int = DEFAULT_META_CHALLENGES
    kind: ProofKind = ProofKind.MERKLE

    def __post_init__(self) -> None:
        for depth in (self.data_depth, self.meta_depth):
            if not 0 <= depth <= MAX_DEPTH:
                raise ValueError(f"a tree of depth {depth}; at most {MAX_DEPTH}")
        for root in (self.data, self.meta):
            if len(root.hash) != HASH_BYTES or not 0 <= root.sum <= MAX_SUM:
                raise ValueError(f"not the root of a tree: {root}")
        for count in (self.k, self.meta_k):
            if not 0 <= count <= MAX_DRAWN:
                raise ValueError(f"{count} leaves in one draw; at most {MAX_DRAWN}")
        if len(self.seed) != HASH_BYTES:
            raise ValueError(f"a seed of {len(self.seed)} bytes; {HASH_BYTES} are needed")

    def data_leaves(self) -> tuple[int, ...]:
        """The drawn leaves of the data tree, ascending."""
        return sample(self.seed, self.data.sum, self.k)

    def meta_leaves(self) -> tuple[int, ...]:
        """The drawn leaves of the metadata tree, ascending."""
        return sample(meta_seed(self.seed), self.meta.sum, self.meta_k)

    def max_proof_bytes(self) -> int:
        """No proof of this challenge is longer."""
        data = min(self.k, self.data.sum) * self._max_bytes_per_leaf(self.data_depth)
        meta = min(self.meta_k, self.meta.sum) * self._max_bytes_per_leaf(self.meta_depth)
        return self.kind.rules.envelope_bytes + data + meta

    def _max_bytes_per_leaf(self, depth: int) -> int:
        """Itself, the hashes in its block, its row and that row's mark, a sum and a hash a level above."""
        rules = self.kind.rules
        inside = rules.max_shown_bytes + (rules.max_units - 1).bit_length() * HASH_BYTES
        row = 1 + MAX_MULTIHASH_BYTES + 4 + 8
        return inside + row + (depth + MAX_PIECE_DEPTH) * (HASH_BYTES + 8)
