"""Option and argument types that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
ProgressFlag = Annotated[bool, typer.Option("--progress/--no-progress", help="Draw a progress line.")]
NewFileOption = Annotated[str, typer.Option("-o", "--output", help="A new file; stdout without it.")]
PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH", help="/ipfs/…, /ipns/…, their URIs or a CID, with /sub/path.", show_default=False
    ),
]
