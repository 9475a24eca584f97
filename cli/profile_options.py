"""The options of `add` that decide how a DAG is built, as one ImportProfile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cli.output import usage

if TYPE_CHECKING:
    from merkledag.profile import ImportProfile

HASHES = {"sha2-256": 0x12, "sha2-512": 0x13, "blake3": 0x1E}
SHA2_256 = HASHES["sha2-256"]


def named_profile(name: str) -> ImportProfile:
    """The profile called `name`; exit 2 for any other name."""
    from merkledag.profile import PROFILES

    profile = PROFILES.get(name)
    if profile is None:
        raise usage(f"no profile is called {name!r}: choose one of {', '.join(PROFILES)}")
    return profile


def chunk_bytes(chunker: str) -> int:
    """N of `size-N`; exit 2 for chunkers that do not exist here, or for no number."""
    kind, _, argument = chunker.partition("-")
    if kind in {"rabin", "buzhash"}:
        raise usage(f"the {kind} chunker is not built yet: use --chunker size-N")
    if kind != "size" or not argument.isdecimal():
        raise usage(f"{chunker!r} is no chunker: write size-N, N in bytes (for example size-1048576)")
    return int(argument[:20])


def import_profile(
    profile: str,
    *,
    cid_version: int | None,
    chunker: str | None,
    raw_leaves: bool | None,
    layout: str | None,
    max_links: int | None,
    hash_name: str | None,
    inline: bool,
    inline_limit: int | None,
    metadata: bool = False,
) -> ImportProfile:
    """The named profile with the given options changed; None leaves an option as the profile has it.

    With `metadata` (mode or mtime are kept) leaves are not raw, as in kubo: a raw block has no room for them.
    As elsewhere, a hash function other than sha2-256 implies CID version 1, and a CID version that was asked
    for decides on raw leaves unless they were asked for too. Raises CommandError (exit 2) for what does not
    fit.
    """
    if inline or inline_limit is not None:
        raise usage("--inline and --inline-limit are not built yet: leave them out")
    if metadata:
        if raw_leaves:
            raise usage("--raw-leaves does not go with mode or modification times: a raw block has none")
        raw_leaves = False
    base = named_profile(profile)
    changes: dict[str, Any] = {}
    if hash_name is not None:
        if hash_name not in HASHES:
            raise usage(
                f"{hash_name!r} is no hash function for new blocks: choose one of {', '.join(HASHES)}"
            )
        changes["hash_code"] = HASHES[hash_name]
        if hash_name != "sha2-256" and cid_version is None:
            cid_version = 1
    if cid_version is not None:
        if cid_version not in {0, 1}:
            raise usage(f"CID version {cid_version} does not exist: choose 0 or 1")
        changes["cid_version"] = cid_version
        if raw_leaves is None and cid_version != base.cid_version:
            raw_leaves = cid_version == 1
    if raw_leaves is not None:
        changes["raw_leaves"] = raw_leaves
    if chunker is not None:
        changes["chunk_bytes"] = chunk_bytes(chunker)
    if max_links is not None:
        changes["max_links"] = max_links
    if layout is not None and layout != "balanced":
        known = layout == "trickle"
        raise usage(
            "the trickle layout is not built yet: use --layout balanced"
            if known
            else f"{layout!r} is no layout: use --layout balanced"
        )
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise usage(" ".join(str(error).split())) from None
