"""Redrive: a parked stream is handed to its handlers again, in order."""

from __future__ import annotations

from dataclasses import dataclass

from headrace_kit.consumer.delivery import Delivery
from headrace_kit.consumer.lane import cause_of
from headrace_kit.consumer.parking import Parking
from headrace_kit.postgres import Connection


@dataclass(frozen=True, slots=True)
class Redriven:
    """What came of a redrive."""

    handled: int
    still_parked: int


async def redrive(parking: Parking, delivery: Delivery, stream_id: str) -> Redriven:
    """Delivers the parked events of a stream until none is left, then lets the stream flow.

    Raises:
        Exception: what the handler raised; that event and those after it stay parked.
    """
    handled = 0
    while True:
        parked = await parking.first(stream_id)
        if parked is None:
            if await parking.release(stream_id):
                return Redriven(handled, 0)
            continue
        event = parked.event

        async def remove(connection: Connection) -> bool:
            return await parking.remove(connection, event)  # noqa: B023 - used before the loop goes on

        try:
            await delivery.again(event, remove)
        except Exception as error:
            await parking.failed_again(event, cause_of(error))
            raise
        handled += 1
