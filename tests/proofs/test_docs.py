"""The numbers of docs/proofs.md, held against the code: parameters, limits and detection."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.engine import proof_file
from merkledag.block import MAX_BLOCK_BYTES
from proofs import audit, challenge, commitment, slot_tree
from proofs.challenge import Challenge, detection
from proofs.commitment import EMPTY, MAX_SUM, SumNode
from proofs.erasure import code as erasure
from proofs.erasure import manifest
from proofs.kinds import ProofKind
from proofs.kzg.blobs import BLOB_BYTES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "proofs.md").read_text()
FULL = SumNode(EMPTY.hash, MAX_SUM)


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of the table whose first row is `heading`, by its first column."""
    table = PAGE.partition(f"{heading}\n")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]
    return {first: rest for first, *rest in cells}


def size(number: int) -> str:
    mib, rest = divmod(number, 1 << 20)
    return f"{mib} MiB" if rest == 0 else f"{number >> 10} KiB"


def most_bytes(kind: ProofKind, k: int, depth: int) -> int:
    return Challenge(bytes(32), FULL, depth, EMPTY, 0, k=k, meta_k=0, kind=kind).max_proof_bytes()


def proof_limit(kind: ProofKind) -> str:
    """In words; the formula is the code's wherever it is looked at."""
    around, pieces = most_bytes(kind, 0, 0), challenge.MAX_PIECE_DEPTH
    level = most_bytes(kind, 1, 1) - most_bytes(kind, 1, 0)
    leaf = most_bytes(kind, 1, 0) - around - level * pieces
    for k, depth in ((1, 20), (30, 7), (512, 20)):
        assert most_bytes(kind, k, depth) == around + k * (leaf + level * (depth + pieces))
    each = f"{leaf:,} + {level} · (d + {pieces}) for each drawn leaf of a tree of depth d"
    return f"at most {around} bytes, and {each}"


def parameters() -> dict[str, str]:
    kzg = ProofKind.KZG.rules
    deepest = slot_tree.MAX_DEPTH, challenge.MAX_PIECE_DEPTH
    assert manifest.MAX_ROWS == 2**24
    return {
        "leaf, subtree": f"{size(commitment.LEAF_BYTES)}, {size(commitment.SUBTREE_BYTES)}",
        "blob, its commitment": f"{BLOB_BYTES:,} bytes, {kzg.commitment_bytes}",
        "K, metadata leaves": (
            f"{challenge.DEFAULT_CHALLENGES} (at most {challenge.MAX_DRAWN}), "
            f"{challenge.DEFAULT_META_CHALLENGES}"
        ),
        "depth of a dataset's tree, of a piece's": "at most {}, at most {}".format(*deepest),
        "block, leaves of a block, blobs of a block": (
            f"at most {size(MAX_BLOCK_BYTES)}, {commitment.MAX_BLOCK_LEAVES:,}, {kzg.max_units}"
        ),
        "multihash, chain ID": (
            f"at most {commitment.MAX_MULTIHASH_BYTES} bytes, at most {challenge.MAX_CHAIN_ID_BYTES}"
        ),
        "merkle proof": proof_limit(ProofKind.MERKLE),
        "kzg proof": proof_limit(ProofKind.KZG),
        "file with a proof: of a ledger, between two people": (
            f"at most {size(proof_file.MAX_FILE_BYTES)}, {size(audit.MAX_FILE_BYTES - (1 << 10))} and 1 KiB"
        ),
        "manifest: rows a part, rows a list, block": (
            f"{manifest.PART_ROWS:,}; at most 2²⁴; at most {size(manifest.MAX_MANIFEST_BLOCK_BYTES)}"
        ),
        "code": f"1 ≤ k ≤ m ≤ {erasure.MAX_SHARES}",
    }


def test_the_table_of_parameters_is_the_codes() -> None:
    assert rows("| name | value |") == {name: [value] for name, value in parameters().items()}


@pytest.mark.parametrize("kind", ProofKind)
def test_the_parts_of_a_proofs_limit_are_the_codes(kind: ProofKind) -> None:
    """'Before parsing, the verifier refuses more bytes than …', which the table has added up."""
    rules = kind.rules
    inside = (rules.max_units - 1).bit_length() * commitment.HASH_BYTES
    row = 1 + commitment.MAX_MULTIHASH_BYTES + 4 + 8
    said = re.findall(
        r"refuses more bytes than (\d+) and, for each drawn leaf of a tree of depth\s+d, ([\d,]+)\s\+ (\d+) "
        r"for the \w+ and the hashes in its block, (\d+) for its row, and (\d+) for each of d \+ (\d+) "
        r"levels",
        PAGE.replace("\n", " "),
    )
    parts = (rules.envelope_bytes, rules.max_shown_bytes, inside, row, 40, challenge.MAX_PIECE_DEPTH)
    assert len(said) == len(ProofKind)
    assert tuple(int(number.replace(",", "")) for number in said[list(ProofKind).index(kind)]) == parts


def test_the_table_of_detection_is_the_formulas() -> None:
    total = 10**12
    lost = [total * per_mille // 1000 for per_mille in (1, 10, 50, 100, 500)]
    table = rows("| K | 0.1 % lost | 1 % | 5 % | 10 % | 50 % | 1 %, over 30 periods |")
    assert [name.split()[0] for name in table] == ["5", "30", "100", "460"]
    for name, said in table.items():
        k = int(name.split()[0])
        once = [detection(total, each, k) for each in lost]
        for cell, chance in zip(said, [*once, 1 - (1 - once[1]) ** 30], strict=True):
            if cell == "> 99.9 %":
                assert chance > 0.999
            else:
                decimals = len(cell.removesuffix(" %").partition(".")[2])
                assert cell == f"{100 * chance:.{decimals}f} %", (k, chance)
