"""What the options of `add` are called, and what their help says."""

from __future__ import annotations

from typing import Annotated

import typer

Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH…", help="Files, folders, or - for stdin.", show_default=False),
]

# what is printed and kept
Quieter = Annotated[bool, typer.Option("-Q", "--quieter", help="Print the root CID alone.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print CIDs alone.")]
Silent = Annotated[bool, typer.Option("--silent", help="Print nothing.")]
Progress = Annotated[
    bool, typer.Option("-p", "--progress/--no-progress", help="Progress on a terminal.", show_default=False)
]
OnlyHash = Annotated[bool, typer.Option("-n", "--only-hash", help="Hash only; store nothing.")]
Wrap = Annotated[
    bool, typer.Option("-w", "--wrap", "--wrap-with-directory", help="Put everything into one folder.")
]
Pin = Annotated[bool, typer.Option("--pin/--no-pin", help="Keep it from being collected.")]
Name = Annotated[str, typer.Option("--name", "--pin-name", help="Name of the pin.")]
# what is taken
Tar = Annotated[
    str | None, typer.Option("--tar", metavar="FILE", help="What a tar archive holds; - is stdin.")
]
StdinName = Annotated[str, typer.Option("--stdin-name", help="Name of the file from stdin.")]
Hidden = Annotated[bool, typer.Option("--hidden", "-H", help="Take hidden files of folders too.")]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="RULE", help="Leave out what this .gitignore rule matches."),
]
IgnoreRulesPath = Annotated[
    str | None, typer.Option("--ignore-rules-path", metavar="FILE", help="A file of such rules.")
]
UseIgnoreFiles = Annotated[
    bool, typer.Option("--use-ignore-files", help="Obey .gitignore and .ipfsignore in folders.")
]
EmptyDirs = Annotated[
    bool, typer.Option("-E", "--empty-dirs/--no-empty-dirs", help="Take empty folders.", show_default=False)
]
DereferenceArgs = Annotated[bool, typer.Option("--dereference-args", help="Follow symlinks that are named.")]
DereferenceSymlinks = Annotated[bool, typer.Option("--dereference-symlinks", help="Follow all symlinks.")]
# what goes into the nodes
PreserveMode = Annotated[bool, typer.Option("--preserve-mode", help="Store permissions.")]
PreserveMtime = Annotated[bool, typer.Option("--preserve-mtime", help="Store modification times.")]
Mode = Annotated[str | None, typer.Option("--mode", help="Permissions for all, octal with a leading 0.")]
Mtime = Annotated[int | None, typer.Option("--mtime", help="Modification time for all, in seconds.")]
MtimeNsecs = Annotated[int | None, typer.Option("--mtime-nsecs", help="Its nanoseconds.")]
# how the DAG is built
Profile = Annotated[str | None, typer.Option("--profile", help="unixfs-v1-2025 or unixfs-v0-2015.")]
CidVersion = Annotated[int | None, typer.Option("--cid-version", help="0 or 1.")]
HashName = Annotated[str | None, typer.Option("--hash", help="sha2-256, sha2-512 or blake3.")]
RawLeaves = Annotated[
    bool | None, typer.Option("--raw-leaves/--no-raw-leaves", help="File chunks as raw blocks.")
]
Chunker = Annotated[str | None, typer.Option("--chunker", "-s", help="size-N, rabin-MIN-AVG-MAX or buzhash.")]
Layout = Annotated[str | None, typer.Option("--layout", help="balanced or trickle.")]
Trickle = Annotated[bool, typer.Option("-t", "--trickle", hidden=True)]
MaxLinks = Annotated[
    int | None, typer.Option("--max-links", "--max-file-links", help="Links a file's node has at most.")
]
MaxDirectoryLinks = Annotated[
    int | None, typer.Option("--max-directory-links", help="Entries a flat folder has at most.")
]
HamtFanout = Annotated[
    int | None, typer.Option("--hamt-fanout", "--max-hamt-fanout", help="Links of a HAMT's node.")
]
HamtThreshold = Annotated[
    int | None, typer.Option("--hamt-threshold", help="Bytes over which a folder is a HAMT; 0: never.")
]
HamtEstimate = Annotated[
    str | None, typer.Option("--hamt-estimate", help="What is compared with that: block or links.")
]
Inline = Annotated[bool, typer.Option("--inline", help="Keep small blocks inside CIDs.")]
InlineLimit = Annotated[int | None, typer.Option("--inline-limit", help="Bytes of the largest; 32.")]
Recursive = Annotated[bool, typer.Option("-r", "--recursive", hidden=True)]
