from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.channels import SmsSettings
from edge.sinks import Page, Reply, SinkRejected, SinkUnavailable, Urgency
from edge.sinks.sms import MOST_CHARACTERS, SmsSink, _reading, masked, sms_text
from tests.edge.peers_gammu import SMSD, Smsd

NIGHT, MANAGER = "+447700900123", "+447700900456"
FALL = Page(
    "i1/1/99/sms-1", NIGHT, "FALL? RM 12 BED A", incident="0193510c-0000-7000-8000-0000000004f2", kind="fall"
)
OTHER = Page(
    "i2/1/99/sms-1", NIGHT, "FALL? RM 14", incident="0193510c-0000-7000-8000-0000000009a1", kind="help-button"
)
BY_NIGHT = Reply(FALL.page_id, FALL.incident, by="sms to 99", acknowledges=True)
needs_smsd = pytest.mark.skipif(SMSD is None, reason="the Debian package gammu-smsd is not installed")


def sink(smsd: Smsd, **more: Any) -> SmsSink:
    given = {"rc_file": str(smsd.rc), "addresses": {"99": NIGHT, "0": MANAGER}, "sent_wait_s": 5.0, **more}
    return SmsSink("sms-1", SmsSettings(**given))


@pytest.fixture
def smsd(tmp_path: Path) -> Iterator[Smsd]:
    with Smsd(tmp_path) as smsd:
        yield smsd


@pytest.fixture
def idle(tmp_path: Path) -> Smsd:
    """Its folders and settings, and no daemon."""
    return Smsd(tmp_path)


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into the inbox often."""
    monkeypatch.setattr("edge.sinks.sms._LOOK_S", 0.1)


def put(smsd: Smsd, number: str, text: str | bytes, *, age_s: float = 0.0, serial: int = 0) -> Path:
    """Put a message into the inbox as smsd does."""
    path = smsd.inbox / f"IN20261123_014156_{serial:02}_{number}_00.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    now = time.time()
    os.utime(path, (now - age_s, now - age_s))
    return path


def opened(smsd: Smsd, *pages: Page, **more: Any) -> SmsSink:
    """A sink that sent some pages."""
    made = sink(smsd, **more)
    for page in pages:
        made._note_open(page)
    return made


def heard(sms: SmsSink, wake: int, within_s: float = 6.0) -> list[Reply]:
    """Listen as the worker does, until something is heard."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if replies := sms.listen(wake, 0.5):
            return replies
    return []


# -- out ------------------------------------------------------------------------------------------


@needs_smsd
def test_a_page_goes_out_as_a_message(smsd: Smsd) -> None:
    sms = sink(smsd)
    sms.check()
    sms.deliver(FALL)
    assert smsd.texts(smsd.sent) == [(NIGHT, "FALL? RM 12 BED A Reply OK 4F2")]
    sms.check()


@pytest.mark.alone
@needs_smsd
def test_a_modem_that_hangs_is_no_delivery_and_the_page_goes_once_it_is_back(smsd: Smsd) -> None:
    sms = sink(smsd, sent_wait_s=0.5)
    smsd.freeze()
    for _ in range(3):  # as the escalation tries again
        begun_s = time.monotonic()
        with pytest.raises(SinkUnavailable, match=r"the modem has not sent it within 0\.5 s"):
            sms.deliver(FALL)
        assert time.monotonic() - begun_s < 1.5
    assert len(list(smsd.outbox.iterdir())) == 1
    with pytest.raises(SinkUnavailable, match="the modem sends nothing: 1 messages wait"):
        sms.check()
    smsd.thaw()
    time.sleep(2)
    sms.deliver(FALL)  # it went meanwhile: this is known, not done again
    assert len(smsd.texts(smsd.sent)) == 1
    sms.check()


@needs_smsd
def test_a_modem_that_comes_back_sends_the_newest_page_of_each_incident(smsd: Smsd) -> None:
    sms = sink(smsd, sent_wait_s=0.1)
    smsd.freeze()
    for number in range(2):
        for page in (FALL, replace(FALL, to=MANAGER)):
            with pytest.raises(SinkUnavailable):
                sms.deliver(
                    replace(page, page_id=f"{number}{page.incident}{page.to}", text=f"{page.text} {number}")
                )
    assert [text[-15:-13] for _, text in smsd.texts(smsd.outbox)] == [" 1"] * 2


@needs_smsd
def test_a_message_that_the_modem_could_not_send_is_unavailable(smsd: Smsd) -> None:
    smsd.freeze()

    def fail() -> None:
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s and not list(smsd.error.iterdir()):
            for path in smsd.outbox.iterdir():
                path.rename(smsd.error / path.name)
            time.sleep(0.02)

    failing = threading.Thread(target=fail)
    failing.start()
    with pytest.raises(SinkUnavailable, match="the modem could not send it"):
        sink(smsd).deliver(FALL)
    failing.join()


@needs_smsd
def test_a_message_that_somebody_took_away_is_no_delivery(smsd: Smsd) -> None:
    smsd.freeze()
    clearing = threading.Timer(0.3, lambda: shutil.rmtree(smsd.outbox))
    clearing.start()
    with pytest.raises(SinkUnavailable, match="disappeared"):
        sink(smsd).deliver(FALL)
    clearing.join()


@needs_smsd
def test_a_daemon_that_does_not_run_that_died_or_that_has_no_modem_is_told_apart(tmp_path: Path) -> None:
    smsd = Smsd(tmp_path)
    with pytest.raises(SinkUnavailable, match="does not run"):
        sink(smsd).check()
    smsd.start()
    sink(smsd).check()
    smsd.kill()
    with pytest.raises(SinkUnavailable, match="gammu-smsd has died"):
        sink(smsd).check()
    with smsd:  # ended in order it leaves no shared memory behind
        sink(smsd).check()
    (tmp_path / "other").mkdir()
    with (
        Smsd(tmp_path / "other", modem=False) as without,
        pytest.raises(SinkUnavailable, match="no modem answers gammu-smsd"),
    ):
        sink(without).check()


@needs_smsd
def test_a_message_waits_in_the_outbox_of_a_daemon_that_does_not_run(idle: Smsd) -> None:
    with pytest.raises(SinkUnavailable, match="has not sent it within"):
        sink(idle, sent_wait_s=0.2).deliver(FALL)
    assert idle.texts(idle.outbox) == [(NIGHT, "FALL? RM 12 BED A Reply OK 4F2")]


def test_a_machine_without_gammu_is_unavailable(idle: Smsd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(idle.inbox))
    for call in (sink(idle).check, lambda: sink(idle).deliver(FALL)):
        with pytest.raises(SinkUnavailable, match=r"is not installed \(package gammu-smsd\)"):
            call()


@pytest.mark.parametrize("program", ["exit 1", "echo; exit 0", "echo 'a;b;c'", "head -c 5000000 /dev/zero"])
def test_programs_that_say_something_else_are_unavailable(
    idle: Smsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("gammu-smsd-inject", "gammu-smsd-monitor"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for call in (sink(idle).check, lambda: sink(idle).deliver(FALL)):
        with pytest.raises(SinkUnavailable, match="gammu-smsd"):
            call()


def test_a_program_that_hangs_is_ended(idle: Smsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gammu-smsd-monitor").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "bin" / "gammu-smsd-monitor").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("edge.sinks.sms._COMMAND_S", 0.3)
    with pytest.raises(SinkUnavailable, match="did not end well"):
        sink(idle).check()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("service = files", "service = sql", "needs service = files"),
        ("[smsd]", "[other]", "needs service = files"),
        ("errorsmspath", "#errorsmspath", "errorsmspath needs a folder of its own"),
        ("/error/", "/sent/", "errorsmspath needs a folder of its own"),
        ("/outbox/", "/outbox", "outboxpath needs a folder of its own"),
        ("[smsd]", "[smsd]\ninboxformat = Detail", "inboxformat = standard"),
        ("[gammu]", "gammu", "cannot be read"),
    ],
)
def test_settings_of_smsd_that_leave_open_what_becomes_of_a_message_are_told(
    idle: Smsd, old: str, new: str, reason: str
) -> None:
    text = idle.rc.read_text()
    assert old in text
    idle.rc.write_text(text.replace(old, new))
    for call in (sink(idle).check, lambda: sink(idle).deliver(FALL)):
        with pytest.raises(SinkUnavailable, match=reason):
            call()


@pytest.mark.parametrize("page", [replace(FALL, to="99"), replace(FALL, to="-f"), replace(FALL, text=" ")])
def test_a_page_without_number_or_text_is_rejected(idle: Smsd, page: Page) -> None:
    with pytest.raises(SinkRejected):
        sink(idle).deliver(page)
    assert not list(idle.outbox.iterdir())


def test_only_what_a_person_can_take_asks_for_an_answer() -> None:
    assert sms_text(FALL, replies=True) == "FALL? RM 12 BED A Reply OK 4F2"
    assert sms_text(replace(FALL, drill=True), replies=True).endswith(" Reply OK 4F2")  # a rehearsal is answered
    for page in (replace(FALL, cancel=True), replace(FALL, kind="blind"), Page("t", NIGHT, "FALL? RM 12 BED A")):
        assert sms_text(page, replies=True) == "FALL? RM 12 BED A"
    assert sms_text(FALL, replies=False) == "FALL? RM 12 BED A"


@given(text=st.text(max_size=300), cancel=st.booleans())
def test_any_text_fits_one_message(text: str, cancel: bool) -> None:
    made = sms_text(replace(FALL, text=text, cancel=cancel), replies=True)
    assert len(made) <= MOST_CHARACTERS
    assert all(" " <= char <= "~" and char not in "`[]{}\\|^~" for char in made)
    assert cancel or made.endswith(" Reply OK 4F2")


# -- in -------------------------------------------------------------------------------------------


@needs_smsd
def test_ok_with_the_code_takes_the_call(smsd: Smsd, wake: int) -> None:
    sms = sink(smsd)
    sms.deliver(FALL)
    sms.deliver(OTHER)
    smsd.receive(NIGHT, "ok 4f2")
    assert heard(sms, wake) == [BY_NIGHT]
    assert not list(smsd.inbox.glob("IN*"))  # moved, so that it is not taken up once more
    assert len(list((smsd.inbox / "fallwatch").iterdir())) == 1
    assert heard(sms, wake, 0.4) == []
    sms.deliver(FALL)
    smsd.receive(NIGHT, "OK 4F2")  # smsd gives the file the name of the one before
    assert heard(sms, wake) == [BY_NIGHT]


@needs_smsd
def test_ok_alone_is_asked_back_when_it_could_mean_two(smsd: Smsd, wake: int) -> None:
    sms = sink(smsd)
    sms.deliver(FALL)
    sms.deliver(OTHER)
    smsd.receive(NIGHT, "OK")
    until_s = time.monotonic() + 10
    while (NIGHT, "Which? Reply OK 4F2 or OK 9A1") not in smsd.texts(smsd.sent):
        assert sms.listen(wake, 0.2) == []
        assert time.monotonic() < until_s
    smsd.receive(NIGHT, "Ok 9A1.")
    (reply,) = heard(sms, wake)
    assert reply.incident == OTHER.incident
    smsd.receive(NIGHT, "OK")  # now it is clear
    assert heard(sms, wake) == [BY_NIGHT]


def test_ok_alone_takes_the_only_call_to_that_number(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL, replace(OTHER, to=MANAGER))
    put(idle, NIGHT, "OK")
    assert heard(sms, wake) == [BY_NIGHT]


@needs_smsd
def test_ok_alone_means_no_call_of_long_ago(idle: Smsd, wake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sms = opened(idle, FALL)
    monkeypatch.setattr("edge.sinks.sms._LATELY_S", 0.1)
    time.sleep(0.2)
    put(idle, NIGHT, "OK")
    assert heard(sms, wake, 0.4) == []
    assert idle.texts(idle.outbox) == [(NIGHT, "Which? Reply OK 4F2")]
    put(idle, NIGHT, "OK 4F2", serial=1)
    assert heard(sms, wake) == [BY_NIGHT]


def test_ok_alone_that_was_written_before_the_page_means_another(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL, replies=True)
    sms._asked_s[NIGHT] = time.monotonic()  # it was asked just now
    put(idle, NIGHT, "OK", age_s=60)
    assert heard(sms, wake, 0.4) == []


def test_an_answer_from_before_the_start_counts_for_ten_minutes(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL, OTHER)
    put(idle, NIGHT, "OK 9A1", age_s=700)
    assert heard(sms, wake, 0.4) == []
    put(idle, NIGHT, "OK 4F2", age_s=500, serial=1)
    assert heard(sms, wake) == [BY_NIGHT]


def test_a_message_of_an_unknown_number_is_left_alone_and_counted_once(
    idle: Smsd, wake: int, caplog: pytest.LogCaptureFixture
) -> None:
    sms = opened(idle, FALL)
    left = put(idle, "+447700900999", "OK 4F2")
    with caplog.at_level(logging.DEBUG):
        assert heard(sms, wake, 0.5) == []
    assert sms.ignored_replies == 1
    assert left.exists()
    assert "900999" not in caplog.text


def test_a_manager_may_take_a_call_that_went_to_others_by_its_code(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL)
    put(idle, MANAGER, "OK 4F2")
    assert heard(sms, wake) == [replace(BY_NIGHT, by="sms to 0")]


def test_two_calls_with_one_code_are_taken_one_after_the_other(idle: Smsd, wake: int) -> None:
    twin = replace(FALL, incident="0193510c-0000-7000-8000-00000000a4f2", page_id="twin")
    sms = opened(idle, FALL, twin)
    put(idle, NIGHT, "OK 4F2")
    assert [reply.page_id for reply in heard(sms, wake)] == ["twin"]
    put(idle, NIGHT, "OK 4F2", serial=1)
    assert heard(sms, wake) == [BY_NIGHT]


@needs_smsd
def test_what_asks_for_no_answer_cannot_be_taken(smsd: Smsd, wake: int) -> None:
    sms = sink(smsd)
    sms.deliver(replace(FALL, kind="blind"))
    sms.deliver(Page("t", NIGHT, "TEST"))
    put(smsd, NIGHT, "OK")
    put(smsd, NIGHT, "OK 4F2", serial=1)
    assert heard(sms, wake, 0.4) == []
    assert len(smsd.texts(smsd.sent)) == 2  # nobody was asked which
    assert not smsd.texts(smsd.outbox)


@needs_smsd
def test_a_withdrawn_call_cannot_be_taken(smsd: Smsd, wake: int) -> None:
    sms = sink(smsd)
    sms.deliver(FALL)
    sms.deliver(replace(FALL, page_id="c", text="CANCELLED FALL? RM 12", urgency=Urgency.NORMAL, cancel=True))
    put(smsd, NIGHT, "OK 4F2")
    assert heard(sms, wake, 0.4) == []
    assert [text for _, text in smsd.texts(smsd.sent)][-1] == "CANCELLED FALL? RM 12"


def test_without_replies_nothing_is_read(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL, replies=False)
    left = put(idle, NIGHT, "OK 4F2")
    assert heard(sms, wake, 0.4) == []
    assert left.exists()


def test_a_file_that_cannot_be_moved_is_taken_up_once(
    idle: Smsd, wake: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (idle.inbox / "fallwatch").write_text("in the way")
    sms = opened(idle, FALL)
    put(idle, NIGHT, "OK 4F2")
    assert heard(sms, wake) == [BY_NIGHT]
    sms._note_open(FALL)
    assert heard(sms, wake, 0.5) == []


def test_a_file_that_cannot_be_read_keeps_nobody_from_the_others(
    idle: Smsd, wake: int, caplog: pytest.LogCaptureFixture
) -> None:
    sms = opened(idle, FALL)
    (idle.inbox / f"IN20261122_000000_00_{NIGHT}_00.txt").mkdir()
    put(idle, NIGHT, "OK 4F2")
    assert heard(sms, wake) == [BY_NIGHT]
    assert heard(sms, wake, 0.5) == []
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


def test_a_file_that_is_being_written_is_read_once_it_is_there(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL)
    put(idle, NIGHT, "")
    assert sms.listen(wake, 0.0) == []
    put(idle, NIGHT, "OK 4F2")
    assert heard(sms, wake) == [BY_NIGHT]


def test_an_inbox_that_is_gone_is_told_by_check_and_not_by_listening(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL)
    shutil.rmtree(idle.inbox)
    begun_s = time.monotonic()
    assert sms.listen(wake, 0.5) == []
    assert time.monotonic() - begun_s > 0.45  # it does not spin


@pytest.mark.alone
def test_a_queued_page_ends_the_waiting_at_once(idle: Smsd, wake: int) -> None:
    os.eventfd_write(wake, 1)
    begun_s = time.monotonic()
    assert opened(idle, FALL).listen(wake, 5.0) == []
    assert time.monotonic() - begun_s < 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("OK 4F2", "4F2"),
        (" ok4f2 ", "4F2"),
        ("Ok, 4f2 on my way", "4F2"),
        ("OK", ""),
        ("ok!", ""),
        ("OK thanks", "?"),
        ("OK 4F2A", "?"),
        ("Not OK 4F2", None),
        ("4F2", None),
        ("okay", None),
        ("", None),
    ],
)
def test_what_an_answer_says(text: str, code: str | None) -> None:
    assert _reading(text) == code


@given(octets=st.binary(max_size=60) | st.text("OK 4F2,9A1", max_size=8).map(str.encode))
def test_any_octets_in_a_message_take_no_call_that_they_do_not_name(octets: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        smsd = Smsd(Path(folder))
        sms = opened(smsd, FALL, OTHER)
        sms._asked_s[NIGHT] = time.monotonic()  # nobody is asked back
        put(smsd, NIGHT, octets)
        replies = sms._heard()
    text = octets.decode("utf-16" if octets[:2] in {b"\xfe\xff", b"\xff\xfe"} else "utf-8", "replace").upper()
    assert all(reply.incident[-3:].upper() in text and "OK" in text for reply in replies)


def test_the_next_message_may_have_the_name_of_the_one_before(idle: Smsd, wake: int) -> None:
    sms = opened(idle, FALL, OTHER)
    put(idle, NIGHT, "OK 4F2")
    assert heard(sms, wake) == [BY_NIGHT]
    put(idle, NIGHT, "OK 9A1")
    assert [reply.incident for reply in heard(sms, wake)] == [OTHER.incident]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_both_forms_of_smsds_files_are_read(idle: Smsd, wake: int, encoding: str) -> None:
    sms = opened(idle, FALL)
    put(idle, NIGHT, "OK 4F2".encode(encoding))
    assert heard(sms, wake) == [BY_NIGHT]


def test_what_is_remembered_is_bounded(idle: Smsd) -> None:
    sms = sink(idle)
    for number in range(300):
        page = replace(FALL, incident=f"i{number}", page_id=f"p{number}")
        sms._note_open(page)
        sms._waiting[page.page_id] = "gone"
        sms._replace_older(page, sms._read_folders())
    assert (len(sms._open), len(sms._waiting), len(sms._newest)) == (200, 200, 200)


def test_no_number_is_told_but_its_last_three_digits() -> None:
    assert masked("to +447700900123") == "to +*********123"
    assert masked("07700 900-123, 12") == "***** ***-123, 12"
