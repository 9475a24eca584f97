"""What counts as the URL of a server, wherever one is named: options, arguments, settings."""

from __future__ import annotations

WEB = ("http://", "https://")


def ledger_urls(text: str) -> str | None:
    """The URL of a ledger's server, or those of several, separated by commas, in their plainest form.

    None if `text` is anything else.
    """
    from ledger.engine.urls import urls_of

    try:
        urls = urls_of(text)
    except ValueError:
        return None
    return ",".join(urls) if all(map(is_web_url, urls)) else None


def is_web_url(text: str) -> bool:
    """Whether `text` is an http(s) URL with a host; spaces and other letters have to be written as %20 …"""
    from urllib.parse import urlsplit

    if not text.startswith(WEB) or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
