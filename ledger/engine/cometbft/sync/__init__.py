"""State sync: snapshots of the ledger, and how a fresh node begins from one."""
