"""The shared ledger: accounts, deals, proofs and payments as a pure state machine; engines below it drive it."""
