"""Every bound of the ledger that is not a parameter."""

from __future__ import annotations

MAX_UINT = 2**63 - 1
MAX_TIME_S = 1 << 40  # so that no time that follows from it leaves 63 bits

MAX_USUAL_BLOCK_S = 10  # a block that comes so long after it was due is not late, with long windows

MAX_TX_BYTES = 256 << 10
MAX_TX_ITEMS = 1_024  # values and keys: more than a deal of MAX_SHARDS has
MAX_BLOCK_BYTES = 8 << 20
MAX_BLOCK_TXS = 20_000
MAX_CHAIN_ID_CHARS = 64
MAX_ENDPOINT_CHARS = 256
MAX_CID_BYTES = 80
MAX_RECORD_ITEMS = 1_024  # values and keys of one of the state
MAX_KEY_BYTES = 511  # of the state; LMDB takes no more
MAX_PROOF_BYTES = 250 << 10  # what MAX_CHALLENGES leaves, and those of the metadata, can take
MAX_CHALLENGES = 64
MAX_META_CHALLENGES = 4
MAX_SHARDS = 64
MAX_DEAL_PERIODS = 1 << 20
MAX_PIECE_BYTES = 1 << 50
MAX_PIECE_LEAVES = 1 << 42  # so that a full dataset's sum fits into 63 bits
MAX_ROUNDS = 64

MAX_PARAMS = 64
MAX_PARAM_CHARS = 40
MAX_NOTE_CHARS = 256
MAX_RULES = 1_000_000
MAX_OPEN_PROPOSALS = 64  # one an account
MAX_VALIDATORS = 100
MAX_POWER = 1 << 40  # of one; CometBFT counts up to 2⁶⁰ in all
MAX_CONSENSUS_KEYS = 4  # that name one account: the present one, the next, and those rotated away lately
KEY_LEAVES_BLOCKS = 3  # after these no engine names a key as proposer that it was told to drop
MAX_REGISTRATIONS_PER_BLOCK = 16  # of validators: each has two signatures verified

MAX_DATASET_DEPTH = 20
MAX_DATASET_PIECES = 1 << MAX_DATASET_DEPTH

# Work in one block; what does not fit is done in the next ones.
MAX_SHARDS_PER_BLOCK = 256  # of deals that are made, renewed or ended; fewer than offers may run out
MAX_DUE_PER_BLOCK = 512  # of each kind
MAX_TURN_STEP = 64  # pieces that leave or join one dataset before others have their turn
MAX_DRAWS_PER_BLOCK = 256
MAX_SPOTS_PER_BLOCK = 64
MAX_KZG_POINTS_PER_BLOCK = 8_192  # in proofs to be verified: a point for each leaf shown, about 0.17 ms each
MAX_NEW_KZG_POINTS = 512  # that a proposer looks at itself: others are waiting for it
MAX_PROPOSING_NS = 250_000_000  # of running candidates: half of the shortest timeout for a proposal
KZG_POINTS_PER_PROOF = 16  # what two pairings take as long as
KZG_BATCH = 16  # proofs verified together: one that is wrong has the others of its batch verified again
MAX_DRAW_LOOKS_PER_BLOCK = 8_192

# One draw.
MAX_DRAW_TRIES = 32
MAX_DRAW_SEATS = 256

# Pending transactions.
MAX_PENDING_PER_ACCOUNT = 64
MAX_PENDING = 20_000
MAX_PENDING_OTHER_BYTES = MAX_BLOCK_BYTES // 4  # of those that are no proofs: half of a block of CometBFT's
TRY_AFTER_BLOCKS = 8  # that a transaction has waited for; then it may be one that can only fail
MAX_TRIED_PER_BLOCK = 256  # of those, and as many new ones that have failed before
MAX_REMEMBERED_FAILED = 20_000
MAX_REMEMBERED_TXS = 20_000
MAX_REMEMBERED_BYTES = 64 << 20
MAX_AHEAD_TXS = 2_048
MAX_REMEMBERED_PROOFS = 4_096
MAX_PENDING_REGISTRATIONS = 64  # of validators, one an account: a block takes few
MAX_INVALID_PROOFS = 3  # in a row; then the account's proofs wait, for each costs a verification
INVALID_PROOF_WAIT_BLOCKS = 16
MAX_REMEMBERED_ACCOUNTS = 20_000
MAX_REMEMBERED_RECORDS = 50_000

# Answers.
MAX_PAGE = 1_000
MAX_PROVEN_KEYS = 128  # together: a deal with all its shards, and more
MAX_ROWS_PER_PAGE = 4_000

HISTORY_PERIODS = 32
