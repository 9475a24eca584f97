"""The shared ledger: accounts, deals, proofs and settlement as a pure state machine.

Read in this order: `transactions` (what people send), `records` (what is kept), `application` (how a block is
run), then the rules: `rules_transfers`, `rules_providers`, `rules_deals`, `rules_draw`, `rules_datasets`,
`rules_proofs`, `rules_settlement`, `rules_faults`. Nothing here but `engine/` touches a socket, file or
clock.
"""
