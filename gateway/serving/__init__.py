"""Connections, and bytes on them, that slow and hostile clients cannot exhaust."""
