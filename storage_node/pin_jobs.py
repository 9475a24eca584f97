"""Pin jobs: pins whose blocks are still being fetched, recorded so that they outlive whoever works on them.

A job is a record in the meta store from the moment it is asked for until its pin is made, which happens in
the same transaction that removes the record. What was fetched for it stays: its root is a partial root of
every collection (`roots`). One runner at a time works on a job; it claims it with its process ID and start
time, so a job of a killed process is anybody's. Pausing and cancelling change the record, and the runner sees
that when it reports its progress.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import cbor2

from merkledag.cid import CID
from storage_node.blockstore.leases import process_start
from storage_node.errors import CorruptStore, JobNotFound, StorageNodeError
from storage_node.meta import Meta, MetaWrite, Table
from storage_node.pins import Pin, PinMode, PinWrite, check_pin

MAX_JOB_BYTES = 16 * 1024
MAX_SOURCES = 32
MAX_SOURCE_CHARS = 1024
MAX_ERROR_CHARS = 500
NUMBER_KEY = b"pin-job-number"  # in Table.RECORDS: the last number given away
_NUMBER_BYTES = 8


class JobState(StrEnum):
    """Where a job is. WAITING jobs have nobody who works on them yet; a RUNNING one's runner may be dead."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PinJob:
    """One job. Its counters are those of the last report; times are Unix seconds, 0 means none.

    `blocks` and `size_bytes` count what was fetched, `found` the blocks that were here. `waiting_for` is the
    block that the oldest unanswered request is for. `timeout_s` without any progress fails the job, 0 never.
    """

    number: int
    cid: CID
    mode: PinMode = PinMode.RECURSIVE
    name: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    timeout_s: float = 0
    background: bool = False
    replaces: CID | None = None
    unpin: bool = True
    state: JobState = JobState.WAITING
    blocks: int = 0
    size_bytes: int = 0
    found: int = 0
    waiting_for: str = ""
    waiting_since_s: int = 0
    created_s: int = 0
    changed_s: int = 0
    error: str = ""
    runner_pid: int = 0
    runner_start: str = ""

    def is_running(self) -> bool:
        """Whether a live process works on it."""
        return self.state is JobState.RUNNING and _lives(self.runner_pid, self.runner_start)

    @property
    def label(self) -> str:
        """The state for people and programs; a job whose runner died is waiting for another one."""
        return str(
            JobState.WAITING if self.state is JobState.RUNNING and not self.is_running() else self.state
        )


class PinJobs:
    """The jobs in a meta store. `now` gives Unix time in seconds."""

    def __init__(self, meta: Meta, now: Callable[[], float]) -> None:
        self._meta = meta
        self._now = now

    def create(self, job: PinJob) -> PinJob:
        """Record a job, durably, under a number of its own (`job.number` is ignored).

        Raises BlockRefused for what no pin can have, StorageNodeError for too much else.
        """
        check_pin(Pin(job.cid, job.mode, job.name, job.metadata))
        if len(job.sources) > MAX_SOURCES or any(len(each) > MAX_SOURCE_CHARS for each in job.sources):
            raise StorageNodeError(f"at most {MAX_SOURCES} sources of {MAX_SOURCE_CHARS} characters")
        now_s = int(self._now())
        with self._meta.write() as write:
            last = write.get(Table.RECORDS, NUMBER_KEY)
            number = 1 + (0 if last is None else int.from_bytes(last))
            write.put(Table.RECORDS, NUMBER_KEY, number.to_bytes(_NUMBER_BYTES))
            job = replace(job, number=number, created_s=now_s, changed_s=now_s)
            _write(write, job)
        return job

    def get(self, number: int) -> PinJob:
        """A job. Raises JobNotFound."""
        value = self._meta.get(Table.PIN_JOBS, _key(number))
        if value is None:
            raise _absent(number)
        return decode_job(_key(number), value)

    def ls(self) -> Iterator[PinJob]:
        """Every job, the oldest first."""
        for key, value in self._meta.items(Table.PIN_JOBS):
            yield decode_job(key, value)

    def change(self, number: int, changed: Callable[[PinJob], PinJob | None]) -> PinJob | None:
        """Replace a job by `changed(job)` in one step, or remove it where that is None.

        Raises JobNotFound, and what `changed` raises, with nothing changed.
        """
        with self._meta.write() as write:
            value = write.get(Table.PIN_JOBS, _key(number))
            if value is None:
                raise _absent(number)
            job = changed(decode_job(_key(number), value))
            if job is None:
                write.delete(Table.PIN_JOBS, _key(number))
                return None
            job = replace(job, changed_s=int(self._now()), error=job.error[:MAX_ERROR_CHARS])
            _write(write, job)
        return job

    def claim(self, number: int) -> PinJob | None:
        """Make this process the runner of a waiting job, None if somebody was faster or it is not waiting."""

        def taken(job: PinJob) -> PinJob:
            if job.label != JobState.WAITING:
                raise _NotOurs
            pid = os.getpid()
            return replace(
                job,
                state=JobState.RUNNING,
                error="",
                waiting_for="",
                waiting_since_s=0,
                runner_pid=pid,
                runner_start=process_start(pid) or "",
            )

        try:
            return self.change(number, taken)
        except (_NotOurs, JobNotFound):
            return None

    def finish(self, job: PinJob) -> Pin:
        """Make the job's pin and remove the job, in one step, under the lease that protects its blocks.

        Raises JobNotFound if it was cancelled or paused meanwhile.
        """
        pin = Pin(job.cid, job.mode, job.name, job.metadata, int(self._now()))
        with self._meta.write() as write:
            value = write.get(Table.PIN_JOBS, _key(job.number))
            if value is None or decode_job(_key(job.number), value).state is not JobState.RUNNING:
                raise _absent(job.number)
            write.delete(Table.PIN_JOBS, _key(job.number))
            pins = PinWrite(write)
            if job.replaces is not None:
                pin = pins.move(job.replaces, job.cid, pin.created_s, unpin=job.unpin)
            else:
                pin = pins.put(pin)
            pins.close()
        return pin


class _NotOurs(Exception):
    """The job is somebody else's."""


def roots(meta: Meta) -> Iterator[CID]:
    """What a collection must keep besides pins, as far as it is here: give it to `collect` as partial roots.

    These are the roots of unfinished jobs, and those to which pins moved lately (`PinWrite.move`): a
    collection reads them when it has read the pins, not before.
    """
    for key, value in meta.items(Table.PIN_JOBS):
        yield decode_job(key, value).cid
    for key, _ in meta.items(Table.PIN_MOVES):
        yield CID.decode(key)


def _key(number: int) -> bytes:
    if not 0 < number < 1 << 63:
        raise _absent(number)
    return number.to_bytes(_NUMBER_BYTES)


def _absent(number: int) -> JobNotFound:
    return JobNotFound(f"there is no pin job {number}: see `holdfast pin jobs`")


def _lives(pid: int, start: str) -> bool:
    return pid > 0 and process_start(pid) == start


def _write(write: MetaWrite, job: PinJob) -> None:
    fields = asdict(job)
    del fields["number"]
    fields["cid"], fields["mode"], fields["state"] = bytes(job.cid), str(job.mode), str(job.state)
    fields["replaces"] = None if job.replaces is None else bytes(job.replaces)
    value = cbor2.dumps(fields)
    if len(value) > MAX_JOB_BYTES:
        raise StorageNodeError(f"a pin job of {len(value)} bytes; at most {MAX_JOB_BYTES}")
    write.put(Table.PIN_JOBS, _key(job.number), value)


def decode_job(key: bytes, value: bytes) -> PinJob:
    """A job as it is kept. Raises CorruptStore."""
    try:
        fields: dict[str, Any] = cbor2.loads(value)
        fields["number"] = int.from_bytes(key)
        fields["cid"], fields["mode"] = CID.decode(fields["cid"]), PinMode(fields["mode"])
        fields["state"], fields["sources"] = JobState(fields["state"]), tuple(fields["sources"])
        if fields["replaces"] is not None:
            fields["replaces"] = CID.decode(fields["replaces"])
        return PinJob(**fields)
    except (ValueError, TypeError, KeyError, cbor2.CBORDecodeError) as error:
        raise CorruptStore(f"meta store: the pin job {key.hex()} is damaged; restore a backup") from error
