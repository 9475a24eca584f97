"""Import profiles: every choice that decides which CID some content gets (IPIP-499)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from merkledag.block import MAX_BLOCK_BYTES
from merkledag.chunker import Chunker, FixedSize
from merkledag.multihash import IDENTITY, MAX_IDENTITY_BYTES, SHA2_256, is_supported
from merkledag.unixfs import MAX_FANOUT, MIN_FANOUT

MAX_LINKS_LIMIT = 8_192  # 8,192 links of 128-byte hashes stay below the block limit
_MIB_CHUNKS = FixedSize(1024 * 1024)

Layout = Literal["balanced", "trickle"]


@dataclass(frozen=True, slots=True)
class ImportProfile:
    """How files are cut and folders laid out; ValueError on construction for values that cannot work.

    `hamt_estimate` says how a folder's size is compared with `hamt_threshold_bytes`: by "links" (names plus
    CIDs) or by the "block" as it would be written. Either way a HAMT begins strictly above the threshold; 0
    bytes mean that there are none. More than `max_directory_links` entries (None: any number) also make one.
    Blocks of at most `inline_bytes` (None: no block) are kept inside their CIDs, which are then of version 1.
    """

    cid_version: int = 1
    hash_code: int = SHA2_256
    chunker: Chunker = _MIB_CHUNKS
    raw_leaves: bool = True
    max_links: int = 1024
    hamt_threshold_bytes: int = 256 * 1024
    hamt_fanout: int = 256
    hamt_estimate: Literal["links", "block"] = "block"
    layout: Layout = "balanced"
    max_directory_links: int | None = None
    inline_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.cid_version not in (0, 1):
            raise ValueError(f"CID version {self.cid_version} does not exist; use 0 or 1")
        if self.cid_version == 0 and self.hash_code != SHA2_256:
            raise ValueError("CIDv0 allows sha2-256 only; use CID version 1 for another hash")
        if self.hash_code == IDENTITY or not is_supported(self.hash_code):
            raise ValueError(f"hash function 0x{self.hash_code:x} cannot be used for importing")
        if not 2 <= self.max_links <= MAX_LINKS_LIMIT:
            raise ValueError(f"{self.max_links} links a node; 2 to {MAX_LINKS_LIMIT} are possible")
        if not 0 <= self.hamt_threshold_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"HAMT threshold of {self.hamt_threshold_bytes} bytes; 0 to {MAX_BLOCK_BYTES}")
        fanout = self.hamt_fanout
        if not MIN_FANOUT <= fanout <= MAX_FANOUT or fanout & (fanout - 1):
            raise ValueError(f"HAMT fanout {fanout}; a power of two from {MIN_FANOUT} to {MAX_FANOUT}")
        if self.hamt_estimate not in ("links", "block"):
            raise ValueError(f"HAMT estimate {self.hamt_estimate!r}; use 'links' or 'block'")
        if self.layout not in ("balanced", "trickle"):
            raise ValueError(f"layout {self.layout!r} does not exist; use 'balanced' or 'trickle'")
        if self.max_directory_links is not None and self.max_directory_links < 1:
            raise ValueError(f"{self.max_directory_links} links a folder; 1 or more are possible")
        if self.inline_bytes is not None and not 0 <= self.inline_bytes <= MAX_IDENTITY_BYTES:
            raise ValueError(
                f"{self.inline_bytes} bytes inside a CID; 0 to {MAX_IDENTITY_BYTES} are possible"
            )


UNIXFS_V1_2025 = ImportProfile()
UNIXFS_V0_2015 = ImportProfile(
    cid_version=0,
    chunker=FixedSize(256 * 1024),
    raw_leaves=False,
    max_links=174,
    hamt_estimate="links",
)

PROFILES: dict[str, ImportProfile] = {"unixfs-v1-2025": UNIXFS_V1_2025, "unixfs-v0-2015": UNIXFS_V0_2015}
