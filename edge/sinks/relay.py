"""A volt-free contact into a spare input of the nurse-call system, by a GPIO line of this machine.

It says that somebody is to look, not where: the page with the room goes over another channel.
"""

from __future__ import annotations

import select
import time
from typing import Any

from edge.channels import RelaySettings
from edge.sinks import Page, Reply, SinkUnavailable

CONSUMER = "fallwatch"  # as gpioinfo shows who has the line
_INCIDENTS_MOST = 500  # that are remembered


class RelaySink:
    """One contact, in call while any incident holds it, or for the length of a pulse.

    With ``fail_safe`` the coil is held while all is well, so a power cut calls, and so does a cut wire. When
    this process ends in order `close` puts the line into call. When it is killed the kernel takes the line
    back, and what the pin then does is up to the board: some let go of it, which calls; others leave it as
    it was, and the contact stays open until the service is back. Commissioning has to show which, by killing
    the service; where the pin stays, the other channels are what tells.

    Args:
        name: the channel's.
        settings: which line, and how it calls.
        gpio: what does as the module ``gpiod`` does, in its place.
    """

    def __init__(self, name: str, settings: RelaySettings, *, gpio: Any = None) -> None:
        self.name = name
        self._settings = settings
        self._gpio = gpio
        self._request: Any = None
        self._holds: dict[str, None] = {}  # incidents, the oldest first
        self._released: dict[str, None] = {}
        self._pulse_until_s = 0.0

    def deliver(self, page: Page) -> None:
        """Call, or withdraw the call; return once the line reads as it should. Safe to repeat.

        A test page gives a pulse. So does news of an incident that was released: somebody has gone already.

        Raises:
            SinkUnavailable: the line cannot be had, set or read back.
        """
        if page.cancel:
            self.release(page.incident)
            return
        latches = self._settings.mode == "latch" and page.incident and page.kind != "test"
        if latches and page.incident not in self._released:
            self._holds[page.incident] = None
            while len(self._holds) > _INCIDENTS_MOST:
                del self._holds[next(iter(self._holds))]  # the others hold the contact all the same
        else:
            self._pulse_until_s = time.monotonic() + self._settings.pulse_s
        self._apply()

    def release(self, incident: str) -> None:
        """Take away an incident's hold for good; the contact stays in call while others hold it.

        Raises:
            SinkUnavailable: the line cannot be had, set or read back; `check` and `listen` try again.
        """
        self._holds.pop(incident, None)
        self._released[incident] = None
        while len(self._released) > _INCIDENTS_MOST:
            del self._released[next(iter(self._released))]
        self._apply()

    def check(self) -> None:
        """Raise `SinkUnavailable` unless the line is ours and reads as it should."""
        self._apply()

    def listen(self, wake: int, timeout_s: float) -> list[Reply]:
        """Wait until ``wake`` can be read or the time is up, and end a pulse meanwhile; nothing comes back.

        Raises:
            SinkUnavailable: the line does not do what it is told.
        """
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        left_s = self._pulse_until_s - time.monotonic()
        if 0 < left_s < timeout_s:
            if poll.poll(left_s * 1000):
                return []
            timeout_s -= left_s
        if self._pulse_until_s and self._pulse_until_s <= time.monotonic():
            self._apply()
            self._pulse_until_s = 0.0
        poll.poll(timeout_s * 1000)
        return []

    def close(self) -> None:
        """Give the line back, in call if it is fail-safe, else as it is."""
        try:
            if self._settings.fail_safe and self._request is not None:
                self._set(calls=True)
        except SinkUnavailable:  # nothing else can be done here; the board decides
            return
        finally:
            self._drop()

    def _apply(self) -> None:
        self._set(calls=bool(self._holds) or time.monotonic() < self._pulse_until_s)

    def _set(self, *, calls: bool) -> None:
        """Set the line and read it back; one that is gone is asked for again next time."""
        settings = self._settings
        gpio = self._module()
        value = gpio.line.Value.ACTIVE if calls != settings.fail_safe else gpio.line.Value.INACTIVE
        try:
            if self._request is None:
                line = gpio.LineSettings(
                    direction=gpio.line.Direction.OUTPUT, active_low=settings.active_low, output_value=value
                )
                self._request = gpio.request_lines(settings.chip, {settings.line: line}, consumer=CONSUMER)
            self._request.set_value(settings.line, value)
            reads_right = self._request.get_value(settings.line) == value
        except (OSError, ValueError, gpio.RequestReleasedError) as error:
            self._drop()
            raise SinkUnavailable(self.name, f"line {settings.line} of {settings.chip}: {error}") from None
        if not reads_right:
            reason = f"line {settings.line} of {settings.chip} does not read as it was set: a short circuit?"
            raise SinkUnavailable(self.name, reason)

    def _module(self) -> Any:
        if self._gpio is None:
            try:
                import gpiod  # noqa: PLC0415 - an extra, for homes with a contact
                import gpiod.line  # noqa: PLC0415
            except ImportError as error:
                reason = f"the Python package gpiod is not installed ({type(error).__name__})"
                raise SinkUnavailable(self.name, reason) from None
            self._gpio = gpiod
        return self._gpio

    def _drop(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            try:
                request.release()
            except (OSError, self._module().RequestReleasedError):
                return
