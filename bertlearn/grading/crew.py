"""Several judges side by side, each in a process of its own; one that dies is replaced.

The parent needs no torch: it hands out paths and takes reports, a line of JSON each. A judge ends
when its input ends, so none outlives the parent by more than the notebook it is at.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertlearn.grading.errors import GraderError
from bertlearn.grading.folders import new_folder, remove

__all__ = ["Crew"]

SECONDS = 900.0  # for one notebook, above all limits within it
COMMAND = (sys.executable, "-m", "bertlearn.grading.crew")
PARTING = 5.0  # seconds in which a judge that is told to end may clean up


class _Gone(Exception):
    """A judge's process has ended; the message says how."""


class _Judge:
    """One process that grades notebook after notebook."""

    def __init__(self, environment: dict[str, str], seconds: float):
        self.seconds = seconds
        self.overdue = False
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's alone
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One notebook's verdict.

        Raises:
            _Gone: if the process ends over it, or does not answer in time.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(self.seconds, self._expire)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            if line.endswith(b"\n"):
                return dict(json.loads(line))
        except OSError:
            pass
        except (ValueError, TypeError):
            raise _Gone("the grader's process sent what is no verdict") from None
        finally:
            timer.cancel()
        raise _Gone(self._how())

    def _expire(self) -> None:
        self.overdue = True
        self.end()

    def _how(self) -> str:
        if self.overdue:
            return f"it took longer than {self.seconds:g} s in all and was stopped"
        status = self.process.wait()
        said = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        self.errors.seek(0)
        lines = self.errors.read(1 << 20).decode("utf-8", "replace").strip().splitlines()
        return f"the grader's process ended ({said}{': ' + lines[-1] if lines else ''})"

    def end(self) -> None:
        """Let it clean up, then end it."""
        self.process.terminate()
        try:
            self.process.wait(PARTING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """End it and close what was open to it."""
        self.end()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


class Crew:
    """Judges at work, as a context: when it is left, none is there any more.

    Args:
        jobs: how many.
        seconds: for one notebook.
    """

    def __init__(self, jobs: int, seconds: float = SECONDS):
        self.jobs, self.seconds = jobs, seconds
        self.stopping = False
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.done: queue.SimpleQueue = queue.SimpleQueue()
        self.judges: set[_Judge] = set()
        self.threads: list[threading.Thread] = []
        self.lock = threading.Lock()

    def __enter__(self) -> Crew:
        self.scratch = new_folder()
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.stopping = True
            left = list(self.judges)
        for judge in left:  # all at once, then each is waited for
            judge.process.terminate()
        for judge in left:
            judge.end()
        for thread in self.threads:
            thread.join()
        remove(self.scratch)

    def grade(self, requests: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Verdicts as they come, each with the place of its request.

        A verdict has a ``status``: "graded" with the ``report``, "unreadable" or "failed" (the
        grader's own fault) with the ``reason``.

        Raises:
            GraderError: if no judge comes to life.
        """
        for place, request in enumerate(requests):
            self.waiting.put((place, request))
        for _ in range(min(self.jobs, len(requests))):
            self.waiting.put(None)
            self.threads.append(threading.Thread(target=self._work, daemon=True))
            self.threads[-1].start()
        for _ in requests:
            place, verdict = self.done.get()
            if place is None:
                raise GraderError(verdict["reason"])
            yield place, verdict

    def _work(self) -> None:
        """Own a judge, hand it notebook after notebook."""
        judge = None
        while (task := self.waiting.get()) is not None and not self.stopping:
            place, request = task
            for attempt in (1, 2):
                try:
                    judge = judge or self._hire()
                except _Gone as gone:
                    self.done.put((None, {"reason": str(gone)}))
                    return
                if judge is None:
                    return
                try:
                    verdict = judge.ask(request)
                except _Gone as gone:
                    verdict = {"status": "failed", "reason": str(gone)}
                final = judge.overdue or attempt == 2
                if verdict.get("status") == "failed":  # of what is left of it nothing is known
                    self._dismiss(judge)
                    judge = None
                else:
                    final = True
                if final:
                    self.done.put((place, verdict))
                    break
        if judge is not None:
            self._dismiss(judge)

    def _hire(self) -> _Judge | None:
        """A judge that has said it is ready; None once we are stopping."""
        environment = {**os.environ, "TMPDIR": str(self.scratch), "TEMP": str(self.scratch)}
        environment["OMP_NUM_THREADS"] = "1"
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), *filter(None, [os.getenv("PYTHONPATH")])]
        )
        with self.lock:
            if self.stopping:
                return None
            judge = _Judge(environment, self.seconds)
            self.judges.add(judge)
        try:
            judge.ask({"ready": True})
        except _Gone:
            self._dismiss(judge)
            raise
        return judge

    def _dismiss(self, judge: _Judge) -> None:
        judge.close()
        with self.lock:
            self.judges.discard(judge)


# ---- in the judge's process -------------------------------------------------------------
def main() -> None:
    """Answer each line of JSON on standard input by one on standard output."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # nothing else may speak there
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from bertlearn.grading.client import Limits
    from bertlearn.grading.errors import NotebookError
    from bertlearn.grading.judge import grade

    if "ready" in request:
        return {"ready": True}
    try:
        report = grade(request["path"], request["seed"], Limits(**request["limits"]))
    except NotebookError as error:
        return {"status": "unreadable", "reason": str(error)}
    except Exception as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return {"status": "graded", "report": report.to_dict()}


if __name__ == "__main__":
    main()
