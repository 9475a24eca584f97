"""The ledger on CometBFT: ABCI 2.0 over a socket, light client, state sync; imported only where it is used.

`messages`, `framing` and `server` speak ABCI; `engine` is the application side of it, with the same interface
as the embedded engine; `rpc_client` asks the `cometbft` process next to it; `light` verifies headers.
"""
