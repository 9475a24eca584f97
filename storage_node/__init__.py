"""One node's storage: blocks, pins, garbage collection, exchange with other nodes, paid duties.

Read `blockstore/interface.py` first (what a store promises), then `source.py` (how readers see it)
and `gc.py` (what may be freed, and why that is safe).
"""
