"""HTTP Message Signatures: the RFC's own example, and everything an uploader must not get away with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merkledag.ed25519 import Ed25519Signer, verify
from storage_node.errors import SignatureRefused
from storage_node.http_fields import SignatureParams
from storage_node.httpsig import (
    Message,
    ReplayCache,
    Verifier,
    content_digest,
    normal_authority,
    sign,
    sign_request,
    signature_base,
)

# RFC 9421, appendix B.1.4 (test-key-ed25519), B.2 (the test request) and B.2.6 (the signature).
RFC_SEED = bytes.fromhex("9f8362f87a484a954e6e740c5b4c0e84229139a20aa8ab56ff66586f6a7d29c5")
RFC_MESSAGE = Message(
    "POST",
    "example.com",
    "/foo",
    "param=Value&Pet=dog",
    {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-length": "18",
    },
)
RFC_PARAMS = SignatureParams(
    ("date", "@method", "@path", "@authority", "content-type", "content-length"),
    (("created", 1618884473), ("keyid", "test-key-ed25519")),
)

CLIENT = Ed25519Signer.from_seed(b"\x01" * 32)
STRANGER = Ed25519Signer.from_seed(b"\x02" * 32)
TAG = "holdfast-upload"
NOW = 1_700_000_000


class Clock:
    def __init__(self, now_s: float = NOW) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def put(**changes: object) -> Message:
    fields: dict[str, object] = {"method": "PUT", "authority": "node:4180", "path": "/v1/deals/x/shards/0"}
    return Message(**{**fields, **changes})  # type: ignore[arg-type]


def signed(
    message: Message | None = None,
    *,
    signer: Ed25519Signer = CLIENT,
    created: int = NOW,
    nonce: str = "n1",
    tag: str = TAG,
    body: bytes | None = None,
) -> Message:
    message = message or put()
    headers = sign_request(signer, message, tag=tag, created=created, nonce=nonce, body=body)
    lower = {name.lower(): value for name, value in headers.items()}
    return Message(
        message.method, message.authority, message.path, message.query, {**message.headers, **lower}
    )


def test_rfc_9421_example_b_2_6() -> None:
    signer = Ed25519Signer.from_seed(RFC_SEED)
    headers = sign(signer, RFC_MESSAGE, RFC_PARAMS, label="sig-b26")
    assert headers["Signature-Input"] == (
        'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    assert headers["Signature"] == (
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
    )


def test_signature_base_of_the_rfc_example_line_by_line() -> None:
    assert signature_base(RFC_MESSAGE, RFC_PARAMS).decode().split("\n")[1:4] == [
        '"@method": POST',
        '"@path": /foo',
        '"@authority": example.com',
    ]


def test_content_digest_of_rfc_9530() -> None:
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_authority_is_lower_case_without_default_port() -> None:
    assert normal_authority("https", "Node.Example:443") == "node.example"
    assert normal_authority("http", "Node.Example:4180") == "node.example:4180"


def test_a_fresh_request_of_the_client_is_accepted_once() -> None:
    verifier = Verifier(Clock(), tag=TAG)
    request = signed()
    verifier.verify(request, CLIENT.public_key)
    with pytest.raises(SignatureRefused, match="used before"):
        verifier.verify(request, CLIENT.public_key)
    verifier.verify(signed(nonce="n2"), CLIENT.public_key)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (put(), "not signed"),
        (signed(signer=STRANGER), "another key"),
        (signed(tag="other"), "tag"),
        (signed(created=NOW - 10_000), "expired"),
        (signed(created=NOW + 10_000), "future"),
        (signed(nonce="n" * 65), "nonce"),
    ],
)
def test_refused(request_: Message, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why):
        Verifier(Clock(), tag=TAG).verify(request_, CLIENT.public_key)


@pytest.mark.parametrize(
    "change",
    [{"method": "POST"}, {"path": "/v1/deals/x/shards/1"}, {"authority": "other:4180"}],
)
def test_a_signature_does_not_carry_over_to_another_request(change: dict[str, str]) -> None:
    request = signed()
    other = put(**change, headers=request.headers)
    with pytest.raises(SignatureRefused, match="does not fit"):
        Verifier(Clock(), tag=TAG).verify(other, CLIENT.public_key)


def test_a_query_must_be_covered() -> None:
    verifier = Verifier(Clock(), tag=TAG)
    with pytest.raises(SignatureRefused, match="@query"):
        verifier.verify(put(query="a=1", headers=signed().headers), CLIENT.public_key)
    verifier.verify(signed(put(query="a=1")), CLIENT.public_key)
    with pytest.raises(SignatureRefused, match="does not fit"):
        verifier.verify(put(query="a=2", headers=signed(put(query="a=1")).headers), CLIENT.public_key)


def test_a_known_body_must_fit_its_digest() -> None:
    verifier = Verifier(Clock(), tag=TAG)
    verifier.verify(signed(body=b"body"), CLIENT.public_key, b"body")
    with pytest.raises(SignatureRefused, match="Content-Digest"):
        verifier.verify(signed(body=b"body", nonce="n2"), CLIENT.public_key, b"bodY")
    with pytest.raises(SignatureRefused, match="content-digest"):
        verifier.verify(signed(nonce="n3"), CLIENT.public_key, b"body")


def test_nothing_signed_before_the_start_is_accepted_after_it() -> None:
    clock = Clock(NOW + 10)
    with pytest.raises(SignatureRefused, match="last start"):
        Verifier(clock, tag=TAG).verify(signed(), CLIENT.public_key)


def test_expiry_uses_the_clock_and_frees_the_cache() -> None:
    clock, replays = Clock(), ReplayCache(max_nonces=2, max_per_key=2)
    verifier = Verifier(clock, tag=TAG, replays=replays)
    first = signed(nonce="a")
    verifier.verify(first, CLIENT.public_key)
    verifier.verify(signed(nonce="b"), CLIENT.public_key)
    with pytest.raises(SignatureRefused, match="too many"):
        verifier.verify(signed(nonce="c"), CLIENT.public_key)
    clock.now_s += 400
    with pytest.raises(SignatureRefused, match="expired"):
        verifier.verify(first, CLIENT.public_key)
    verifier.verify(signed(nonce="c", created=NOW + 400), CLIENT.public_key)
    assert len(replays) == 1


def test_one_client_cannot_fill_the_cache_of_another() -> None:
    verifier = Verifier(Clock(), tag=TAG, replays=ReplayCache(max_nonces=10, max_per_key=2))
    for nonce in "ab":
        verifier.verify(signed(nonce=nonce), CLIENT.public_key)
    with pytest.raises(SignatureRefused, match="too many"):
        verifier.verify(signed(nonce="c"), CLIENT.public_key)
    verifier.verify(signed(nonce="a", signer=STRANGER), STRANGER.public_key)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("signature-input", "sig1"),
        ("signature-input", 'sig1=("@method" "@path" "@authority"'),
        ("signature-input", 'sig1=("@method";req "@path" "@authority");created=1;keyid="a"'),
        ("signature-input", 'sig1=("@method" "@method" "@path" "@authority");created=1'),
        ("signature-input", 'sig1=("@method" "@path" "@authority");created=1;created=2'),
        ("signature-input", 'sig1=("@method" "@path" "@authority");created=1.5'),
        ("signature-input", 'sig1=("@method" "@path" "@authority");alg="hmac-sha256"'),
        ("signature-input", 'sig1=("@status" "@method" "@path" "@authority")'),
        ("signature-input", "sig1=" + "(" * 3000),
        ("signature", "sig1=:!!:"),
        ("signature", "sig1=:AAA:"),
        ("signature", "sig2=:AAAA:"),
        ("signature", "sig1=:AAAA:, sig2=:AAAA:"),
    ],
)
def test_malformed_headers_are_refused(header: str, value: str) -> None:
    request = put(headers={**signed().headers, header: value})
    with pytest.raises(SignatureRefused):
        Verifier(Clock(), tag=TAG).verify(request, CLIENT.public_key)


@given(st.text(max_size=80), st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_arbitrary_headers_are_refused_and_never_crash(first: str, second: str) -> None:
    with pytest.raises(SignatureRefused):
        Verifier(Clock(), tag=TAG).verify(
            put(headers={"signature-input": first, "signature": second}), CLIENT.public_key
        )


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_one_changed_character_is_refused(position: int) -> None:
    request = signed()
    for header in ("signature-input", "signature"):
        text = request.headers[header]
        at = position % len(text)
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(SignatureRefused):
            Verifier(Clock(), tag=TAG).verify(
                put(headers={**request.headers, header: changed}), CLIENT.public_key
            )


def test_signature_is_plain_ed25519_over_the_base() -> None:
    signature = Ed25519Signer.from_seed(RFC_SEED).sign(signature_base(RFC_MESSAGE, RFC_PARAMS))
    assert verify(
        Ed25519Signer.from_seed(RFC_SEED).public_key, signature, signature_base(RFC_MESSAGE, RFC_PARAMS)
    )
