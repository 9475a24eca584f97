"""The options of `add` that decide how a DAG is built, as one ImportProfile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.output import usage
from merkledag import multihash

if TYPE_CHECKING:
    from merkledag.profile import ImportProfile

HASHES = {multihash.name(code): code for code in (multihash.SHA2_256, multihash.SHA2_512, multihash.BLAKE3)}
DEFAULT_INLINE_BYTES = 32


def hash_number(name: str) -> int:
    """The number of a hash function that new blocks may have; exit 2 otherwise."""
    if name not in HASHES:
        raise usage(f"{name!r} is no hash function for new blocks: choose one of {', '.join(HASHES)}")
    return HASHES[name]


def named_profile(name: str) -> ImportProfile:
    """The profile called `name`; exit 2 for any other name."""
    from merkledag.profile import PROFILES

    profile = PROFILES.get(name)
    if profile is None:
        raise usage(f"no profile is called {name!r}: choose one of {', '.join(PROFILES)}")
    return profile


class ProfileOptions(NamedTuple):
    """What the command line says about a profile; None leaves a value as the profile has it.

    With `metadata` (mode or mtime are kept) leaves are not raw, as in kubo: a raw block has no room for them.
    """

    cid_version: int | None = None
    hash_name: str | None = None
    raw_leaves: bool | None = None
    metadata: bool = False
    chunker: str | None = None
    layout: str | None = None
    max_links: int | None = None
    max_directory_links: int | None = None
    hamt_fanout: int | None = None
    hamt_threshold: int | None = None
    hamt_estimate: str | None = None
    inline: bool = False
    inline_limit: int | None = None


def import_profile(profile: str, options: ProfileOptions) -> ImportProfile:
    """The named profile with the given options changed.

    As in kubo, a hash function other than sha2-256 implies CID version 1, and a CID version that was asked
    for decides on raw leaves unless they were asked for too. Raises CommandError (exit 2) for what does not
    fit.
    """
    base = named_profile(profile)
    try:
        return replace(base, **_identifiers(base, options), **_shapes(options))
    except ValueError as error:
        raise usage(" ".join(str(error).split())) from None


def _identifiers(base: ImportProfile, options: ProfileOptions) -> dict[str, Any]:
    """CID version, hash function and raw leaves, which depend on one another."""
    changes: dict[str, Any] = {}
    cid_version, raw_leaves = options.cid_version, options.raw_leaves
    if options.metadata:
        if raw_leaves:
            raise usage("--raw-leaves does not go with mode or modification times: a raw block has none")
        raw_leaves = False
    if options.hash_name is not None:
        changes["hash_code"] = hash_number(options.hash_name)
        if options.hash_name != "sha2-256" and cid_version is None:
            cid_version = 1
    if cid_version is not None:
        if cid_version not in {0, 1}:
            raise usage(f"CID version {cid_version} does not exist: choose 0 or 1")
        changes["cid_version"] = cid_version
        if raw_leaves is None and cid_version != base.cid_version:
            raw_leaves = cid_version == 1
    if raw_leaves is not None:
        changes["raw_leaves"] = raw_leaves
    return changes


def _shapes(options: ProfileOptions) -> dict[str, Any]:
    """How files are cut and folders laid out; raises ValueError."""
    from merkledag.chunker import parse_chunker

    if options.inline_limit is not None and not options.inline:
        raise usage("--inline-limit says how large inlined blocks may be: it needs --inline")
    inline_bytes = DEFAULT_INLINE_BYTES if options.inline_limit is None else options.inline_limit
    changes = {
        "chunker": parse_chunker(options.chunker) if options.chunker else None,
        "layout": options.layout,
        "max_links": options.max_links,
        "max_directory_links": options.max_directory_links or None,  # 0 is no limit
        "hamt_fanout": options.hamt_fanout,
        "hamt_threshold_bytes": options.hamt_threshold,
        "hamt_estimate": options.hamt_estimate,
        "inline_bytes": inline_bytes if options.inline else None,
    }
    return {name: value for name, value in changes.items() if value is not None}
