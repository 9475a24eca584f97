"""The access log: its two forms, what strangers write into it, rotation; and traces."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.operating.access_log import AccessLogFile, AccessRecord, combined_line, json_line
from gateway.operating.tracing import Export, OpenTelemetryTracer
from merkledag.cid import CID
from tests.gateway.operating import operated
from tests.gateway.support import MemorySource, add_file

NOON_S = 1_000_000_000.5  # 9 September 2001, 01:46:40.5 UTC
COMBINED = re.compile(r'(\S+) - - \[([^]]+)\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)"\n')
RECORD = AccessRecord("192.0.2.1", "GET", "/ipfs/x", "1.1", "a.example", 200, 5, 0.25, "file", "", "curl/8")


def test_the_combined_form() -> None:
    assert combined_line(RECORD, NOON_S) == (
        b'192.0.2.1 - - [09/Sep/2001:01:46:40 +0000] "GET /ipfs/x HTTP/1.1" 200 5 "-" "curl/8"\n'
    )


def test_the_json_form() -> None:
    document = json.loads(json_line(RECORD, NOON_S))
    assert document["time"] == "2001-09-09T01:46:40.500+00:00"
    assert (document["status"], document["seconds"], document["kind"]) == (200, 0.25, "file")


@pytest.mark.parametrize("text", ['"', "\\", "a\nb", "a\r", "\x1b[31m", "\udcff", "é", "\x00", "x" * 100_000])
def test_what_strangers_write_stays_in_its_field(text: str) -> None:
    record = AccessRecord("192.0.2.1", "GET", f"/{text}", "1.1", text, 200, 5, 0.25, "file", text, text)
    line = combined_line(record, NOON_S).decode("ascii")
    assert COMBINED.fullmatch(line)
    assert line.isascii()
    assert line[:-1].isprintable()
    assert len(line) < 100_000
    written = json_line(record, NOON_S)
    assert written.count(b"\n") == 1
    assert json.loads(written)["user_agent"] == text[:8192]


async def test_requests_are_logged_to_a_file_that_may_be_moved_away(tmp_path: Path) -> None:
    source = MemorySource()
    small, _ = add_file(source, b"hello")
    large, _ = add_file(source, bytes(200_000))
    path = tmp_path / "access.log"
    log = AccessLogFile(str(path), "combined", clock=lambda: NOON_S)
    async with operated(source, access_log=log) as client:
        await client.ask(f"/ipfs/{small}", {"User-Agent": "a b", "Referer": "https://r.example/"})
        await client.ask(f"/ipfs/{large}")
        path.rename(tmp_path / "access.log.1")
        await client.ask(f"/ipfs/{small}", method="HEAD")
    log.close()
    log = AccessLogFile(str(path), "combined")  # as after a reload
    async with operated(source, access_log=log) as client:
        await client.ask("/ipfs/nothing")
    log.close()
    old = [match.groups() for match in map(COMBINED.fullmatch, lines(tmp_path / "access.log.1")) if match]
    assert [(each[3], each[4]) for each in old] == [("200", "5"), ("200", "200000"), ("200", "0")]
    assert old[0][0] == "127.0.0.1"
    assert old[0][2] == f"GET /ipfs/{small} HTTP/1.1"
    assert old[0][5:] == ("https://r.example/", "a b")
    assert [each.split('" ')[1][:3] for each in lines(path)] == ["400"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError):
        AccessLogFile(str(tmp_path / "absent" / "access.log"), "json")
    log = AccessLogFile(str(tmp_path / "access.log"), "json")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    log(RECORD)
    log(RECORD)
    log.close()
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["No space left on device"]


async def test_spans_of_a_request_hang_on_the_clients(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    source = MemorySource()
    cid, _ = add_file(source, b"far away")
    source.move_to_remote()
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with operated(source, tracer=OpenTelemetryTracer(provider)) as client:
        await client.ask(f"/ipfs/{cid}", {"traceparent": f"00-{trace_id}-{parent_id}-01"})
        await client.ask(f"/ipfs/{CID.of(b'missing')}", {"traceparent": "garbage"})
    spans = exporter.get_finished_spans()
    request, missing = [span for span in spans if span.name == "GET"]
    fetch = spans[0]
    assert fetch.name == "fetch block"
    assert f"{request.context.trace_id:032x}" == trace_id
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == parent_id
    assert fetch.parent is not None
    assert fetch.parent.span_id == request.context.span_id
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["holdfast.kind"] == "file"
    assert missing.parent is None
    assert missing.attributes is not None
    assert missing.attributes["http.response.status_code"] == 404


class Hanging(InMemorySpanExporter):
    """Who collects does not answer: an export lasts until the exporter is told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.told.wait(10)
        return super().export(spans)

    def shutdown(self) -> None:
        self.told.set()


async def test_spans_are_sent_at_the_end_but_nobody_waits_for_a_collector_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for exporter, patience_s in ((InMemorySpanExporter(), 10.0), (Hanging(), 0.01)):
        monkeypatch.setattr("gateway.operating.tracing._FLUSH_S", patience_s)
        provider = TracerProvider()
        processor = BatchSpanProcessor(exporter)
        provider.add_span_processor(processor)
        with provider.get_tracer("test").start_as_current_span("one"):
            pass
        async with asyncio.timeout(30):
            await Export(provider, processor, exporter).close()
        assert [span.name for span in exporter.get_finished_spans()] == ["one"]
