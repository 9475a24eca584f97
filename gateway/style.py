"""The look of the gateway's own pages: one inline style sheet, icons, and the policy that allows no more."""

from __future__ import annotations

import base64
import hashlib

CSS = """
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1c2024;--soft:#60676e;--line:#e4e5e3;
--link:#0b5c7a;--mark:#0d7f8c;--hover:#f1f6f7;--code:#f3f3f1}
@media (prefers-color-scheme:dark){:root{--bg:#121416;--card:#191c1f;--ink:#e7e9ea;--soft:#9aa3aa;
--line:#2b3034;--link:#79c7e3;--mark:#4fc3cf;--hover:#20262a;--code:#22272b}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:1.75rem}
footer{padding-top:1rem;padding-bottom:2.5rem;color:var(--soft);font-size:.875rem}
h1{font-size:1.375rem;line-height:1.3;font-weight:650;margin:0 0 .5rem;overflow-wrap:anywhere}
a{color:var(--link);text-decoration:none;border-radius:3px}
a:hover{text-decoration:underline}
a:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
code,.path,.ipfs-hash{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.path{font-size:.8125rem;color:var(--soft);overflow-wrap:anywhere;margin:0 0 1rem}
.facts{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:0 0 1.25rem;padding:0;font-size:.875rem;
color:var(--soft)}
.facts a{white-space:nowrap}
.card{background:var(--card);border:1px solid var(--line);border-radius:.625rem;overflow:hidden}
.row{display:grid;grid-template-columns:minmax(0,1fr) 9.5rem 6.5rem;align-items:center;gap:1rem;
padding:.4375rem 1rem;border-top:1px solid var(--line)}
.card>.row:first-child{border-top:0}
.head{font-size:.8125rem;color:var(--soft);font-weight:600;background:var(--hover)}
.head .size{font-size:inherit;color:inherit}
.row:not(.head):hover{background:var(--hover)}
.part{content-visibility:auto;contain-intrinsic-size:auto 8200px}
.name{display:flex;align-items:center;gap:.625rem;min-width:0}
.name a{overflow-wrap:anywhere}
.name svg{flex:none;width:1.125rem;height:1.125rem;fill:none;stroke:var(--soft);stroke-width:1.5;
stroke-linejoin:round;stroke-linecap:round}
.name svg.d{stroke:var(--mark)}
.ipfs-hash{font-size:.8125rem;color:var(--soft);white-space:nowrap}
.size{text-align:right;font-variant-numeric:tabular-nums;font-size:.875rem;color:var(--soft);
white-space:nowrap}
.empty{padding:2rem 1rem;text-align:center;color:var(--soft);margin:0}
.error{padding:1.5rem 1.5rem 1.25rem}
.status{font-size:.875rem;color:var(--soft);margin:0 0 .25rem}
.error p{margin:0 0 .75rem;overflow-wrap:anywhere}
.error h2{font-size:1rem;margin:1.25rem 0 .5rem}
.error ul{margin:0;padding-left:1.25rem}
pre{margin:0;padding:1rem;overflow-x:auto;font-size:.8125rem;line-height:1.55;white-space:pre-wrap;
overflow-wrap:anywhere}
.hidden{position:absolute;width:0;height:0}
@media (max-width:40rem){.row{grid-template-columns:minmax(0,1fr) 5.5rem;gap:.75rem;padding:.5rem .75rem}
.row>:nth-child(2){display:none}main,header,footer{padding-left:.875rem;padding-right:.875rem}}
@media (prefers-contrast:more){:root{--soft:var(--ink);--line:currentColor}}
""".strip().replace("\n", "")

# Drawn once, used by reference: no request, no font.
ICONS = (
    '<svg class="hidden" aria-hidden="true">'
    '<symbol id="i-d" viewBox="0 0 20 20"><path d="M2.5 15.5v-11h5l2 2h8v9z"/></symbol>'
    '<symbol id="i-f" viewBox="0 0 20 20"><path d="M4.5 2.5h7l4 4v11h-11zM11.5 2.5v4h4"/></symbol>'
    '<symbol id="i-t" viewBox="0 0 20 20">'
    '<path d="M4.5 2.5h7l4 4v11h-11zM11.5 2.5v4h4M7 10h6M7 13h6"/></symbol>'
    '<symbol id="i-i" viewBox="0 0 20 20"><path d="M2.5 4h15v12h-15zM2.5 14l4-4 3 3 3-4 5 5"/>'
    '<circle cx="7" cy="7.5" r="1"/></symbol>'
    '<symbol id="i-v" viewBox="0 0 20 20"><path d="M2.5 4.5h15v11h-15zM8.5 7.5v5l4-2.5z"/></symbol>'
    '<symbol id="i-a" viewBox="0 0 20 20"><path d="M7.5 15v-10l8-1.5v10"/>'
    '<circle cx="5.5" cy="15" r="2"/><circle cx="13.5" cy="13.5" r="2"/></symbol>'
    '<symbol id="i-z" viewBox="0 0 20 20"><path d="M3 3.5h14v4h-14zM4 7.5v9h12v-9M8 11h4"/></symbol>'
    '<symbol id="i-u" viewBox="0 0 20 20"><path d="M10 16.5v-12M5 9.5l5-5 5 5"/></symbol>'
    "</svg>"
)

_CSS_HASH = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()

# Nothing is loaded, run, framed or sent anywhere; the one style sheet is named by its hash.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)

# Changes with the look, so that caches drop old listings (Etag "DirIndex-…").
VERSION = hashlib.sha256((CSS + ICONS).encode()).hexdigest()[:8]
