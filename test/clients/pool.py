"""Runs "runtime serve" over a sample, as a process of its own on free ports of loopback."""

import ctypes
import re
import signal
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "hack" / "samples"
LISTENS = re.compile(r"msg=listening for=(\w+) address=(\S+)")
PORTS = {"http", "grpc", "metrics"}


class Pool:
    """A sample's base model with its adapters, served. Its name is the sample's."""

    def __init__(self, name: str):
        self.name = name
        self.adapters = sorted(path.name for path in (SAMPLES / name / "adapters").iterdir())
        self._log, self._addresses = [], {}
        self._process = subprocess.Popen(
            [
                ROOT / "bin" / "runtime", "serve", "--name", name, "--base-model", SAMPLES / name / "base",
                "--adapters", SAMPLES / name / "adapters", *(f"--{port}-address=127.0.0.1:0" for port in PORTS),
            ],
            stderr=subprocess.PIPE, text=True, preexec_fn=_die_with_parent,
        )
        ready = False
        while not (ready and PORTS <= self._addresses.keys()):
            line = self._read()
            ready = ready or line.endswith("msg=ready\n")
        self._rest = threading.Thread(target=self._read_all)
        self._rest.start()

    @property
    def http(self) -> str:
        """host:port of HTTP."""
        return self._addresses["http"]

    @property
    def grpc(self) -> str:
        """host:port of gRPC."""
        return self._addresses["grpc"]

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    def stop(self) -> None:
        """Ends the process as Kubernetes does. It must leave in peace, and never have had an error of its own."""
        self._process.send_signal(signal.SIGTERM)
        self._rest.join()
        assert self._process.wait() == 0, "".join(self._log)
        assert not [line for line in self._log if "level=ERROR" in line]

    def _read(self) -> str:
        line = self._process.stderr.readline()
        if not line:
            raise RuntimeError(f"the server has ended with {self._process.wait()}:\n{''.join(self._log)}")
        self._log.append(line)
        if found := LISTENS.search(line):
            self._addresses[found[1]] = found[2]
        return line

    def _read_all(self) -> None:
        self._log.extend(self._process.stderr)


def _die_with_parent() -> None:
    PR_SET_PDEATHSIG = 1  # prctl(2)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
