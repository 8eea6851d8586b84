"""The stop watch: one bench-probe process, asked line by line."""
import os
import select
import subprocess
import time

ANSWER_S = 120


class ProbeError(Exception):
    pass


class Probe:
    """Restarts after an answer that never came, so that one hang costs one sample."""

    def __init__(self, path, env=None):
        self.path, self.env, self.run_dir = str(path), env, None
        self.process, self.buf = None, b""

    def _start(self):
        self.process = subprocess.Popen([self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=self.env)
        self.buf = b""
        if self.run_dir:
            self._answer("connect", self.run_dir)

    def _line(self):
        end = time.monotonic() + ANSWER_S
        while b"\n" not in self.buf:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                self.close()
                raise ProbeError(f"no answer within {ANSWER_S} s")
            got = os.read(self.process.stdout.fileno(), 65536)
            if not got:
                self.close()
                raise ProbeError("bench-probe ended unexpectedly")
            self.buf += got
        line, _, self.buf = self.buf.partition(b"\n")
        return line.decode(errors="replace")

    def _answer(self, *fields):
        self.process.stdin.write(("\t".join(fields) + "\n").encode())
        self.process.stdin.flush()
        kind, *rest = self._line().split("\t")
        if kind != "ok":
            raise ProbeError(" ".join(rest))
        return dict(f.partition("=")[::2] for f in rest)

    def ask(self, *fields):
        """The answer's key=value fields. Raises ProbeError with the sentence of a failure."""
        texts = [str(f) for f in fields]
        if any(c in t for t in texts for c in "\t\n"):
            raise ProbeError("a field holds a tab or a line break")
        if self.process is None:
            self._start()
        return self._answer(*texts)

    def connect(self, run_dir):
        """To the daemon of this run directory, which is started if it isn't there."""
        self.ask("connect", run_dir)
        self.run_dir = str(run_dir)

    def first_output_ms(self, argv, timeout_ms=20000):
        """Milliseconds from starting @argv to its first byte; it must succeed and say something."""
        got = self.ask("spawn", timeout_ms, *argv)
        if got["status"] != "0" or got["bytes"] == "0":
            raise ProbeError(got["text"] or f"exit status {got['status']}, no output")
        return float(got["first_us"]) / 1000

    def whole_ms(self, argv, timeout_ms=20000):
        """Milliseconds from starting @argv to its end."""
        got = self.ask("spawn", timeout_ms, *argv)
        if got["status"] != "0":
            raise ProbeError(got["text"] or f"exit status {got['status']}")
        return float(got["end_us"]) / 1000

    def close(self):
        p, self.process = self.process, None
        if p is None:
            return
        p.stdin.close()
        try:
            p.wait(2)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
        p.stdout.close()
