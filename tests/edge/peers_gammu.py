"""gammu-smsd (Debian package of that name) with gammu's dummy modem, as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

SMSD = shutil.which("gammu-smsd")

_RECEIVED = """; made by a test

[SMSBackup000]
PDU = Deliver
DateTime = 20261123T014156Z
State = UnRead
Number = "{number}"
NumberUnicode = {number_hex}
Name = ""
NameUnicode =
Text00 = {text_hex}
Coding = Default_No_Compression
Folder = 1
Length = {length}
Class = -1
ReplySMSC = False
RejectDuplicates = False
ReplaceMessage = 0
MessageReference = 0
"""


class Smsd:
    """A daemon and its folders; ``modem=False`` gives it one that is not there."""

    def __init__(self, folder: Path, *, modem: bool = True, more: str = "") -> None:
        self.rc = folder / "smsdrc"
        self.inbox, self.outbox, self.sent, self.error = (folder / n for n in ("inbox", "outbox", "sent", "error"))
        self._device = folder / "modem"
        for path in (self.inbox, self.outbox, self.sent, self.error, self._device):
            path.mkdir(exist_ok=True)
        self.rc.write_text(
            f"[gammu]\nmodel = dummy\nconnection = none\nport = {self._device if modem else folder / 'no/modem'}\n"
            f"gammuloc = /dev/null\n\n[smsd]\nservice = files\nlogfile = {folder / 'log'}\ncommtimeout = 1\n"
            f"receivefrequency = 1\ninboxpath = {self.inbox}/\noutboxpath = {self.outbox}/\n"
            f"sentsmspath = {self.sent}/\nerrorsmspath = {self.error}/\n{more}"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._received = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        assert SMSD is not None
        self._process = subprocess.Popen(
            [SMSD, "-c", str(self.rc)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        monitor = ["gammu-smsd-monitor", "-c", str(self.rc), "-C", "-n", "1", "-d", "0"]
        until_s = time.monotonic() + 15
        while subprocess.run(monitor, check=False, capture_output=True, timeout=10).returncode:
            assert self._process.poll() is None, "gammu-smsd ended"
            assert time.monotonic() < until_s, "gammu-smsd does not start"
            time.sleep(0.05)
        time.sleep(0.1)  # it finds its modem just after

    def stop(self) -> None:
        """End in order, as that also takes away its shared memory."""
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Have it do nothing, as with a modem that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def receive(self, number: str, text: str) -> None:
        """Have the modem receive a message."""
        self._received += 1
        message = _RECEIVED.format(
            number=number,
            number_hex=number.encode("utf-16-be").hex().upper(),
            text_hex=text.encode("utf-16-be").hex().upper(),
            length=len(text),
        )
        made = self._device / "made"
        made.write_text(message)
        os.replace(made, self._device / "sms" / "1" / str(self._received))

    def texts(self, folder: Path) -> list[tuple[str, str]]:
        """Return number and text of each message in a folder of what went out, by time."""
        found = []
        for path in sorted(folder.iterdir()):
            backup = path.read_text().partition("[SMSBackup000]")[2].partition("[SMSBackup")[0]
            lines = [line.partition(" = ")[::2] for line in backup.splitlines()]
            number = next(value for key, value in lines if key == "Number").strip('"')
            coded = "".join(value for key, value in lines if key.startswith("Text"))
            found.append((number, bytes.fromhex(coded).decode("utf-16-be")))
        return found
