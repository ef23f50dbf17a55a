"""Fairness on the event loop: long reads give way often, so that consensus never waits for a reader."""

import asyncio
import time

import orjson

SLICE_S = 0.004


class Pace:
    """Counts how long one caller has held the event loop since it last gave way."""

    __slots__ = ("_resume_s",)

    def __init__(self) -> None:
        self._resume_s = time.monotonic()

    async def breathe(self) -> None:
        """Let others run if this caller has held the loop for `SLICE_S`; cheap enough to call for each item."""
        if time.monotonic() - self._resume_s >= SLICE_S:
            await asyncio.sleep(0)
            self._resume_s = time.monotonic()


def encoded(view: object) -> orjson.Fragment:
    """A part of a long answer as JSON already: encoding all of it at the end would hold the loop for too long."""
    return orjson.Fragment(orjson.dumps(view))
