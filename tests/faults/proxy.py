"""A TCP proxy that does to a far end what networks do: it goes, falls silent, comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Literal, Self

Mode = Literal["well", "gone", "mute"]


class Proxy:
    """Stands before a port of 127.0.0.1, on a ``port`` of its own; see `be`."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target, self._mode = target, "well"
        self._lines: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready, self._steady = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), name="proxy")
        self._flapper: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.be("gone")
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    def be(self, mode: Mode) -> None:
        """Be ``well``; or ``gone``: hang up on everybody; or ``mute``: take everything and never answer."""
        self._steady.set()
        if self._flapper is not None:
            self._flapper.join()
            self._flapper = None
        self._set(mode)

    def flap(self, period_s: float) -> None:
        """Come and go so often, until told to be otherwise."""
        self._steady.clear()

        def go_on() -> None:
            while not self._steady.wait(period_s / 2):
                self._set("gone" if self._mode == "well" else "well")

        self._flapper = threading.Thread(target=go_on, name="flapper")
        self._flapper.start()

    def _set(self, mode: Mode) -> None:
        self._mode = mode
        if mode != "mute":  # what was swallowed meanwhile is missing from the stream: nobody goes on with that
            self._loop.call_soon_threadsafe(self._hang_up)

    def _hang_up(self) -> None:
        for line in self._lines:
            line.transport.abort()

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._ended.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        with contextlib.suppress(OSError):
            if self._mode == "gone":
                return writer.transport.abort()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._lines.add(far_writer)
            await asyncio.wait(
                [asyncio.ensure_future(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            far_writer.transport.abort()
            self._lines.discard(far_writer)
        writer.transport.abort()
        self._lines.discard(writer)
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._mode == "well":
                    writer.write(data)
                    await writer.drain()
