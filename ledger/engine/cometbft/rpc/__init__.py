"""The JSON-RPC of the `cometbft` process beside this one."""
