"""The ledger on CometBFT, where many validators decide the blocks; imported only where it is used.

`engine` has the interface of the embedded engine and answers ABCI. Its parts: `handshake` and `waiting` (how
it begins), `proposals` and `commit` (blocks), `submissions` (transactions), `state_query` (proofs), `turns`,
and `retention` (what must be kept for nodes that join).

- `abci`: messages, frames and the server; what the ledger's things are called in them.
- `sync`: snapshots, and how a fresh node begins from one.
- `rpc`: asks the `cometbft` process beside it.
- `home`: which program that is, and the files that it reads.
- `light`: verifies headers that validators signed, so that a client need not believe a server.
"""
