"""Every hash tag of this package: no two purposes share a first byte string.

The trees of a commitment use one byte each, the rest a name that ends in a zero byte. Names begin with
`h` (0x68), so neither is ever a prefix of the other. A format changes only with a new tag and new vectors.
"""

from __future__ import annotations

LEAF = b"\x00"  # 1 KiB of a block
INNER = b"\x01"  # two nodes inside a block's tree
PROOF_ROOT = b"\x02"  # a block's length and the top of its tree
PIECE_LEAF = b"\x03"  # one row of a piece: a block's multihash, leaf count and proof root
SUM_NODE = b"\x04"  # two nodes of a piece's tree or a dataset's tree
KZG_LEAF = b"\x05"  # the commitment to one blob of a block
KZG_ROOT = b"\x06"  # a block's length and the top of its tree of commitments
KZG_PIECE_LEAF = b"\x07"  # one row of a piece in a kzg dataset

PERIOD_SEED = b"holdfast/period-seed/1\x00"
SPOT_SEED = b"holdfast/spot-seed/1\x00"
META_SEED = b"holdfast/meta-seed/1\x00"
SAMPLE = b"holdfast/sample/1\x00"
KZG_POINT = b"holdfast/kzg-point/1\x00"
KZG_COEFFICIENTS = b"holdfast/kzg-coefficients/1\x00"
BATCH_WEIGHTS = b"holdfast/kzg-batch-weights/1\x00"
BEACON_MESSAGE = b"holdfast/beacon-message/1\x00"
BEACON_VALUE = b"holdfast/beacon-value/1\x00"
BLS_BATCH = b"holdfast/bls-batch/1\x00"
BLS_WEIGHT = b"holdfast/bls-weight/1\x00"
AUDIT_COMMITMENT = b"holdfast/audit-commitment/1\x00"
