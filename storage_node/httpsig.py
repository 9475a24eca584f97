"""HTTP Message Signatures (RFC 9421) with Ed25519, the profile that authorises uploads into a deal.

One signature a request. A signer covers ``@method``, ``@path``, ``@authority``, ``@query`` when the URL has
one, and ``content-digest`` (RFC 9530, sha-256) when the body is known before it is sent; a streamed CAR is
not covered as a whole, because each of its blocks is checked against the deal instead. Parameters:
``created``, ``expires``, ``nonce``, ``keyid`` (the account in ``k51…`` form), ``tag`` (what the signature is
for, RFC 9421 section 7.2.7).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from merkledag import ed25519
from merkledag.ed25519 import Signer
from merkledag.errors import InvalidCID
from merkledag.peer import parse_peer, peer_text
from storage_node.errors import SignatureRefused
from storage_node.http_fields import BYTES, TOKEN, FieldReader, SignatureParams, quote

MAX_HEADER_BYTES = 2_048
MAX_NONCE_CHARS = 64
MAX_AGE_S = 300
MAX_SKEW_S = 60
MAX_NONCES = 65_536
MAX_NONCES_PER_KEY = 4_096
LABEL = "sig1"

REQUIRED_COMPONENTS = ("@method", "@path", "@authority")

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Message:
    """The signable parts of one request.

    ``path`` is the raw, still percent-encoded path; ``query`` excludes the ``?`` and is None when the URL
    has none; ``headers`` have lower-case names and one combined value each.
    """

    method: str
    authority: str
    path: str
    query: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def component(self, name: str) -> str:
        """The value of a covered component (RFC 9421 section 2), or SignatureRefused."""
        if name == "@method":
            return self.method
        if name == "@authority":
            return self.authority
        if name == "@path":
            return self.path or "/"
        if name == "@query":
            return "?" + (self.query or "")
        if name.startswith("@"):
            raise SignatureRefused(f"the signature covers {name}, which this node does not support")
        value = self.headers.get(name)
        if value is None:
            raise SignatureRefused(f"the signature covers the header {name}, which the request does not have")
        return " ".join(value.split("\n")).strip()


def normal_authority(scheme: str, host: str) -> str:
    """``host[:port]`` in lower case without the scheme's default port (RFC 9421 section 2.2.3)."""
    return host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ""))


def content_digest(body: bytes) -> str:
    """The Content-Digest field (RFC 9530) of a body, sha-256."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def signature_base(message: Message, params: SignatureParams) -> bytes:
    """The octets that are signed (RFC 9421 section 2.5)."""
    lines = [f"{quote(name)}: {message.component(name)}" for name in params.components]
    lines.append(f'"@signature-params": {params.serialise()}')
    try:
        return "\n".join(lines).encode("ascii")
    except UnicodeEncodeError:
        raise SignatureRefused("a covered component is not ASCII") from None


def sign(signer: Signer, message: Message, params: SignatureParams, label: str = LABEL) -> dict[str, str]:
    """The two header fields that carry the signature of ``message``."""
    signature = base64.b64encode(signer.sign(signature_base(message, params))).decode()
    return {"Signature-Input": f"{label}={params.serialise()}", "Signature": f"{label}=:{signature}:"}


def sign_request(
    signer: Signer,
    message: Message,
    *,
    tag: str,
    created: int,
    nonce: str,
    valid_s: int = MAX_AGE_S,
    body: bytes | None = None,
) -> dict[str, str]:
    """Headers to add to a request: the signature and, for a known body, its Content-Digest.

    ``created`` is Unix time in whole seconds; ``nonce`` must be fresh for every request.
    """
    headers: dict[str, str] = {}
    components = list(REQUIRED_COMPONENTS)
    if message.query is not None:
        components.append("@query")
    if body is not None:
        headers["Content-Digest"] = content_digest(body)
        components.append("content-digest")
    signed = Message(
        message.method,
        message.authority,
        message.path,
        message.query,
        {**message.headers, **{name.lower(): value for name, value in headers.items()}},
    )
    params = SignatureParams(
        tuple(components),
        (
            ("created", created),
            ("expires", created + valid_s),
            ("nonce", nonce),
            ("keyid", peer_text(signer.public_key)),
            ("tag", tag),
        ),
    )
    return {**headers, **sign(signer, signed, params)}


class ReplayCache:
    """Remembers (key, nonce) pairs until their signature has expired anyway. Bounded: when full, it refuses.

    Refusing rather than forgetting is safe here because only signatures by an authorised key get this far.
    """

    def __init__(self, max_nonces: int = MAX_NONCES, max_per_key: int = MAX_NONCES_PER_KEY) -> None:
        self._max_nonces = max_nonces
        self._max_per_key = max_per_key
        self._by_key: dict[bytes, OrderedDict[str, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def remember(self, key: bytes, nonce: str, until_s: int, now_s: int) -> None:
        """Record a first use; SignatureRefused for a second one, or when the cache is full."""
        mine = self._by_key.get(key)
        if mine is not None and nonce in mine:
            raise SignatureRefused(
                "this signature was used before: sign the request again with a fresh nonce"
            )
        if self._count >= self._max_nonces:
            self._drop_expired(list(self._by_key), now_s)
        elif mine is not None and len(mine) >= self._max_per_key:
            self._drop_expired([key], now_s)
        mine = self._by_key.setdefault(key, OrderedDict())
        if self._count >= self._max_nonces or len(mine) >= self._max_per_key:
            if not mine:
                del self._by_key[key]
            raise SignatureRefused("too many signed requests: wait a few minutes and try again")
        mine[nonce] = until_s
        self._count += 1

    def _drop_expired(self, keys: Iterable[bytes], now_s: int) -> None:
        for key in keys:
            nonces = self._by_key[key]
            for nonce in [nonce for nonce, until_s in nonces.items() if until_s < now_s]:
                del nonces[nonce]
                self._count -= 1
            if not nonces:
                del self._by_key[key]


class Verifier:
    """Checks signed requests against a clock, a tag and the one key that is allowed.

    ``clock`` gives Unix time in seconds. Signatures made before ``clock()`` at construction are refused, so
    that forgetting the replay cache in a restart opens nothing.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        tag: str,
        max_age_s: int = MAX_AGE_S,
        max_skew_s: int = MAX_SKEW_S,
        replays: ReplayCache | None = None,
    ) -> None:
        self._clock = clock
        self._tag = tag
        self._max_age_s = max_age_s
        self._max_skew_s = max_skew_s
        self._replays = replays if replays is not None else ReplayCache()
        self._started_s = int(clock())

    def verify(self, message: Message, expected_key: bytes, body: bytes | None = None) -> None:
        """Return if ``message`` is signed by ``expected_key`` just now and for the first time.

        With ``body`` given, the signature must cover a Content-Digest that fits it. Raises SignatureRefused.
        """
        label, params = _only_member(message.headers.get("signature-input"))
        signature = _signature_bytes(message.headers.get("signature"), label)
        _check_components(message, params, body)
        now_s = int(self._clock())
        until_s = self._check_times(params, now_s)
        if params.text("tag") != self._tag:
            raise SignatureRefused(f"the signature's tag is not {self._tag}")
        nonce = params.text("nonce")
        if len(nonce) > MAX_NONCE_CHARS:
            raise SignatureRefused(f"the signature's nonce is longer than {MAX_NONCE_CHARS} characters")
        if _key_of(params) != expected_key:
            raise SignatureRefused("the request is signed by another key than the deal's client")
        if not ed25519.verify(expected_key, signature, signature_base(message, params)):
            raise SignatureRefused("the signature does not fit the request")
        self._replays.remember(expected_key, nonce, until_s, now_s)

    def _check_times(self, params: SignatureParams, now_s: int) -> int:
        created = params.integer("created")
        expires = params.integer("expires")
        if created > now_s + self._max_skew_s:
            raise SignatureRefused("the signature is from the future: check the client's clock")
        if created < now_s - self._max_age_s or expires < now_s:
            raise SignatureRefused("the signature has expired: sign the request again")
        if created < self._started_s:
            raise SignatureRefused(
                "the signature is older than this node's last start: sign the request again"
            )
        # Once created + max_age_s has passed the age check refuses it, so nothing needs remembering longer.
        return min(expires, created + self._max_age_s)


def _check_components(message: Message, params: SignatureParams, body: bytes | None) -> None:
    missing = [name for name in REQUIRED_COMPONENTS if name not in params.components]
    if message.query is not None and "@query" not in params.components:
        missing.append("@query")
    if body is not None and "content-digest" not in params.components:
        missing.append("content-digest")
    if missing:
        raise SignatureRefused(f"the signature does not cover {', '.join(missing)}")
    if body is not None and message.component("content-digest") != content_digest(body):
        raise SignatureRefused("the body does not fit its Content-Digest")


def _key_of(params: SignatureParams) -> bytes:
    try:
        return parse_peer(params.text("keyid"))
    except InvalidCID:
        raise SignatureRefused("the signature's keyid is not an account (k51…)") from None


def _only_member(header: str | None) -> tuple[str, SignatureParams]:
    if header is None:
        raise SignatureRefused("the request is not signed: it needs Signature-Input and Signature (RFC 9421)")
    if len(header) > MAX_HEADER_BYTES:
        raise SignatureRefused("the Signature-Input header is too long")
    reader = FieldReader(header.strip(" "))
    label = reader.match(TOKEN, "a label")
    reader.literal("=")
    params = reader.inner_list()
    reader.end()
    alg = dict(params.params).get("alg", "ed25519")
    if alg != "ed25519":
        raise SignatureRefused("the signature's algorithm is not ed25519")
    return label, params


def _signature_bytes(header: str | None, label: str) -> bytes:
    if header is None or len(header) > MAX_HEADER_BYTES:
        raise SignatureRefused("the request has no Signature header of a sane length")
    reader = FieldReader(header.strip(" "))
    if reader.match(TOKEN, "a label") != label:
        raise SignatureRefused("the Signature header has another label than Signature-Input")
    reader.literal("=")
    text = reader.match(BYTES, "a byte sequence")
    reader.end()
    try:
        signature = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SignatureRefused("the Signature header is not base64") from None
    if base64.b64encode(signature).decode() != text:
        raise SignatureRefused("the Signature header is not canonical base64")
    return signature
