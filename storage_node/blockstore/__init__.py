"""The local blockstore: `interface.py` says what it promises, `store.py` keeps it in LMDB."""
