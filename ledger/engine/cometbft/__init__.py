"""The ledger on CometBFT, where many validators decide the blocks; imported only where it is used.

`engine` has the interface of the embedded engine and answers ABCI, which `server`, `framing` and `messages`
speak. Its parts: `handshake` and `waiting` (how it begins), `proposals` and `commit` (blocks), `submissions`
(transactions), `state_query` (proofs), `state_sync`, `restore`, `snapshots` and `retention` (nodes that
join). `convert` and `chain_params` put the ledger's things in CometBFT's words.

`rpc_client`, `rpc_answers` and `rpc_errors` ask the `cometbft` process beside it. `release` says which one
that is; `home`, `config`, `keys`, `signing`, `genesis_file` and `founders` make and read its files.

`light` verifies headers that validators signed, so that a client need not believe a server.
"""
