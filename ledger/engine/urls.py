"""How several servers of a ledger are written: their URLs in one text, separated by commas."""

from __future__ import annotations

MAX_SERVERS = 16


def urls_of(text: str) -> tuple[str, ...]:
    """The servers' URLs, separated by commas, each once; raises ValueError."""
    urls = tuple(dict.fromkeys(url for each in text.split(",") if (url := each.strip().rstrip("/"))))
    if len(urls) > MAX_SERVERS:
        raise ValueError(f"{len(urls)} URLs of ledger servers: at most {MAX_SERVERS}")
    return urls or (text,)
