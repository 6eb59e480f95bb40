"""Push channels as nginx-push-stream-module has them (FACTS 5): what is kept of each, and what of it a subscriber is given when it comes.

Pure: no clock, no socket. A message is of a second and has a tag, its number within that second over all channels; both together are a place in the
order of all messages, and what clients send back as ``If-Modified-Since`` and ``If-None-Match`` (or ``Last-Event-ID``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

STORED = 20
"""Messages kept of a channel; EKM's own sample asks for ``.b20``."""
KEPT = 300
"""Seconds a message is kept."""
MOST_ASKED = 50
"""Channels in one URL."""
PREFIX = "response_"

_SEGMENT = re.compile(r"(?P<id>[A-Za-z0-9_-]{1,128})(?:\.b(?P<back>[0-9]{1,9}))?")
_TAG = re.compile(r'(?:[Ww]/)?"?([0-9]{1,9})"?')
_EVENT_ID = re.compile(r"([0-9]{1,12}):([0-9]{1,9})")


class Place(NamedTuple):
    """Where in the order of all messages a client is: behind message ``tag`` of ``second``. Without a tag: behind all of that second."""

    second: int
    tag: int | None = None

    @property
    def modified(self) -> str:
        """As ``Last-Modified`` has it."""
        return formatdate(self.second, usegmt=True)

    @property
    def event_id(self) -> str:
        """As server-sent events have it."""
        return f"{self.second}:{self.tag or 0}"


class Message(NamedTuple):
    """``text`` as it was published (UTF-8)."""

    place: Place
    text: bytes


class Asked(NamedTuple):
    """One channel of a URL, and how many of its stored messages come first."""

    channel: str
    back: int


def asked(path: str) -> list[Asked]:
    """``a.b20/b`` as channels; each once. Raises ValueError saying what a path is made of."""
    found: dict[str, Asked] = {}
    for segment in path.split("/"):
        match = _SEGMENT.fullmatch(segment)
        if match is None:
            raise ValueError("a channel is 1 to 128 of A-Z a-z 0-9 - _, with .bN behind it for the last N stored messages; several with / between")
        found.setdefault(match["id"], Asked(match["id"], int(match["back"] or 0)))
    if len(found) > MOST_ASKED:
        raise ValueError(f"at most {MOST_ASKED} channels in one URL")
    return list(found.values())


def behind(modified_since: str, none_match: str, last_event_id: str = "") -> Place | None:
    """The place that a client names by its headers; None when it names none that can be read."""
    event = _EVENT_ID.fullmatch(last_event_id.strip())
    if event is not None:
        return Place(int(event[1]), int(event[2]))
    try:
        moment = parsedate_to_datetime(modified_since)
        second = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    tag = _TAG.fullmatch(none_match.strip())
    return Place(max(second, 0), None if tag is None else int(tag[1]))


class Channels:
    """What is stored: at most ``stored`` messages of a channel, each for ``kept`` seconds, ``size`` bytes in all: the oldest channel goes first."""

    def __init__(self, *, stored: int = STORED, kept: int = KEPT, size: int = 67_108_864) -> None:
        self.dropped = 0
        """Messages that went before their time because there were too many in all."""
        self._stored = stored
        self._kept = kept
        self._room = self._size = size
        self._channels: OrderedDict[str, deque[Message]] = OrderedDict()  # by their last message, oldest first
        self._last = Place(0, 0)

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def size(self) -> int:
        """Bytes stored."""
        return self._size - self._room

    def publish(self, channel: str, text: bytes, now: int) -> Message:
        """Store a message of this moment (s since the epoch; a clock that goes back does not disturb the order)."""
        self.forget(now)
        second = max(now, self._last.second)
        self._last = Place(second, (self._last.tag or 0) + 1 if second == self._last.second else 1)
        message = Message(self._last, text)
        messages = self._channels.setdefault(channel, deque())
        self._channels.move_to_end(channel)
        messages.append(message)
        self._room -= len(text)
        while len(messages) > self._stored or messages[0].place.second <= second - self._kept:
            self._room += len(messages.popleft().text)
        while self._room < 0 and self._channels:
            _, gone = self._channels.popitem(last=False)
            self._room += sum(len(one.text) for one in gone)
            self.dropped += len(gone)
        return message

    def replay(self, wanted: Sequence[Asked], place: Place | None, now: int) -> list[Message]:
        """What comes first: of each channel what its ``.bN`` asks for, else what is behind ``place`` (None: nothing), all in their order."""
        self.forget(now)
        found: list[Message] = []
        for channel, back in wanted:
            messages = [message for message in self._channels.get(channel, ()) if message.place.second > now - self._kept]
            if back:
                found += messages[-back:]
            elif place is not None:
                found += [message for message in messages if _is_behind(message.place, place)]
        return sorted(found, key=lambda message: message.place)

    def forget(self, now: int) -> None:
        """Drop the channels whose newest message was kept long enough."""
        while self._channels:
            channel, messages = next(iter(self._channels.items()))
            if messages[-1].place.second > now - self._kept:
                break  # and so are those of all channels behind it
            self._room += sum(len(one.text) for one in messages)
            del self._channels[channel]


def _is_behind(message: Place, place: Place) -> bool:
    if message.second != place.second or place.tag is None:
        return message.second > place.second
    return (message.tag or 0) > place.tag


class ChannelIds:
    """Ids that nobody can guess, that are recognised without being remembered, and that say nothing of any key.

    An id is ``response_`` and 43 characters: whose it is (8 bytes), which of theirs (8), and a seal over both (16) that only who has the ``secret``
    can make. The same owner and name always give the same id, also after a restart.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, owner: str, name: str = "") -> str:
        """The owner's channel of this name. A ``name`` that is an id of the same owner already stands for itself."""
        mine = self._sealed(b"owner", owner.encode())[:8]
        opened = self._opened(name)
        if opened is not None and opened[:8] == mine:
            return name
        body = mine + self._sealed(b"name", owner.encode() + b"\0" + name.encode())[:8]
        return PREFIX + base64.urlsafe_b64encode(body + self._seal(body)).rstrip(b"=").decode("ascii")

    def issued(self, id: str) -> bool:
        """Whether we made this id."""
        return self._opened(id) is not None

    def _opened(self, id: str) -> bytes | None:
        if not id.startswith(PREFIX) or len(id) != len(PREFIX) + 43:
            return None
        try:
            raw = base64.b64decode(id[len(PREFIX) :] + "=", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if id != PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii"):
            return None  # another spelling of the same bytes would be another channel
        return raw[:16] if hmac.compare_digest(raw[16:], self._seal(raw[:16])) else None

    def _seal(self, body: bytes) -> bytes:
        return self._sealed(b"seal", body)[:16]

    def _sealed(self, what: bytes, data: bytes) -> bytes:
        return hmac.digest(self._secret, what + b"\0" + data, hashlib.sha256)
