"""Speeds of KZG commitments, openings and their verification; and the setup file, derived anew.

Run from the repository's root: `python -m bench.kzg [--rounds N]`. Prints one JSON document on stdout and a
table on stderr. The machine's own limits (what the libraries take for the bare curve arithmetic) are measured
in the same run, in turns with what they are compared to; every figure is a median in ms.

`python -m bench.kzg --derive trusted_setup.txt` checks every point of the ceremony's text (c-kzg-4844,
`src/trusted_setup.txt`) and says whether proofs/kzg/setup.bin is what it makes, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import ckzg
from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from bench.proofs import timed
from proofs.bls.points import R
from proofs.kzg import polynomial
from proofs.kzg import setup as setup_module
from proofs.kzg.backend import Backend, Opening, backend
from proofs.kzg.backend_ckzg import CkzgBackend
from proofs.kzg.blobs import BLOB_BYTES, eip4844_blob, field_elements
from proofs.kzg.field import ELEMENTS
from proofs.kzg.setup import G2_POINTS, SETUP_SHA256, TAU_G2, Setup, ceremony_text

SETUP_FILE = Path(setup_module.__file__).with_name("setup.bin")
DRAWN = 34  # blobs of a proof: K = 30 of the data and 4 of the metadata
BATCH = 50
POOL_BLOBS = 40
Works = dict[str, Callable[[], object]]


def derive(text: Path) -> bytes:
    """setup.bin of the ceremony's text; ValueError for a point off the curve or off its subgroup."""
    words = text.read_text().split()
    if words[:2] != [str(ELEMENTS), str(G2_POINTS)] or len(words) != 2 + 2 * ELEMENTS + G2_POINTS:
        raise ValueError(f"{text} is not the ceremony's text of {ELEMENTS} and {G2_POINTS} points")
    points = [bytes.fromhex(word) for word in words[2:]]
    lagrange, powers_g2 = points[:ELEMENTS], points[ELEMENTS : ELEMENTS + G2_POINTS]
    powers_g1 = points[ELEMENTS + G2_POINTS :]
    for point in powers_g1:
        G1Point.from_compressed_bytes(point)
    for point in powers_g2:
        G2Point.from_compressed_bytes(point)
    uncompressed = (bytes(G1Point.from_compressed_bytes(point).to_xy_bytes_be()) for point in lagrange)
    return b"".join([*uncompressed, *powers_g2, *powers_g1])


@cache
def load() -> Setup:
    return Setup(SETUP_FILE.read_bytes())


@cache
def load_ckzg() -> CkzgBackend:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(ceremony_text(load()))
        file.flush()
        return CkzgBackend(file.name)


def commit_in_process(using: str, blob: bytes) -> bytes:
    """What a worker does with one blob."""
    each: Backend = load_ckzg() if using == "ckzg" else backend(using)
    return each.commit(load(), blob)


def pool_speed(using: str, processes: int) -> float:
    """MB/s of commitments in so many worker processes that have loaded everything."""
    blobs = [os.urandom(BLOB_BYTES) for _ in range(POOL_BLOBS)]
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(commit_in_process, [using] * processes * 4, [b""] * processes * 4))
        start = time.perf_counter()
        list(pool.map(commit_in_process, [using] * len(blobs), blobs))
        return len(blobs) * BLOB_BYTES / 1e6 / (time.perf_counter() - start)


def drawn_opening(setup: Setup, blobs: list[bytes]) -> Opening:
    """An opening of all the blobs with scalars of 128 bits, as a proof has it."""
    using = backend()
    scalars = [int.from_bytes(os.urandom(16), "big") for _ in blobs]
    z = int.from_bytes(os.urandom(32), "big") % R
    y, proof = using.open(setup, polynomial.combine(blobs, scalars), z)
    return Opening([using.commit(setup, blob) for blob in blobs], scalars, z, y, proof)


def bare_verification(claim: Opening) -> bool:
    """The curve arithmetic of one verification and nothing else: a limit."""
    points = [G1Point.from_compressed_bytes(point) for point in [*claim.commitments, claim.proof]]
    scalars = [Scalar(number) for number in [*claim.scalars, claim.z, R - claim.y]]
    total = G1Point.multiexp_unchecked([*points, G1Point()], scalars)
    return bool(GT.pairing_check([total, -points[-1]], [G2Point(), G2Point.from_compressed_bytes(TAU_G2)]))


def works(setup: Setup, fast: CkzgBackend) -> Works:
    """Everything that is timed, by name."""
    using = backend()
    blobs = [os.urandom(BLOB_BYTES) for _ in range(DRAWN)]
    blob, small = blobs[0], blobs[0][:1024]
    values, scalars = field_elements(blob), [int.from_bytes(os.urandom(16), "big") for _ in blobs]
    claim = drawn_opening(setup, blobs)
    wide = claim._replace(scalars=[scalar * 2**126 % R for scalar in claim.scalars])
    bare_points = [G1Point.from_xy_bytes_unchecked_be(point) for point in setup.lagrange()]
    bare_scalars = [Scalar(value) for value in values]
    bare_blob = eip4844_blob(blob)
    z = claim.z
    assert using.verify(*claim)
    assert using.verify_many([claim] * BATCH)
    assert bare_verification(claim)
    return {
        "limit: arkworks, sum of 4,096 points": lambda: G1Point.multiexp_unchecked(bare_points, bare_scalars),
        "limit: ckzg, commitment to a blob": lambda: ckzg.blob_to_kzg_commitment(bare_blob, fast._settings),
        "limit: arkworks, verification of one opening": lambda: bare_verification(claim),
        "commit, arkworks": lambda: using.commit(setup, blob),
        "commit, ckzg": lambda: fast.commit(setup, blob),
        "commit to 1 KiB, arkworks": lambda: using.commit(setup, small),
        "commit to 1 KiB, ckzg": lambda: fast.commit(setup, small),
        f"combine {DRAWN} blobs": lambda: polynomial.combine(blobs, scalars),
        "divide": lambda: polynomial.divide(values, z),
        "open, arkworks": lambda: using.open(setup, values, z),
        "open, ckzg": lambda: fast.open(setup, values, z),
        f"verify, {DRAWN} commitments, arkworks": lambda: using.verify(*claim),
        f"verify, {DRAWN} commitments, ckzg": lambda: fast.verify(*claim),
        f"refuse, {DRAWN} commitments, scalars of 255 bits": lambda: using.verify(*wide),
        f"verify {BATCH} openings together": lambda: using.verify_many([claim] * BATCH),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--derive", type=Path, metavar="TEXT")
    arguments = parser.parse_args()
    if arguments.derive:
        same = (
            hashlib.sha256(derive(arguments.derive)).digest()
            == SETUP_SHA256
            == hashlib.sha256(SETUP_FILE.read_bytes()).digest()
        )
        print("setup.bin is the ceremony's" if same else "setup.bin is NOT what this text makes")
        sys.exit(not same)

    start = time.perf_counter()
    setup = load()
    backend().commit(setup, b"")
    figures = {"load the setup, arkworks": (time.perf_counter() - start) * 1000}
    start = time.perf_counter()
    fast = load_ckzg()
    figures["load the setup, ckzg"] = (time.perf_counter() - start) * 1000
    measured = works(setup, fast)
    for name, seconds in zip(measured, timed(arguments.rounds, *measured.values()), strict=True):
        figures[name] = seconds * 1000
    figures[f"verify an opening among {BATCH}"] = figures[f"verify {BATCH} openings together"] / BATCH
    for using in ("arkworks", "ckzg"):
        for processes in (1, 2):
            figures[f"commit, {using}, {processes} processes, MB/s"] = pool_speed(using, processes)
    for name, figure in figures.items():
        print(f"{name:52} {figure:10.2f}", file=sys.stderr)
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
