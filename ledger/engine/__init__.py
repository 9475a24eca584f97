"""Engines that drive the ledger's pure application, and the clients that talk to them over HTTP."""
