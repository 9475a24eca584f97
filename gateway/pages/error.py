"""What a client is told of an error: a page for people, a JSON document, one line of text."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote

from gateway.errors import GatewayError, NotAnAddress
from gateway.pages.frame import address_form, page_end, page_start, text

MAX_PROVIDER_CHARS = 128
_IS_WORD = re.compile("[a-z]{1,16}").fullmatch


def error_page(error: GatewayError, target: str) -> str:
    """Which CID failed at which step, who was asked, what to try. `target` is the request's, as it came."""
    path = target.partition("?")[0]
    field = (
        f'<div class="card box">{address_form(error.typed)}</div>' if isinstance(error, NotAnAddress) else ""
    )
    return (
        page_start(f"{error.status} {error.title}", error.title, text(unquote(path, errors="replace")))
        + field
        + f'<div class="card error"><p class="status">Status {error.status}</p>'
        + f"<p>{text(_sentence(error.message))}</p>"
        + _facts(error)
        + _asked(error)
        + _help(error, path)
        + "</div>"
        + page_end("Served by Holdfast.")
    )


def error_json(error: GatewayError) -> str:
    """The same for programs; fields that have nothing to say are left out."""
    document: dict[str, object] = {
        "status": error.status,
        "title": error.title,
        "message": _line(error.message),
    }
    if error.cid is not None:
        document["cid"] = str(error.cid)
    if error.step:
        document["step"] = error.step
    if error.asked:
        document["asked"] = [
            {
                "provider": each.name[:MAX_PROVIDER_CHARS],
                "outcome": each.outcome,
                "seconds": round(each.seconds, 3),
            }
            for each in error.asked
        ]
    if error.hints:
        document["hints"] = list(error.hints)
    return json.dumps(document) + "\n"


def error_line(error: GatewayError) -> str:
    """The same in one line, without the hints."""
    parts = [f"{error.status} {error.title}: {_line(error.message)}"]
    if error.step:
        parts.append(f"step: {error.step}")
    if error.asked:
        told = ", ".join(
            f"{_line(each.name)[:MAX_PROVIDER_CHARS]} {_line(each.outcome)} ({each.seconds:.1f} s)"
            for each in error.asked
        )
        parts.append(f"asked: {told}")
    return "; ".join(parts) + "\n"


def _sentence(message: str) -> str:
    """With a capital, unless it begins with a name or a CID, of which every letter counts."""
    word = message.partition(" ")[0]
    return word.capitalize() + message[len(word) :] if _IS_WORD(word) else message


def _facts(error: GatewayError) -> str:
    rows = []
    if error.cid is not None:
        rows.append(f"<dt>Block</dt><dd><code>{error.cid}</code></dd>")
    if error.step:
        rows.append(f"<dt>Step</dt><dd>{text(error.step)}</dd>")
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def _asked(error: GatewayError) -> str:
    if not error.asked:
        return ""
    rows = [
        f"<tr><td><code>{text(each.name[:MAX_PROVIDER_CHARS])}</code></td><td>{text(each.outcome)}</td>"
        f"<td>{each.seconds:.1f} s</td></tr>"
        for each in error.asked
    ]
    return (
        "<h2>Who was asked</h2><table><thead><tr><th>Provider</th><th>Answer</th><th>Time</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _help(error: GatewayError, path: str) -> str:
    items = [f"<li>{text(hint)}</li>" for hint in error.hints]
    above, _, last = path.rstrip("/").rpartition("/")
    if error.status == 404 and last and above.count("/") >= 2:
        items.append(f'<li><a href="{text(above)}/">Open the folder above</a> to see what it holds.</li>')
    return f"<h2>What to try</h2><ul>{''.join(items)}</ul>" if items else ""


def _line(value: str) -> str:
    return " ".join(value.split())
