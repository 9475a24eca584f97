"""The erasure code over the blocks of a DAG: its groups, their parity and the manifest.

Read `code` (one group), `backend_tables` and `backend_zfec` (its arithmetic), `hash_table`, `manifest`
(plans and their encoding), `groups` (whole plans, with memory from `room`).
"""
