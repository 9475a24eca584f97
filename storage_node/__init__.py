"""A storage node: blocks in LMDB, pins, exchange with clients, proving duties and repair."""
