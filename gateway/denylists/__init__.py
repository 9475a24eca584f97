"""Denylists in the compact format (IPIP-0383), and how they are applied."""
