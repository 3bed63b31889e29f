"""Telling a receiver what it was not told yet."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from dlpipe.errors import EventNotTaken, ReceiverUnavailable
from dlpipe.openlineage.collecting import list_groups
from dlpipe.openlineage.events import Group
from dlpipe.openlineage.receivers import Receiver, Told


@dataclass
class Export:
    """What came of telling a receiver.

    Attributes
    ----------
    receiver : str
        Its address.
    sent : int
        Events that it was told.
    refused : list of str
        Why it did not take an event, for each.
    """

    receiver: str
    sent: int
    refused: list[str]


class Nothing(Container[str]):
    """No keys: whatever the receiver was told, it is told again."""

    def __contains__(self, key: object) -> bool:
        return False


def export_events(
    receiver: Receiver,
    *,
    again: bool = False,
    on_step: Callable[[str], None] = lambda name: None,
) -> Export:
    """Tell a receiver all that it was not told yet, the oldest first.

    Parameters
    ----------
    receiver : Receiver
    again : bool, optional
        Tell all, with the same ids.
    on_step : callable, optional
        Gets what is done next, for progress.

    Raises
    ------
    ReceiverUnavailable
        When it does not answer; the message says how much it was told.
    TrackingUnavailable
        When the registry cannot be asked.
    """
    done = Export(receiver.address, 0, [])
    with receiver.hold() as told:
        groups = list_groups(Nothing() if again else told, on_step=on_step)
        on_step(f"telling {receiver.address}")
        try:
            tell(receiver, told, groups, done, again=again)
        except ReceiverUnavailable as error:
            how_many = "nothing was told" if not done.sent else f"{done.sent:,} events were told before"
            raise ReceiverUnavailable(f"{error}; {how_many}. The same command tells the rest.") from None
    return done


def tell(receiver: Receiver, told: Told, groups: Iterable[Group], done: Export, *, again: bool = False) -> None:
    """Tell a receiver what is new in these groups; an event that it does not take keeps no other back."""
    for group in groups:
        is_whole = True
        for event in group.list_events():
            if event.key in told and not again:
                continue
            try:
                receiver.send(event.make())
            except EventNotTaken as error:
                done.refused.append(str(error))
                is_whole = False
                continue
            told.note(event.key)
            done.sent += 1
        if group.is_final and is_whole and group.key not in told:
            told.note(group.key)
