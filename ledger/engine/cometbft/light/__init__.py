"""A light client of CometBFT: believes a header because two thirds of the voting power signed it.

`canonical` has the bytes that are hashed and signed, `header`, `votes` and `validators` the parts of a light
block, `block` the whole of it, `verify` the rules by which one is trusted because of another: all pure.
`client` asks servers and follows a chain from a pinned header on; `chain` does so for `LedgerClient`, and
`node_source` is where a server has its headers from. `proof_file` and `evidence_check` are for proofs in
files, which nothing here opens.
"""
