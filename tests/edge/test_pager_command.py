from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import EspaSettings
from edge.cli.pager import named
from edge.runfile import write_runfile
from edge.sinks.espa import EspaPager
from edge.sinks.espa_station import EspaStation
from tests.edge.in_process import run_here
from tests.edge.tap_terminal import Terminal

HOME = """
[home]
id = "site-7"

[escalation]
groups = ["12", "20"]
"""


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.out)
        return said


@dataclass
class Home:
    """A home with one pager system, and what its pagers show."""

    folder: Path
    station: EspaStation
    told: list[tuple[str, ...]]
    fallwatch: Callable[..., Ended]
    pagers: list[str] = field(default_factory=list)

    def pager(self, **keys: object) -> None:
        keys = {"port": self.station.port, "ack_wait_s": 0.2, "attempts": 1, **keys}
        self.pagers.append(tomlkit.dumps({"pager": [keys]}))

    def run(self, *arguments: object) -> Ended:
        config = self.folder / "fallwatch.toml"
        config.write_text("\n".join([HOME, *self.pagers]), encoding="utf-8")
        return self.fallwatch("--config", config, "--run", self.folder, "pager", *arguments)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Home]:
    told: list[tuple[str, ...]] = []
    with EspaStation.on_pty(tmp_path / "pager", lambda *page: told.append(page)) as station:
        yield Home(tmp_path, station, told, lambda *words: Ended(*run_here(monkeypatch, capsys, *words)))


def test_a_test_page_reaches_the_pager(home: Home) -> None:
    home.pager()
    ended = home.run("test")
    assert ended.status == 0
    assert len(home.told) == 1
    pager, text, call_type, priority = home.told[0]
    assert (pager, call_type, priority) == ("12", "3", "1")  # as urgent as an alarm
    assert text.startswith("TEST SITE-7 ")
    assert time.strptime(text[-5:], "%H:%M")
    assert f"espa-1 took '{text}' for 12 in 0." in ended.out
    assert "Next: see that the pager of group 12" in ended.out


def test_words_and_group_are_the_callers_choice(home: Home) -> None:
    home.pager(addresses={"20": "2071"})
    assert home.run("test", "--to", "20", "--text", "HELLO").status == 0
    assert home.told == [("2071", "HELLO", "3", "1")]


def test_a_trace_shows_every_octet_with_its_name(home: Home) -> None:
    home.pager()
    rows = [row for row in home.run("test", "--text", "HELLO", "--trace").out.splitlines() if " ms  " in row]
    sent = "01 31 02 31 1f 31 32 1e 32 1f 48 45 4c 4c 4f 1e"
    assert [row.split(" ms  ")[1].split("  ", maxsplit=1) for row in rows] == [
        ["tx", f"{'31 05 32 05':<48} 1<ENQ>2<ENQ>"],
        ["rx", f"{'06':<48} <ACK>"],
        ["tx", f"{sent:<48} <SOH>1<STX>1<US>12<RS>2<US>HELLO<RS>"],
        ["rx", f"{'06':<48} <ACK>"],
        ["tx", f"{'04':<48} <EOT>"],
    ]
    times_ms = [float(row.split(" ms ")[0]) for row in rows]
    assert times_ms == sorted(times_ms)


@given(octets=st.binary())
def test_names_are_printable_and_tell_octets_apart(octets: bytes) -> None:
    assert named(octets).isascii()
    assert named(octets).isprintable()
    assert len({named(bytes((octet,))) for octet in range(256)}) == 256


def test_programs_get_a_document(home: Home) -> None:
    home.pager(name="nurses")
    document = home.run("test", "nurses", "--text", "HELLO", "--trace", "--json").document
    assert document.pop("took_s") < 5.0
    trace = document.pop("trace")
    assert document == {
        "channel": "nurses",
        "kind": "espa444",
        "group": "12",
        "to": "12",
        "text": "HELLO",
        "accepted": True,
        "reason": "",
        "next": "",
    }
    assert trace[1] == {"at_ms": trace[1]["at_ms"], "way": "rx", "hex": "06", "text": "<ACK>"}


def test_a_page_that_is_not_taken_says_why_and_what_to_do(home: Home) -> None:
    home.pager()
    home.station.silent = True
    ended = home.run("test")
    assert ended.status == 1
    assert "espa-1 did NOT take 'TEST" in ended.out
    assert "no answer to the select within 0.2 s" in ended.out
    assert "Next: compare cable, port, baud" in ended.out
    document = home.run("test", "--json").document
    assert (document["accepted"], document["reason"]) == (False, "no answer to the select within 0.2 s")


def test_a_refused_number_is_told_from_a_bad_line(home: Home) -> None:
    terminal = Terminal(block_code="511", block_answer="\x1e")
    with terminal.on_tcp() as url:
        home.pagers.append(f'[[pager]]\nkind = "tap"\nurl = "{url}"\n')
        ended = home.run("test")
    assert ended.status == 1
    assert "no pager has this number (code 511)" in ended.out
    assert "Next: ask whoever looks after the far end for a number it knows" in ended.out


def test_a_line_that_the_alarm_service_holds_is_explained(home: Home) -> None:
    home.pager()
    home.pager(name="second")

    service = EspaPager("espa-1", EspaSettings(port=home.station.port))  # as the alarm service has it open
    service.check()
    ended = home.run("test", "espa-1")
    assert ended.status == 1
    assert "another program has it" in ended.out
    assert "sudo fuser" in ended.out
    write_runfile(home.folder / "alarm.json", {})
    for act in (["test", "espa-1"], ["listen", "espa-1", "--seconds", "0.2"]):
        ended = home.run(*act)
        assert ended.status == 1
        said = ended.out + ended.err
        assert "the alarm service holds the line. Stop it (sudo systemctl stop fallwatch-alarm)" in said
        assert "test_at" in said
    service.close()
    assert home.told == []


def test_a_serial_server_that_the_alarm_service_uses_too_is_warned_of(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, ...]] = []
    with EspaStation.on_tcp(lambda *page: told.append(page)) as station:
        home.pager(port="", url=station.url)
        write_runfile(home.folder / "alarm.json", {})
        assert home.run("test").status == 0
    assert "the alarm service is connected to espa-1 too" in caplog.text
    assert len(told) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test"], "which pager line? Name one of espa-1, espa-2"),
        (["test", "espa-3"], "there is no pager line 'espa-3'; name one of espa-1, espa-2"),
        (["listen", "espa-3"], "there is no pager line 'espa-3'"),
        (["test", "espa-2", "--to", "12"], "espa-2 calls no group 12: give --to one of 20"),
        (["test", "espa-1", "--text", " "], "--text is empty"),
    ],
)
def test_bad_usage_is_said_in_a_line(home: Home, arguments: list[str], words: str) -> None:
    home.pager()
    home.pager(groups=["20"])
    ended = home.run(*arguments)
    assert ended.status == 2
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1
    assert home.told == []


def test_a_home_without_pagers_is_told_so(home: Home) -> None:
    ended = home.run("test")
    assert ended.status == 2
    assert "there is no [[pager]] yet" in ended.err


def test_long_numbers_are_not_shown_whole(home: Home) -> None:
    home.pager(addresses={"12": "0770090012345"})
    ended = home.run("test")
    assert "for **********345 in" in ended.out
    assert home.told[0][0] == "0770090012345"


def test_a_channel_of_another_kind_is_tested_too(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def serve() -> None:
        with server.accept()[0] as caller:
            while b"\r\n\r\n" not in (heard[-1] if heard else b""):
                heard.append(caller.recv(4096))
            caller.sendall(b"HTTP/1.1 204 Done\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/fallwatch"
        home.pagers.append(f'[[pager]]\nkind = "webhook"\nurl = "{url}"\n')
        ended = home.run("test", "--trace")
        thread.join()
    assert ended.status == 0, ended
    assert heard[0].startswith(b"POST /fallwatch")
    assert "is no line, so it has no trace" in caplog.text


def test_listening_shows_the_polls_of_a_controlling_pager_system(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.sinks.espa_station._ANSWER_S", 0.1)  # it begins to poll before anybody is there
    home.pager(variant="slave")
    home.station.polls_every_s = 0.1
    ended = home.run("listen", "--seconds", "0.7", "--trace")
    assert ended.status == 0
    assert ended.out.count("1<ENQ>") >= 3
    assert ended.out.count("<EOT>") >= 3
    assert "octets came within 0.7 s." in ended.out
    ended = home.run("listen", "--seconds", "0.3", "--trace", "--json")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert {line["way"] for line in lines} == {"rx", "tx"}


def test_listening_shows_what_the_pager_system_says(home: Home) -> None:
    home.pager(system_status_fails=["1"])
    threading.Timer(0.5, home.station.tell, ([("8", "1")],)).start()
    ended = home.run("listen", "--seconds", "1.5", "--trace")
    assert ended.status == 0
    assert "<SOH>2<STX>8<US>1<ETX>" in ended.out


def test_listening_to_what_says_nothing_is_refused(home: Home) -> None:
    home.pagers.append('[[pager]]\nkind = "webhook"\nurl = "http://127.0.0.1:9/"\n')
    ended = home.run("listen")
    assert ended.status == 2
    assert "webhook-1 hears nothing" in ended.err
