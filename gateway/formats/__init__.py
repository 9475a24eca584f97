"""The gateway's formats: one module each, and what they share: negotiation, types, ranges, validators."""
