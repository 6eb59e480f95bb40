"""The bus of one process: NATS semantics without NATS.

Subjects are dotted words; in a pattern ``*`` is exactly one word and ``>`` one word or more at the end. A pattern without wildcards is one
look-up in a dict, whatever their number (10,000 device subjects); patterns with wildcards stand in a small tree that is walked word by word.
Everything happens on the event loop's thread: telling is calling, and nobody who listens can make the teller wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from gridloom.core.clock import Clock
from gridloom.core.errors import DeviceTimeout, Offline

log = logging.getLogger(__name__)

Hear = Callable[[str, Any], None]
Answer = Callable[[Any], Awaitable[Any]]


class MemorySubscription:
    """A bounded queue of messages; when it is full the oldest goes and ``dropped`` counts."""

    def __init__(self, pattern: str, size: int) -> None:
        if size < 1:
            raise ValueError(f"a subscription holds at least one message, not {size}")
        self.pattern = pattern
        self.dropped = 0
        self._queue: deque[tuple[str, Any]] = deque()
        self._size = size
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._leave: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self._queue)

    async def __aiter__(self) -> AsyncIterator[tuple[str, Any]]:
        while not self._closed:
            if self._queue:
                yield self._queue.popleft()
                continue
            if self._waiter is not None:
                raise RuntimeError(f"two tasks iterate over one subscription to {self.pattern}")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """End it; a waiting iteration stops and what was queued is forgotten."""
        if self._closed:
            return
        self._closed = True
        self._leave()
        self._queue.clear()
        self._wake()

    def hear(self, subject: str, message: Any) -> None:
        """Queue a message (called by the bus)."""
        if self._closed:
            return
        if len(self._queue) >= self._size:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append((subject, message))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Node:
    """One word of the tree of wildcard patterns."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.here: dict[object, Hear] = {}
        self.rest: dict[object, Hear] = {}

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.rest)


class MemoryBus:
    """A Bus within one process. ``clock`` measures the time-outs of ``request``."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._exact: dict[str, dict[object, Hear]] = {}
        self._tree = _Node()
        self._servers: dict[str, Answer] = {}
        self._answers: set[asyncio.Task[Any]] = set()
        self._subscriptions: set[MemorySubscription] = set()

    def publish(self, subject: str, message: Any) -> None:
        """Tell everybody who listens. Never blocks; a listener that fails is logged and does not keep others from hearing."""
        exact = self._exact.get(subject)
        if exact:
            for hear in tuple(exact.values()):
                self._tell(hear, subject, message)
        if not self._tree.empty:
            for hear in self._matching(subject.split(".")):
                self._tell(hear, subject, message)

    def subscribe(self, pattern: str, *, size: int = 1_000) -> MemorySubscription:
        """A queue of what matches, from this call on. Raises ValueError for a pattern that is none."""
        subscription = MemorySubscription(pattern, size)
        leave = self.listen(pattern, subscription.hear)
        self._subscriptions.add(subscription)

        def left() -> None:
            leave()
            self._subscriptions.discard(subscription)

        subscription._leave = left
        return subscription

    def listen(self, pattern: str, hear: Hear) -> Callable[[], None]:
        """Call ``hear`` (quick, synchronous) for what matches; the return value ends it. Raises ValueError for a pattern that is none."""
        words = _words(pattern)
        key = object()
        if "*" not in words and words[-1] != ">":
            self._exact.setdefault(pattern, {})[key] = hear

            def leave_exact() -> None:
                listeners = self._exact.get(pattern)
                if listeners is not None and listeners.pop(key, None) is not None and not listeners:
                    del self._exact[pattern]

            return leave_exact

        path = [self._tree]
        way = words[:-1] if words[-1] == ">" else words
        for word in way:
            path.append(path[-1].children.setdefault(word, _Node()))
        listeners = path[-1].rest if words[-1] == ">" else path[-1].here
        listeners[key] = hear

        def leave_tree() -> None:
            if listeners.pop(key, None) is None:
                return
            for depth in range(len(way), 0, -1):
                parent, child = path[depth - 1], path[depth]
                if not child.empty:
                    break
                if parent.children.get(way[depth - 1]) is child:
                    del parent.children[way[depth - 1]]

        return leave_tree

    def serve(self, subject: str, answer: Answer) -> Callable[[], None]:
        """Be the one who answers this subject; the newest wins. The return value ends it, unless a newer one took over."""
        words = _words(subject)
        if "*" in words or words[-1] == ">":
            raise ValueError(f"nobody can answer the pattern {subject!r}: a subject has no wildcards")
        self._servers[subject] = answer

        def leave() -> None:
            if self._servers.get(subject) is answer:
                del self._servers[subject]

        return leave

    async def request(self, subject: str, message: Any, timeout: float) -> Any:
        """Ask the one who serves the subject; what it raises of our errors is raised here.

        Raises Offline when nobody serves it, DeviceTimeout after ``timeout`` seconds. The one who was asked works on when the asker has gone.
        """
        answer = self._servers.get(subject)
        if answer is None:
            raise Offline(f"nobody answers {subject}: the device is not connected")
        task = asyncio.ensure_future(answer(message))
        self._answers.add(task)
        task.add_done_callback(self._answered)
        try:
            return await self._clock.wait_for(asyncio.shield(task), timeout)
        except TimeoutError:
            if task.done():  # the answer itself was a TimeoutError
                raise
            raise DeviceTimeout(f"no answer on {subject} within {timeout:g} s") from None

    async def close(self) -> None:
        """End all subscriptions and answers."""
        for subscription in tuple(self._subscriptions):
            subscription.close()
        self._exact.clear()
        self._tree = _Node()
        self._servers.clear()
        answers = tuple(self._answers)
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._answers.discard(task)
        if not task.cancelled():
            task.exception()  # the asker has it, or has gone; either way it is not "never retrieved"

    def _matching(self, words: list[str]) -> list[Hear]:
        found: list[Hear] = []
        nodes = [self._tree]
        for word in words:
            following = []
            for node in nodes:
                if node.rest:
                    found.extend(node.rest.values())
                child = node.children.get(word)
                if child is not None:
                    following.append(child)
                child = node.children.get("*")
                if child is not None:
                    following.append(child)
            nodes = following
            if not nodes:
                return found
        for node in nodes:
            found.extend(node.here.values())
        return found

    @staticmethod
    def _tell(hear: Hear, subject: str, message: Any) -> None:
        try:
            hear(subject, message)
        except Exception:  # whoever listens must not be able to harm the one who tells, nor the other listeners
            log.exception("a listener failed", extra={"subject": subject})


def _words(pattern: str) -> list[str]:
    words = pattern.split(".")
    for position, word in enumerate(words):
        if not word or any(sign.isspace() for sign in word):
            raise ValueError(f"{pattern!r} is no subject: words between dots are not empty and hold no white space")
        if ("*" in word and word != "*") or (">" in word and (word != ">" or position != len(words) - 1)):
            raise ValueError(f"{pattern!r} is no pattern: * stands for one word, > for the rest at the end")
    return words


def _nothing() -> None:
    """What a subscription leaves before it has joined."""
