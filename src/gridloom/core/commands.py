"""The door out: accept an order durably, route it to the node that holds the device's link, record and tell its end.

accepted -> sent -> done, refused, failed, expired, cancelled or unknown (``model.CommandState``)

- ``accepted`` is on disk before ``submit`` returns. ``sent`` is on disk before the executor is called, written by compare-and-swap over the accepted
  order, so that of two nodes, or of a node and its restarted self, one at most sends it. Where the device's link is here and has nothing to do, both
  are one commit: the order is stored as sent at once, and nobody else ever saw it as accepted.
- An order that is not idempotent goes to an executor once in its life. One that was under way when the process died ends as ``unknown``, with
  an event; it is sent again only if it is idempotent, or if the link recognises its id (``attach(…, deduplicates=True)``).
- Per device one executor call at a time, in the order of acceptance; devices do not wait for each other. An executor that returns ``LATER`` frees the
  device; ``finish`` brings the end, also hours later.
- The end, its event (``command.completed`` or ``command.unknown``), its line in the audit trail and its notifications are one commit.
- Secrets (``Verb.secrets``) are in the stored document only while the order is open, and in nothing that leaves this module but the executor's copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from gridloom.core import audit, ids, subjects, verbs
from gridloom.core.accounts import Accounts
from gridloom.core.clock import Clock
from gridloom.core.errors import (
    Conflict,
    DeviceError,
    DeviceTimeout,
    FieldFault,
    Forbidden,
    GridloomError,
    InvalidInput,
    NotFound,
    Offline,
    Refused,
    StorageError,
    Unanswered,
    Unsupported,
)
from gridloom.core.events import new_event
from gridloom.core.faults import nearest
from gridloom.core.intake import Intake
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.metrics import Metrics
from gridloom.core.model import Command, CommandState, Device, Event, Principal, Severity
from gridloom.core.ports import Bus, Put, Store, Write
from gridloom.core.registry import Link, Registry
from gridloom.core.settings import masked as without_credentials

log = logging.getLogger(__name__)

SPACE, KIND = "core", "command"
WAITING = 24 * 3600.0
"""Seconds that an order waits for a device that is offline, unless its submitter says otherwise."""
KEPT = 400 * 86_400 * 1_000_000
"""µs for which an order that ended is kept; the audit trail and the journal have their own retention."""
_TAKEN_WITHIN = 5.0
_LARGEST_RESULT = 1_048_576
_LOOK_AGAIN = 5.0
_WAITING_PER_DEVICE = 1_000


class _Later:
    """The one value that means: the answer comes by ``finish``."""

    def __repr__(self) -> str:
        return "LATER"


LATER: Final = _Later()
"""An executor returns this when it has handed the order on and the end comes by ``Commands.finish``."""

_decoder = msgspec.json.Decoder(Command)
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class _Open:
    """An order that has not ended, as this node knows it: with its secrets, and the version of its document."""

    __slots__ = ("again", "busy", "command", "fresh", "until", "version")

    def __init__(self, command: Command, version: int) -> None:
        self.command = command
        self.version = version
        self.again = False  # sent before, and may be sent once more
        self.busy = False  # an executor has it
        self.fresh = False  # stored as sent when it was accepted; no executor has had it yet
        self.until = 0  # when its later answer is no longer waited for, µs


class _Queue:
    """What is to be sent to one device by this node."""

    __slots__ = ("ids", "worker")

    def __init__(self) -> None:
        self.ids: deque[str] = deque()
        self.worker: asyncio.Future[None] | None = None


class Commands:
    """All orders. ``recover`` is called once at the start, after the links are attached."""

    def __init__(
        self, *, store: Store, registry: Registry, accounts: Accounts, bus: Bus, clock: Clock, intake: Intake, metrics: Metrics | None = None
    ) -> None:
        self._store = store
        self._registry = registry
        self._accounts = accounts
        self._bus = bus
        self._clock = clock
        self._intake = intake
        self._open: dict[str, _Open] = {}
        self._waiting: dict[str, dict[str, int]] = {}
        self._queues: dict[str, _Queue] = {}
        self._served: dict[str, Callable[[], None]] = {}
        self._locks = KeyedLock()
        self._deadlines: list[tuple[int, str]] = []
        self._wake = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        metrics = metrics or Metrics()
        self._submitted = metrics.counter("gridloom_commands_submitted_total", "Orders accepted, by verb.", ("verb",))
        self._ended = metrics.counter("gridloom_commands_ended_total", "Orders ended, by verb and state.", ("verb", "state"))
        self._seconds = metrics.histogram("gridloom_command_seconds", "From sending an order to its end.", ("verb",))
        metrics.gauge("gridloom_commands_open", "Orders that have not ended.", (), lambda: float(len(self._open)))
        registry.watch_links(self)
        bus.listen(subjects.ALL_COMMANDS, self._heard)

    # -------------------------------------------------------------------------------------------------------- for callers

    async def submit(
        self,
        principal: Principal,
        device: str,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        expires_in: float | None = None,
        wait_online: bool = False,
        client: str = "",
        id: str | None = None,
        origin: Mapping[str, str] | None = None,
        writes: Sequence[Write] = (),
    ) -> Command:
        """Accept an order; on disk when this returns. The result is shown without secrets, and may already be further than accepted.

        ``expires_in`` (s): until when it may be sent; without it 24 h when it waits for the device, else a minute or twice the verb's time-out.
        ``wait_online``: wait for a device that is offline instead of raising Offline. ``id``: the caller's own; a repeated one returns the order that
        has it (secrets are not compared: those of an order that has ended are gone). ``origin``: what the API needs to answer its client.
        ``writes`` go into the same commit.

        Raises NotFound, Forbidden, InvalidInput (``$.verb``, ``$.arguments…``, ``$.expires_in``, ``$.id``), Unsupported, Refused (not admitted, too
        many waiting), Offline, Conflict (the id is that of another order), StorageFull. Then nothing was accepted and nothing will be sent.
        """
        if id is not None:
            if not _ID.fullmatch(id):
                reason = "expected 1 to 64 of A-Z a-z 0-9 - _ ."
                raise InvalidInput(f"id of an order: {reason}", (FieldFault("$.id", reason),))
            existing = await self._repeated(principal, id, device, verb, arguments)
            if existing is not None:
                return existing
        found, row = await self._allowed(principal, device, verb, arguments, expires_in, wait_online)
        now = self._clock.now()
        seconds = expires_in if expires_in is not None else WAITING if wait_online else max(60.0, 2 * row.timeout)
        command = Command(
            id=ids.unique(now) if id is None else id,
            device=found.id,
            verb=verb,
            arguments=dict(arguments),
            account=principal.account,
            created=now,
            expires=now + int(seconds * 1_000_000),
            wait_online=wait_online,
            client=client or principal.client,
            address=principal.address,
            token=principal.token,
            origin=dict(origin or {}),
        )
        return await finish(self._accept(principal, command, row, tuple(writes)))

    async def get(self, id: str, principal: Principal) -> Command:
        """One order, without secrets. Raises NotFound."""
        command = (await self._load(id)).command
        if not self._readable(principal, command):
            raise NotFound(f"there is no order {id[:60]!r}")
        return _for_people(command)

    async def list(
        self, principal: Principal, *, device: str | None = None, state: CommandState | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[Command]:
        """Orders that the principal may see, newest first; ``after`` the id of the last one seen. Raises NotFound (a device not visible)."""
        keys: dict[str, str] = {}
        if device is not None:
            if not self._accounts.visible(principal, self._registry.get(device)):
                raise NotFound(f"there is no device {device[:120]!r}")
            keys["device"] = device
        if state is not None:
            keys["state"] = state.value
        found: list[Command] = []
        while len(found) < limit:
            page = await self._store.documents.find(SPACE, KIND, keys, limit=500, after=after, descending=True)
            commands = [_decoder.decode(document.body) for document in page]
            found += [_for_people(command) for command in commands if self._readable(principal, command)]
            if len(page) < 500:
                break
            after = page[-1].id
        return found[:limit]

    async def watch(self, id: str, principal: Principal | None = None) -> AsyncGenerator[Command, None]:
        """The order as it is now and then at each state until it has ended. Raises NotFound. Without a principal for the hub's own parts."""
        news: deque[Command] = deque(maxlen=32)
        changed = asyncio.Event()

        def hear(_: str, command: Command) -> None:
            news.append(command)
            changed.set()

        leave = self._bus.listen(subjects.command(id), hear)  # before looking: nothing that happens in between is lost
        try:
            command = _shown((await self._load(id)).command)
            if principal is not None and not self._readable(principal, command):
                raise NotFound(f"there is no order {id[:60]!r}")
            last = command.state
            yield command if principal is None else _for_people(command)
            while not last.final:
                if not news:
                    changed.clear()
                    try:
                        await self._clock.wait_for(changed.wait(), _LOOK_AGAIN)
                    except TimeoutError:
                        news.append(_shown((await self._load(id)).command))  # in case the bus lost a message
                command = news.popleft()
                if command.state is not last:
                    last = command.state
                    yield command if principal is None else _for_people(command)
        finally:
            leave()

    async def wait(self, id: str, timeout: float, principal: Principal | None = None) -> Command:
        """The order once it has ended. Raises NotFound, DeviceTimeout after ``timeout`` seconds; the order itself goes on then."""

        async def ended() -> Command:
            async with contextlib.aclosing(self.watch(id, principal)) as watching:
                async for command in watching:
                    if command.state.final:
                        break
            return command

        try:
            return await self._clock.wait_for(ended(), timeout)
        except TimeoutError:
            raise DeviceTimeout(f"order {id} has not ended within {timeout:g} s") from None

    async def cancel(self, id: str, principal: Principal) -> Command:
        """Take back an order that was not sent. Raises NotFound, Forbidden, Conflict when it was sent or has ended."""
        known = await self._load(id)
        if not self._readable(principal, known.command):
            raise NotFound(f"there is no order {id[:60]!r}")
        if known.command.account != principal.account:
            self._accounts.require(principal, known.command.verb, self._registry.get(known.command.device))
        words = f"cancelled by {principal.account}"
        command = await finish(self._end(id, CommandState.CANCELLED, error=words, only_from=(CommandState.ACCEPTED,)))
        if command.state is not CommandState.CANCELLED:
            raise Conflict(f"order {id} is {command.state.value}: it can no longer be taken back")
        return _for_people(command)

    # ---------------------------------------------------------------------------------------------------------- for links

    async def finish(self, id: str, result: Any = None, error: GridloomError | None = None) -> Command:
        """The end of an order whose executor returned ``LATER``, or of one that had become unknown.

        Raises NotFound, Conflict when it has ended otherwise, or was never sent.
        """
        state, words = (CommandState.DONE, "") if error is None else _verdict(error)
        allowed = (CommandState.SENT, CommandState.UNKNOWN)
        before = (await self._load(id)).command
        if before.state not in allowed:
            raise Conflict(f"order {id} is {before.state.value}: nothing is left to finish")
        return await finish(self._end(id, state, result=result, error=words, only_from=allowed))

    def arguments(self, command: Command) -> Any:
        """The arguments of an order as the Struct of its verb. For executors."""
        return verbs.validate(command.verb, command.arguments)

    # ---------------------------------------------------------------------------------------------------------- start, end

    async def recover(self) -> None:
        """Take up what the last process left. Call once, after the services have attached their links and before anybody submits."""
        self._timer = asyncio.ensure_future(self._watch_deadlines())
        for state in (CommandState.SENT, CommandState.ACCEPTED):
            after = ""
            while True:
                page = await self._store.documents.find(SPACE, KIND, {"state": state.value}, limit=500, after=after)
                for document in page:
                    if document.id not in self._open:
                        await self._recover(_Open(_decoder.decode(document.body), document.version))
                if len(page) < 500:
                    break
                after = page[-1].id
        for device in list(self._waiting):
            if self._registry.online(device):
                await self._offer(device)

    async def stop(self, grace: float = 2.0) -> None:
        """Send nothing more; what is under way has ``grace`` seconds to end. What has not ended then is looked at by the next ``recover``."""
        self._stopping = True
        workers = [queue.worker for queue in self._queues.values() if queue.worker is not None]
        if workers:
            await asyncio.wait(workers, timeout=grace / self._clock.speed)
        tasks = [*workers, *self._tasks, *([self._timer] if self._timer is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for leave in self._served.values():
            leave()
        self._served.clear()

    # ------------------------------------------------------------------------------------------- links, told by the registry

    def attached(self, link: Link) -> None:
        """A link with an executor takes the orders of its device from now on."""
        if link.executor is not None:
            self._served[link.device] = self._bus.serve(subjects.order(link.device), self._take)

    def online(self, link: Link) -> None:
        """What waited for the device is sent now."""
        if link.executor is None or self._stopping:
            return
        for id in sorted(self._waiting.get(link.device, {}), key=self._age):
            self._queue(link.device, id)

    def detached(self, link: Link) -> None:
        """No more orders for this link; what waits goes on waiting."""
        leave = self._served.pop(link.device, None)
        if leave is not None:
            leave()

    # -------------------------------------------------------------------------------------------------------- acceptance

    async def _allowed(
        self, principal: Principal, device: str, verb: str, arguments: Mapping[str, Any], expires_in: float | None, wait_online: bool
    ) -> tuple[Device, verbs.Verb]:
        row = verbs.TABLE.get(verb)
        if row is None or row.kind != "order":
            orders = [name for name, one in verbs.TABLE.items() if one.kind == "order"]
            reason = f"there is no order {verb[:60]!r}{nearest(verb, orders)}"
            raise InvalidInput(reason, (FieldFault("$.verb", reason),))
        found = self._registry.get(device)
        try:
            self._accounts.require(principal, verb, found)
            self._registry.admitted(device)
            if verb not in found.verbs:
                can = ", ".join(found.verbs) or "nothing"
                raise Unsupported(f"{device} cannot {verb}{nearest(verb, found.verbs)}; it can: {can}")
            try:
                verbs.validate(verb, arguments)
            except InvalidInput as error:
                faults = tuple(FieldFault(fault.path.replace("$", "$.arguments", 1), fault.reason) for fault in error.faults)
                raise InvalidInput(error.message, faults) from None
            if expires_in is not None and not 0 < expires_in <= 366 * 86_400:
                reason = f"expected more than 0 and at most a year in seconds, got {expires_in:g}"
                raise InvalidInput(f"expires_in: {reason}", (FieldFault("$.expires_in", reason),))
            if not self._registry.online(device):
                if not wait_online:
                    raise Offline(f"{device} is offline ({self._registry.state(device).reason or 'no connection'})")
                if len(self._waiting.get(device, {})) >= _WAITING_PER_DEVICE:
                    raise Refused(f"{_WAITING_PER_DEVICE} orders already wait for {device}")
        except (Forbidden, Refused) as error:
            data = {"arguments": verbs.masked(verb, arguments)}
            line = audit.entry(self._clock, principal, verb, device, f"{error.code}: {error.message}", device=device, data=data)
            with contextlib.suppress(StorageError):  # a full disk does not change the answer
                await self._store.commit([line])
            raise
        return found, row

    async def _repeated(self, principal: Principal, id: str, device: str, verb: str, arguments: Mapping[str, Any]) -> Command | None:
        try:
            known = (await self._load(id)).command
        except NotFound:
            return None
        if known.account != principal.account or known.device != device or known.verb != verb:
            raise Conflict(f"the id {id[:60]!r} is that of another order")
        if _comparable(verb, known.arguments) != _comparable(verb, arguments):
            raise Conflict(f"the id {id[:60]!r} is that of another order: {verb} with other arguments")
        return _for_people(known)

    async def _accept(self, principal: Principal, command: Command, row: verbs.Verb, writes: tuple[Write, ...]) -> Command:
        data = {"arguments": verbs.masked(command.verb, command.arguments), "command": command.id}
        line = audit.entry(self._clock, principal, command.verb, command.device, "accepted", device=command.device, data=data)
        queue = self._reserved(command.device, row)
        stored = command if queue is None else msgspec.structs.replace(command, state=CommandState.SENT, sent=self._clock.now())
        try:
            commit = await self._intake.commit([_put(stored, expect=0), line, *writes])
        except BaseException as error:
            if queue is not None:
                self._begin(command.device, queue)
            if not isinstance(error, Conflict):
                raise
            existing = await self._repeated(principal, command.id, command.device, command.verb, command.arguments)
            if existing is None:  # it was an ``expect`` of the caller's own writes
                raise
            return existing
        self._submitted.inc(verb=command.verb)
        self._open[command.id] = _Open(command, commit.versions[0])
        self._at(command.expires, command.id)
        if queue is not None:
            self._publish(command)
            self._send_first(stored, commit.versions[0], queue)
            return _for_people(stored)
        if command.wait_online:
            self._waiting.setdefault(command.device, {})[command.id] = command.created
        self._publish(command)
        if row.supersedes:
            await self._supersede(command)
        if self._registry.online(command.device):
            try:
                await self._bus.request(subjects.order(command.device), command.id, _TAKEN_WITHIN)
            except (Offline, DeviceTimeout) as error:  # it has gone in this very moment
                if not command.wait_online:
                    words = f"{error.code}: {error.message}"
                    return _for_people(await self._end(command.id, CommandState.REFUSED, error=words, only_from=(CommandState.ACCEPTED,)))
        known = self._open.get(command.id)
        return _for_people(command if known is None else known.command)

    async def _supersede(self, command: Command) -> None:
        """Older orders of the same verb that were not sent are no longer wanted."""
        older = [
            known.command.id
            for known in self._open.values()
            if known.command.device == command.device and known.command.verb == command.verb and known.command.state is CommandState.ACCEPTED
        ]
        for id in older:
            if id != command.id:
                await self._end(id, CommandState.CANCELLED, error=f"superseded by {command.id}", only_from=(CommandState.ACCEPTED,))

    # ----------------------------------------------------------------------------------------------------------- sending

    def _reserved(self, device: str, row: verbs.Verb) -> _Queue | None:
        """The queue of a device whose link is here and has nothing to do, kept for the order that is being stored: what comes meanwhile is behind it.

        None where the order must go the long way. ``_send_first`` or ``_begin`` gives the queue back.
        """
        link = self._registry.link(device)
        if link is None or link.executor is None or device not in self._served or not self._registry.online(device):
            return None
        if row.supersedes or self._stopping or device in self._queues or device in self._waiting:
            return None
        queue = self._queues[device] = _Queue()
        queue.worker = asyncio.get_running_loop().create_future()
        return queue

    def _send_first(self, command: Command, version: int, queue: _Queue) -> None:
        """It is on disk as sent: the executor has it next."""
        known = self._open[command.id] = _Open(command, version)
        known.busy = known.fresh = True
        queue.ids.appendleft(command.id)
        self._begin(command.device, queue)
        self._publish(command)

    def _begin(self, device: str, queue: _Queue) -> None:
        if queue.worker is not None and not queue.worker.done():  # what stood for it while the order was stored
            queue.worker.set_result(None)
        queue.worker = asyncio.ensure_future(self._work(device, queue))

    async def _take(self, id: str) -> bool:
        """Answer of the node that holds the link: the order is in the device's queue."""
        known = await self._load(id)
        device = known.command.device
        link = self._registry.link(device)
        if link is None or link.executor is None or self._stopping:
            raise Offline(f"{device} is not connected here")
        self._queue(device, id)
        return True

    def _queue(self, device: str, id: str) -> None:
        queue = self._queues.setdefault(device, _Queue())
        if id in queue.ids:
            return
        known = self._open.get(id)
        if known is not None and verbs.TABLE[known.command.verb].supersedes:
            queue.ids.appendleft(id)
        else:
            queue.ids.append(id)
        if queue.worker is None:
            self._begin(device, queue)

    async def _offer(self, device: str) -> None:
        """Route what waits for a device that is online, wherever its link is."""
        for id in sorted(self._waiting.get(device, {}), key=self._age):
            try:
                await self._bus.request(subjects.order(device), id, _TAKEN_WITHIN)
            except (Offline, DeviceTimeout):
                return

    async def _work(self, device: str, queue: _Queue) -> None:
        """The orders of one device, one after the other."""
        try:
            while queue.ids and not self._stopping:
                id = queue.ids.popleft()
                try:
                    await self._send(device, id)
                except GridloomError as error:
                    log.error("an order could not be carried out", extra={"device": device, "command": id, "reason": error.message})
                except Exception:  # whatever it was, the device's other orders must not wait for ever behind it
                    log.exception("an order could not be carried out", extra={"device": device, "command": id})
        finally:
            queue.worker = None
            if not queue.ids:
                self._queues.pop(device, None)

    async def _send(self, device: str, id: str) -> None:
        known = await self._load(id)
        command = known.command
        fresh, known.fresh = known.fresh, False
        if command.state is not CommandState.ACCEPTED and not (command.state is CommandState.SENT and (known.again or fresh)):
            return
        if self._clock.now() >= command.expires:
            if fresh:
                await self._end(id, CommandState.EXPIRED, error="expired before it could be sent")
            else:
                await self._expire(id)
            return
        link = self._registry.link(device)
        if link is None or link.executor is None or not self._registry.online(device):
            if not command.wait_online and not known.again:
                await self._end(id, CommandState.REFUSED, error="offline: the device went offline before the order was sent")
            elif fresh:
                self._again(id)
            return
        row = verbs.TABLE[command.verb]
        if not fresh:
            marked = await finish(self._mark_sent(id))
            if marked is None:
                return
            command = marked
        began = self._clock.monotonic()
        result: Any = None
        try:
            result = await self._clock.wait_for(link.executor(command), row.timeout)
        except (Offline, Unanswered) as error:
            if row.idempotent and command.wait_online:
                self._again(id)
                return
            state, words = _verdict(error)
        except GridloomError as error:
            state, words = _verdict(error)
        except TimeoutError:
            state, words = _verdict(DeviceTimeout(f"{device} did not answer {command.verb} within {row.timeout:g} s"))
        except Exception as error:  # a link's bug ends this order with its reason, never the queue of the device
            log.exception("an executor failed", extra={"device": device, "verb": command.verb, "command": id})
            state, words = CommandState.FAILED, f"internal-error: {type(error).__name__}"
        else:
            if result is LATER:
                self._later(id, self._clock.now() + int(row.timeout * 1_000_000))
                return
            state, words = CommandState.DONE, ""
        self._seconds.observe(self._clock.monotonic() - began, verb=command.verb)
        await finish(self._end(id, state, result=result, error=words, only_from=(CommandState.SENT,)))

    async def _mark_sent(self, id: str) -> Command | None:
        """Accepted (or to be sent again) -> sent, on disk. None when somebody was faster: only who gets the order here may call the executor."""
        async with self._locks.hold((id,)):
            known = await self._load(id)
            if known.command.state is not CommandState.ACCEPTED and not known.again:
                return None
            command = msgspec.structs.replace(known.command, state=CommandState.SENT, sent=self._clock.now())
            try:
                commit = await self._store.commit([_put(command, expect=known.version)])
            except Conflict:  # another node was faster
                self._open.pop(id, None)
                return None
            known = self._open[id] = _Open(command, commit.versions[0])
            known.busy = True
            self._no_longer_waits(command)
            self._publish(command)
            return command

    def _later(self, id: str, until: int) -> None:
        """The device is free; the answer has until then to come."""
        known = self._open.get(id)
        if known is not None:
            known.busy = False
            known.until = until
            self._at(until, id)

    def _again(self, id: str) -> None:
        """Nothing was sent after all (or it does no harm twice): it waits for the device once more, until it expires."""
        known = self._open.get(id)
        if known is not None:
            known.again, known.busy = True, False
            self._waiting.setdefault(known.command.device, {})[id] = known.command.created
            self._at(known.command.expires, id)

    # --------------------------------------------------------------------------------------------------------------- end

    async def _end(
        self,
        id: str,
        state: CommandState,
        *,
        result: Any = None,
        error: str = "",
        only_from: tuple[CommandState, ...] = (CommandState.ACCEPTED, CommandState.SENT),
    ) -> Command:
        """Record and tell the end, if the order is still in one of the states. Returns the order as it is then."""
        pause = 0.1
        while True:
            try:
                return await self._record_end(id, state, result, error, only_from)
            except Conflict:
                self._open.pop(id, None)  # another node changed it: look again
            except StorageError as failed:
                # The device has acted: its answer must not get lost because the disk is full for a moment.
                log.error("the end of an order cannot be stored yet", extra={"command": id, "reason": failed.message})
                if self._stopping or pause > 60:
                    raise
                await self._clock.sleep(pause)
                pause *= 2

    async def _record_end(self, id: str, state: CommandState, result: Any, error: str, only_from: tuple[CommandState, ...]) -> Command:
        async with self._locks.hold((id,)):
            known = await self._load(id)
            old = known.command
            if old.state not in only_from:
                return _shown(old)
            result, note = _kept_result(result)
            command = msgspec.structs.replace(
                old,
                state=state,
                arguments=verbs.masked(old.verb, old.arguments),
                ended=self._clock.now(),
                result=result,
                error=without_credentials(error or note),
            )
            words = "done" if state is CommandState.DONE else f"{state.value}: {command.error}" if command.error else state.value
            data = {"command": id}
            who = Principal(command.account, (), command.token, command.address, command.client)
            line = audit.entry(self._clock, who, command.verb, command.device, words, device=command.device, data=data)
            await self._intake.events(self._event(command), [_put(command, expect=known.version, expires=command.ended), line])
            self._open.pop(id, None)
            self._no_longer_waits(command)
            self._ended.inc(verb=command.verb, state=state.value)
            self._publish(command)
            return command

    def _event(self, command: Command) -> Sequence[Event]:
        """What is told of the end; nothing of a device that is gone or not admitted."""
        try:
            self._registry.admitted(command.device)
        except GridloomError:
            return []
        unknown = command.state is CommandState.UNKNOWN
        event = new_event(
            "command.unknown" if unknown else "command.completed",
            command.device,
            self._clock,
            id=f"command:{command.id}:{command.state.value}",
            severity=Severity.INFO if command.state in (CommandState.DONE, CommandState.CANCELLED) else Severity.WARNING,
            message=command.error,
            data={"command": command.id, "verb": command.verb, "state": command.state.value, "account": command.account},
        )
        return [event]

    async def _expire(self, id: str) -> None:
        """Its time is over: expired if it was never sent, unknown if it was."""
        known = await self._load(id)
        if known.command.state is CommandState.ACCEPTED:
            words = "expired before it could be sent"
            await self._end(id, CommandState.EXPIRED, error=words, only_from=(CommandState.ACCEPTED,))
        elif known.command.state is CommandState.SENT:
            words = "whether the device acted is not known: no answer came in time"
            await self._end(id, CommandState.UNKNOWN, error=words, only_from=(CommandState.SENT,))

    # ---------------------------------------------------------------------------------------------------------- details

    async def _recover(self, known: _Open) -> None:
        command = known.command
        row = verbs.TABLE.get(command.verb)
        link = self._registry.link(command.device)
        self._open[command.id] = known
        expired = self._clock.now() >= command.expires
        if command.state is CommandState.SENT:
            if not expired and row is not None and (row.idempotent or (link is not None and link.deduplicates)):
                self._again(command.id)
            else:
                words = "whether the device acted is not known: the hub stopped while the order was under way"
                await self._end(command.id, CommandState.UNKNOWN, error=words)
        elif expired:
            await self._expire(command.id)
        elif command.wait_online and row is not None:
            self._waiting.setdefault(command.device, {})[command.id] = command.created
            self._at(command.expires, command.id)
        else:
            await self._end(command.id, CommandState.REFUSED, error="the hub stopped before the order was sent; nothing was sent")

    async def _load(self, id: str) -> _Open:
        known = self._open.get(id)
        if known is not None:
            return known
        document = await self._store.documents.get(SPACE, KIND, id)
        if document is None:
            raise NotFound(f"there is no order {id[:60]!r}")
        known = self._open.get(id)  # somebody may have been here while we looked
        return known or _Open(_decoder.decode(document.body), document.version)

    def _readable(self, principal: Principal, command: Command) -> bool:
        if command.account == principal.account:
            return True
        try:
            return self._accounts.may(principal, "commands.read", self._registry.get(command.device))
        except NotFound:
            return self._accounts.everywhere(principal, "commands.read")

    def _publish(self, command: Command) -> None:
        self._bus.publish(subjects.command(command.id), _shown(command))

    def _heard(self, _: str, command: Command) -> None:
        """Orders accepted on other nodes for devices whose link may be here. Our own come by too and change nothing."""
        known = self._open.get(command.id)
        if known is not None:
            if known.command.state is not command.state:  # another node has it: what we remember is no longer so
                del self._open[command.id]
                self._no_longer_waits(command)
            return
        if command.state is CommandState.ACCEPTED and command.wait_online:
            self._waiting.setdefault(command.device, {})[command.id] = command.created
        else:
            self._no_longer_waits(command)

    def _no_longer_waits(self, command: Command) -> None:
        waiting = self._waiting.get(command.device)
        if waiting is not None and waiting.pop(command.id, None) is not None and not waiting:
            del self._waiting[command.device]

    def _age(self, id: str) -> tuple[int, str]:
        known = self._open.get(id)
        if known is not None:
            return known.command.created, id
        return next((waiting[id] for waiting in self._waiting.values() if id in waiting), 0), id

    def _at(self, moment: int, id: str) -> None:
        heapq.heappush(self._deadlines, (moment, id))
        if self._deadlines[0] == (moment, id):
            self._wake.set()

    async def _watch_deadlines(self) -> None:
        while not self._stopping:  # asked, too: ``wait_for`` does not pass on a cancellation that comes with what it waits for
            self._wake.clear()
            now = self._clock.now()
            while self._deadlines and self._deadlines[0][0] <= now:
                _, id = heapq.heappop(self._deadlines)
                known = self._open.get(id)
                if known is None or self._under_way(known, now):
                    continue
                task = asyncio.ensure_future(self._expire(id))
                self._tasks.add(task)
                task.add_done_callback(self._settled)
            pause = None if not self._deadlines else max((self._deadlines[0][0] - now) / 1_000_000, 0.001)
            try:
                await self._clock.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    @staticmethod
    def _under_way(known: _Open, now: int) -> bool:
        """Whether this deadline is not the order's: it was sent in time and its executor, or the time for its later answer, decides."""
        return known.busy or (known.command.state is CommandState.SENT and not known.again and now < known.until)

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("an order could not be ended", exc_info=task.exception())


def _verdict(error: GridloomError) -> tuple[CommandState, str]:
    """How an order ends by an error of its executor. Only a refusal promises that nothing was sent."""
    if isinstance(error, Unanswered):
        return CommandState.UNKNOWN, f"{error.code}: {error.message}; whether the device acted is not known"
    state = CommandState.REFUSED if isinstance(error, Refused | InvalidInput) else CommandState.FAILED
    if not isinstance(error, Refused | InvalidInput | DeviceError | DeviceTimeout):
        log.error("an executor raised an error that is not for executors", extra={"error": type(error).__name__, "reason": error.message})
    return state, f"{error.code}: {error.message}"


def _kept_result(result: Any) -> tuple[Any, str]:
    """The result as JSON values, and a note when it could not be kept: the order is done all the same."""
    if result is None:
        return None, ""
    try:
        plain = msgspec.to_builtins(result)
        size = len(msgspec.json.encode(plain))
    except (TypeError, ValueError) as error:
        return None, f"the result could not be kept: {error}"
    if size > _LARGEST_RESULT:
        return None, f"the result could not be kept: {size} bytes are more than {_LARGEST_RESULT}"
    return plain, ""


def _shown(command: Command) -> Command:
    """Without secrets: for the bus."""
    if command.state.final and command.verb not in verbs.TABLE:
        return command
    return msgspec.structs.replace(command, arguments=verbs.masked(command.verb, command.arguments))


def _comparable(verb: str, arguments: Mapping[str, Any]) -> Any:
    """Arguments as they come back from the store once the order has ended: JSON values, secrets masked."""
    return msgspec.json.decode(msgspec.json.encode(verbs.masked(verb, arguments)))


def _for_people(command: Command) -> Command:
    """Without secrets, and without what is between the submitting API and its client (channels that only that client should know)."""
    return msgspec.structs.replace(_shown(command), origin={})


def _put(command: Command, *, expect: int, expires: int | None = None) -> Put:
    keys = {"device": command.device, "state": command.state.value, "account": command.account}
    return Put(SPACE, KIND, command.id, msgspec.json.encode(command), keys, expect=expect, expires=None if expires is None else expires + KEPT)
