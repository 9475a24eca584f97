"""What `holdfast demo` says: lines for a person, or with --json one document a line."""

from __future__ import annotations

import time
from typing import Any

from cli.output import blobs_text, emit, flush, meter, size_text, text


class Story:
    """Tells steps as they happen. Times are seconds since the demo began."""

    def __init__(self, *, json_output: bool) -> None:
        self._json = json_output
        self._began_s = time.monotonic()
        self.step = ""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began_s

    def begin(self, step: str, title: str) -> None:
        """A new step, with a heading."""
        self.step = step
        self.say(title, event="step", heading=True)

    def say(self, line: str, *, event: str, heading: bool = False, **details: Any) -> None:
        """One thing that happened; `details` are for machines."""
        if self._json:
            emit(
                {"t_s": round(self.elapsed_s, 2), "step": self.step, "event": event, "text": line, **details}
            )
        elif heading:
            text(f"\n[{self.elapsed_s:5.1f} s] {line}")
        else:
            text(f"          {line}")
        flush()

    def progress(self, label: str) -> Bars:
        """Progress lines on a terminal for the phases of one long piece of work."""
        return Bars(label)


class Bars:
    """Turns (phase, done, total) in bytes into one progress line a phase."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._phase = ""
        self._seen = 0
        self._meter = meter("", None, wanted=False)

    def __call__(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` are done in `phase`."""
        if phase != self._phase:
            self._meter.finish()
            self._phase, self._seen = phase, 0
            as_text = blobs_text if phase == "kzg" else size_text
            self._meter = meter(
                f"          {self._label}: {phase}", total, wanted=phase != "accept", as_text=as_text
            )
        if done > self._seen:
            self._meter.advance(done - self._seen)
            self._seen = done

    def finish(self) -> None:
        """Removes the line."""
        self._meter.finish()


def rate_text(size_bytes: int, seconds: float) -> str:
    """`300.0 MiB in 1.2 s (250.0 MiB/s)`."""
    return f"{size_text(size_bytes)} in {seconds:.1f} s ({size_text(size_bytes / max(seconds, 1e-6))}/s)"
