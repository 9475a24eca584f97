"""The folder of a `cometbft` process: its configuration, keys, genesis and release."""
