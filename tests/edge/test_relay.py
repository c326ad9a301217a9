from __future__ import annotations

import enum
import inspect
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from edge.alarm.worker import Holder, Listener
from edge.channels import RelaySettings
from edge.sinks import Page, SinkUnavailable, Urgency
from edge.sinks.relay import RelaySink

FALL = Page("p1", "12", "FALL? RM 12 BED A", incident="i1", kind="fall")
OTHER = Page("p2", "12", "FALL? RM 14", incident="i2", kind="fall")
TEST = Page("t1", "12", "TEST")


class Direction(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Value(enum.Enum):
    INACTIVE = 0
    ACTIVE = 1


class RequestReleasedError(Exception):
    pass


@dataclass
class Wanted:
    direction: Direction
    active_low: bool
    output_value: Value


@dataclass
class Chip:
    """A GPIO chip with the part of gpiod's interface that we use; ``level`` is the pin's voltage, None: let go."""

    level: bool | None = None
    levels: list[bool] = field(default_factory=list)
    fault: Exception | None = None
    stuck: bool = False
    requests: int = 0
    line = SimpleNamespace(Direction=Direction, Value=Value)
    LineSettings = Wanted  # as gpiod calls it
    RequestReleasedError = RequestReleasedError

    def request_lines(self, path: str, config: dict[int, Wanted], consumer: str) -> Request:
        if self.fault is not None:
            raise self.fault
        assert (path, list(config), consumer) == ("/dev/gpiochip7", [17], "fallwatch")
        assert config[17].direction is Direction.OUTPUT
        self.requests += 1
        self.set((config[17].output_value is Value.ACTIVE) != config[17].active_low)
        return Request(self, config[17].active_low)

    def set(self, level: bool) -> None:
        self.level = level
        if self.levels[-1:] != [level]:
            self.levels.append(level)


@dataclass
class Request:
    chip: Chip
    active_low: bool
    released: bool = False

    def set_value(self, line: int, value: Value) -> None:
        self._use(line)
        self.chip.set((value is Value.ACTIVE) != self.active_low)

    def get_value(self, line: int) -> Value:
        self._use(line)
        return Value.ACTIVE if (self.chip.level != self.active_low) != self.chip.stuck else Value.INACTIVE

    def _use(self, line: int) -> None:
        assert line == 17
        if self.released:
            raise RequestReleasedError
        if self.chip.fault is not None:
            raise self.chip.fault

    def release(self) -> None:
        self.released = True


@pytest.fixture
def chip() -> Chip:
    return Chip()


def relay(chip: Chip, **more: Any) -> RelaySink:
    return RelaySink("relay-1", RelaySettings(chip="/dev/gpiochip7", line=17, **more), gpio=chip)


@pytest.fixture
def wake() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def test_the_contact_calls_until_the_incident_is_released(chip: Chip) -> None:
    sink = relay(chip)
    sink.check()
    assert chip.level is True  # the coil is held: all is well
    sink.deliver(FALL)
    assert chip.level is False
    sink.release("i1")
    assert chip.level is True


def test_the_contact_stays_in_call_while_any_incident_holds_it(chip: Chip) -> None:
    sink = relay(chip)
    sink.deliver(FALL)
    sink.deliver(OTHER)
    sink.deliver(replace(FALL, page_id="p3"))  # the same incident again
    sink.release("i1")
    assert chip.level is False
    sink.release("i2")
    assert chip.level is True
    assert chip.levels == [False, True]


def test_a_withdrawn_call_lets_go_and_a_technical_one_calls(chip: Chip) -> None:
    sink = relay(chip)
    sink.deliver(replace(FALL, kind="blind", urgency=Urgency.HIGH))
    assert chip.level is False
    sink.deliver(replace(FALL, cancel=True))
    assert chip.level is True


@pytest.mark.parametrize(
    ("fail_safe", "active_low", "well"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, True)],
)
def test_each_way_of_wiring_calls_by_the_opposite_level(
    chip: Chip, fail_safe: bool, active_low: bool, well: bool
) -> None:
    sink = relay(chip, fail_safe=fail_safe, active_low=active_low)
    sink.check()
    assert chip.level is well
    sink.deliver(FALL)
    assert chip.level is not well


def test_a_service_that_ends_leaves_a_fail_safe_contact_in_call(chip: Chip) -> None:
    sink = relay(chip)
    sink.check()
    sink.close()
    assert chip.level is False
    sink.close()  # once more does nothing
    sink.check()  # and it can go on
    assert (chip.level, chip.requests) == (True, 2)


def test_a_service_that_ends_leaves_another_contact_as_it_is(chip: Chip) -> None:
    sink = relay(chip, fail_safe=False)
    sink.check()
    sink.close()
    assert chip.levels == [False]


def test_a_contact_that_was_never_had_is_not_taken_at_the_end(chip: Chip) -> None:
    relay(chip).close()
    assert chip.requests == 0


@pytest.mark.alone
def test_a_test_page_gives_a_pulse_without_keeping_anybody(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=0.3)
    begun_s = time.monotonic()
    sink.deliver(TEST)
    assert time.monotonic() - begun_s < 0.2
    assert chip.level is False
    assert sink.listen(wake, 0.1) == []
    assert chip.level is False
    assert sink.listen(wake, 0.5) == []
    assert chip.level is True
    assert 0.5 < time.monotonic() - begun_s < 1.0  # listening took the time that it was given


def test_a_pulse_does_not_end_a_call(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=0.05)
    sink.deliver(FALL)
    sink.deliver(TEST)
    sink.listen(wake, 0.2)
    assert chip.level is False


def test_in_pulse_mode_each_call_is_a_pulse(chip: Chip, wake: int) -> None:
    sink = relay(chip, mode="pulse", pulse_s=0.1)
    for _ in range(2):
        sink.deliver(FALL)
        assert chip.level is False
        sink.listen(wake, 0.3)
        assert chip.level is True


def test_news_of_an_acknowledged_incident_pulse_and_do_not_latch(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=0.05)
    sink.deliver(FALL)
    sink.release("i1")
    sink.deliver(replace(FALL, page_id="p4", text="FALL? RM 12 MOVING", urgency=Urgency.HIGH))
    assert chip.level is False
    sink.listen(wake, 0.2)
    assert chip.level is True


def test_a_page_that_was_queued_behind_its_release_does_not_latch_for_ever(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=0.05)
    sink.release("i1")
    sink.deliver(FALL)
    sink.listen(wake, 0.2)
    assert chip.level is True


@pytest.mark.alone
def test_a_queued_page_ends_the_waiting_at_once(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=3.0)
    os.eventfd_write(wake, 1)
    begun_s = time.monotonic()
    sink.listen(wake, 5.0)
    sink.deliver(TEST)
    sink.listen(wake, 5.0)
    assert time.monotonic() - begun_s < 1


def test_a_line_that_does_not_read_as_it_was_set_is_no_delivery(chip: Chip) -> None:
    sink = relay(chip)
    chip.stuck = True
    with pytest.raises(SinkUnavailable, match="does not read as it was set"):
        sink.deliver(FALL)
    with pytest.raises(SinkUnavailable, match="does not read as it was set"):
        sink.check()
    chip.stuck = False
    sink.check()
    assert chip.level is False  # the call that could not be shown then is shown now


@pytest.mark.parametrize(
    "fault", [OSError(19, "No such device"), ValueError("no line 17"), RequestReleasedError()]
)
def test_a_line_that_is_gone_is_asked_for_again(chip: Chip, fault: Exception) -> None:
    sink = relay(chip)
    sink.check()
    chip.fault = fault
    with pytest.raises(SinkUnavailable, match="line 17 of /dev/gpiochip7"):
        sink.deliver(FALL)
    with pytest.raises(SinkUnavailable):
        sink.check()
    sink.close()
    chip.fault = None
    sink.check()
    assert (chip.level, chip.requests) == (False, 2)


def test_a_pulse_whose_end_cannot_be_set_is_tried_again(chip: Chip, wake: int) -> None:
    sink = relay(chip, pulse_s=0.05)
    sink.deliver(TEST)
    chip.fault = OSError(5, "Input/output error")
    with pytest.raises(SinkUnavailable):
        sink.listen(wake, 0.2)
    chip.fault = None
    sink.listen(wake, 0.05)
    assert chip.level is True


def test_what_is_remembered_of_incidents_is_bounded(chip: Chip) -> None:
    sink = relay(chip)
    for number in range(700):
        sink.deliver(replace(FALL, incident=f"h{number}"))
        sink.release(f"r{number}")
    assert (len(sink._holds), len(sink._released)) == (500, 500)
    assert chip.level is False


def test_the_worker_hears_it_and_can_release_it(chip: Chip) -> None:
    sink = relay(chip)
    assert isinstance(sink, Holder)
    assert isinstance(sink, Listener)


def test_a_machine_without_such_a_chip_is_unavailable() -> None:
    settings = RelaySettings(chip="/dev/no-such-gpiochip", line=17)
    sink = RelaySink("relay-1", settings)  # the real gpiod, or none
    with pytest.raises(SinkUnavailable, match=r"/dev/no-such-gpiochip|gpiod is not installed"):
        sink.check()


def test_the_real_gpiod_has_what_the_fake_has() -> None:
    gpiod = pytest.importorskip("gpiod", reason="the extra for relays is not installed")
    real = gpiod.line
    assert {real.Direction.OUTPUT, real.Value.ACTIVE, real.Value.INACTIVE}
    settings = gpiod.LineSettings(
        direction=real.Direction.OUTPUT, active_low=True, output_value=real.Value.INACTIVE
    )
    inspect.signature(gpiod.request_lines).bind("/dev/gpiochip7", {17: settings}, consumer="fallwatch")
    inspect.signature(gpiod.LineRequest.set_value).bind(None, 17, real.Value.ACTIVE)
    inspect.signature(gpiod.LineRequest.get_value).bind(None, 17)
    inspect.signature(gpiod.LineRequest.release).bind(None)
    assert issubclass(gpiod.RequestReleasedError, Exception)
    fake = {name for name in vars(Request) if not name.startswith("_")} - {"chip", "active_low", "released"}
    assert fake <= set(dir(gpiod.LineRequest))
    with pytest.raises(OSError, match="No such file"):
        gpiod.request_lines("/dev/no-such-gpiochip", {17: settings}, consumer="fallwatch")
