"""sipp (Debian package sip-tester) as an alarm receiving centre, and what stands between it and us."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edge.brokers import free_port

SIPP = shutil.which("sipp")
SCENARIO = Path(__file__).with_name("arc.xml")


class Centre:
    """What sipp was told and how its calls ended; to be read after the messages that it waits for."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def said(self) -> list[str]:
        """Return each mrq that came, and ``answered`` for each 200 OK to an mrs."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def answered(self, times: int) -> bool:
        """Wait until so many of its answers were answered by us."""
        until_s = time.monotonic() + 5
        while self.said().count("answered") < times:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.02)
        return True


@contextmanager
def centre(folder: Path, *, transport: str = "u1", snu: str = "0", wrong: str = "") -> Iterator[Centre]:
    assert SIPP is not None
    port, log = free_port(), folder / "sipp.log"
    command = [SIPP, "-sf", str(SCENARIO), "-p", str(port), "-i", "127.0.0.1", "-t", transport, "-nostdin"]
    command += ["-key", "snu", snu, "-key", "wrong", wrong, "-trace_logs", "-log_file", str(log)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        table = Path("/proc/net") / ("udp" if transport == "u1" else "tcp")
        until_s = time.monotonic() + 15
        while f":{port:04X} 00000000:0000" not in table.read_text(encoding="ascii"):
            assert process.poll() is None, "sipp ended"
            assert time.monotonic() < until_s, "sipp does not listen"
            time.sleep(0.02)
        yield Centre(port, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def lossy(port: int, *, lose_there: int = 0, lose_back: int = 0) -> Iterator[int]:
    """Yield a UDP port that passes datagrams on to ``port`` and back, but for the first few of each way."""
    over = threading.Event()
    lost = {"there": lose_there, "back": lose_back}

    def run(near: socket.socket, far: socket.socket) -> None:
        caller = None
        while not over.is_set():
            for way, end in (("there", near), ("back", far)):
                try:
                    data, source = end.recvfrom(65536)
                except TimeoutError:
                    continue
                if way == "there":
                    caller = source
                if lost[way] > 0:
                    lost[way] -= 1
                elif way == "there":
                    far.sendto(data, ("127.0.0.1", port))
                elif caller is not None:
                    near.sendto(data, caller)

    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        for end in (near, far):
            end.bind(("127.0.0.1", 0))
            end.settimeout(0.02)
        thread = threading.Thread(target=run, args=(near, far))
        thread.start()
        try:
            yield near.getsockname()[1]
        finally:
            over.set()
            thread.join()


@contextmanager
def tls_before(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """Yield a port that speaks TLS and passes one connection on to the TCP ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
        except OSError:
            return

    def run() -> None:
        try:
            connection, _ = server.accept()
            with (
                context.wrap_socket(connection, server_side=True) as near,
                socket.create_connection(("127.0.0.1", port)) as far,
            ):
                back = threading.Thread(target=pump, args=(far, near))
                back.start()
                pump(near, far)
                far.shutdown(socket.SHUT_RDWR)
                back.join()
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            thread.join()
