"""Account keys and gateway keys: base64url (no padding) of ``DIGITS:SECRET``, as the Settings API has them (FACTS 4.3).

An *account* key stands for everything that its account owns. A *gateway* key stands for the devices of one gateway, named by its MAC address, and is
what a gateway elsewhere presents when it connects. Of the secret only a SHA-256 is kept; keys are looked up in memory.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gridloom.core import audit
from gridloom.core.accounts import ADMIN_ACCOUNT
from gridloom.core.clock import rfc3339
from gridloom.core.errors import Conflict, FieldFault, InvalidInput, NotFound
from gridloom.core.hub import Hub, Operation
from gridloom.core.model import Device, Principal
from gridloom.core.settings import Secret
from gridloom.integrations.ekm.channels import ChannelIds

KIND = "key"
HERE = "HERE"
"""Stands for the MAC address of the gateway in this process when the configuration names none."""
_NUMBER = re.compile(r"[0-9]{1,12}")
_LONGEST = 500
Mac = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}:?){5}[0-9A-Fa-f]{2}$(?!\n)", description="twelve hexadecimal digits, with or without colons")]


class Key(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A key without its secret. ``mac`` names the gateway of a gateway key; new devices of that gateway belong to ``site``. ``created`` in µs."""

    number: str
    account: str
    digest: str
    created: int
    mac: str = ""
    site: str = ""
    name: str = ""

    @property
    def gateway(self) -> bool:
        """Whether it is that of a gateway."""
        return bool(self.mac)


_decoder = msgspec.json.Decoder(Key)


def spelled(mac: str) -> str:
    """A MAC address as it is kept: twelve hexadecimal digits in capitals."""
    return mac.replace(":", "").replace("-", "").upper()


def gateway_of(device: Device, local: str) -> str:
    """The MAC address of the gateway that a device is assigned to; ``local``: of the one in this process, to which all others belong."""
    return device.attributes.get("gateway", local)


class Keys:
    """All keys in memory, written through to the store. ``load`` once before anybody asks."""

    def __init__(self, hub: Hub, *, gateway_key: Secret | None = None, gateway_mac: str = "") -> None:
        self.ids = ChannelIds(b"")
        self.mac = spelled(gateway_mac) or HERE
        """Of the gateway in this process."""
        self._hub = hub
        self._keys: dict[str, Key] = {}
        self._own = gateway_key
        self._watching: list[Callable[[Key], None]] = []

    async def load(self) -> None:
        """Read the keys, and the secret that seals channel ids; made at the first start."""
        documents = self._hub.documents
        found = await documents.get("secret", "channels")
        if found is None:
            with contextlib.suppress(Conflict):  # another node was faster
                await documents.commit([documents.put("secret", "channels", msgspec.json.encode(secrets.token_bytes(32)), expect=0)])
            found = await documents.get("secret", "channels")
            assert found is not None
        self.ids = ChannelIds(msgspec.json.decode(found.body, type=bytes))
        for document in await documents.find(KIND):
            self._keys[document.id] = _decoder.decode(document.body)

    def find(self, text: str) -> Key | None:
        """The key that this is, or None."""
        if len(text) > _LONGEST:
            return None
        if self._own is not None and hmac.compare_digest(text.encode(), self._own.reveal().encode()):
            return Key(number="0", account=ADMIN_ACCOUNT, digest="", created=0, mac=self.mac)
        try:
            number, colon, secret = base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)).partition(b":")
        except (binascii.Error, ValueError):
            return None
        key = self._keys.get(number.decode("ascii", "replace"))
        if key is None or not colon or not hmac.compare_digest(bytes.fromhex(key.digest), hashlib.sha256(secret).digest()):
            return None
        return key

    def watch(self, told: Callable[[Key], None]) -> None:
        """``told`` is called with each key that is revoked."""
        self._watching.append(told)

    def all(self) -> list[Key]:
        """Ordered by number."""
        return [self._keys[number] for number in sorted(self._keys)]

    async def create(
        self, principal: Principal, account: str, *, mac: str = "", site: str = "", name: str = "", number: str | None = None
    ) -> tuple[Key, str]:
        """A new key and its text, which is shown this once. Raises Forbidden, NotFound (the account, the site), InvalidInput, Conflict."""
        hub = self._hub
        hub.accounts.require(principal, "key.manage")
        owner = hub.accounts.account(account)
        if site:
            hub.accounts.site(principal, site)
        if number is None:
            number = str(secrets.randbelow(90_000_000) + 10_000_000)
        if not _NUMBER.fullmatch(number):
            raise InvalidInput("$.number: expected 1 to 12 digits", (FieldFault("$.number", "expected 1 to 12 digits"),))
        secret = secrets.token_urlsafe(24)
        key = Key(
            number=number, account=owner.id, digest=hashlib.sha256(secret.encode()).hexdigest(), created=hub.clock.now(), mac=spelled(mac),
            site=site, name=name,
        )  # fmt: skip
        try:
            line = audit.entry(hub.clock, principal, "key.manage", number, "done", data={"created": owner.id, "mac": key.mac})
            await hub.intake.commit([hub.documents.put(KIND, number, msgspec.json.encode(key), expect=0), line])
        except Conflict:
            raise Conflict(f"there is a key {number} already") from None
        self._keys[number] = key
        return key, base64.urlsafe_b64encode(f"{number}:{secret}".encode()).rstrip(b"=").decode("ascii")

    async def revoke(self, principal: Principal, number: str) -> None:
        """From now on it opens nothing. Raises Forbidden, NotFound."""
        self._hub.accounts.require(principal, "key.manage")
        key = self._keys.get(number)
        if key is None:
            raise NotFound(f"there is no key {number[:20]!r}")
        line = audit.entry(self._hub.clock, principal, "key.manage", number, "done", data={"revoked": key.account, "mac": key.mac})
        await self._hub.intake.commit([self._hub.documents.delete(KIND, number), line])
        self._keys.pop(number, None)
        for told in self._watching:
            told(key)


# -------------------------------------------------------------------------------------------------------- the hub's own API


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key for clients of an account, or (with ``mac``) for a gateway of theirs."""

    account: Annotated[str, Meta(min_length=1, max_length=254, description="an account's id or e-mail address")]
    mac: Mac | None = None
    site: Annotated[str, Meta(max_length=200, description="a site's id: where new devices of this gateway are")] = ""
    name: Annotated[str, Meta(max_length=200)] = ""
    number: Annotated[str, Meta(pattern=r"^[0-9]{1,12}$(?!\n)", description="the digits in it; absent: any that are free")] | None = None


class KeyOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A key; its secret is not kept."""

    number: str
    kind: Literal["account", "gateway"]
    account: str
    created: str
    mac: str = ""
    site: str = ""
    name: str = ""


class KeyMade(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, shown this once."""

    number: str
    key: str


class KeyPage(msgspec.Struct, frozen=True):
    """All keys, by number."""

    items: tuple[KeyOut, ...]


def operations(hub: Hub, keys: Keys) -> list[Operation]:
    """What the hub's own API has of keys."""

    async def list_keys(principal: Principal) -> KeyPage:
        """Without their secrets, which are not kept."""
        hub.accounts.require(principal, "key.manage")
        return KeyPage(tuple(_shown(key) for key in keys.all()))

    async def create_key(principal: Principal, body: NewKey) -> KeyMade:
        """Its text is answered this once."""
        key, text = await keys.create(principal, body.account, mac=body.mac or "", site=body.site, name=body.name, number=body.number)
        return KeyMade(number=key.number, key=text)

    async def revoke_key(principal: Principal, number: str) -> None:
        """It opens nothing from now on; a gateway that came with it is cut off."""
        await keys.revoke(principal, number)

    return [
        Operation(method="GET", path="/api/v1/ekm/keys", function=list_keys, summary="Keys of the Settings API", tag="ekm"),
        Operation(
            method="POST", path="/api/v1/ekm/keys", function=create_key, summary="Create a key", tag="ekm", status=201,
            refuses={404: "There is no such account or site.", 409: "There is a key of this number."},
        ),
        Operation(
            method="DELETE", path="/api/v1/ekm/keys/{number}", function=revoke_key, summary="Revoke a key", tag="ekm", status=204,
            parameters={"number": "The digits of a key, as the list shows them."}, refuses={404: "There is no such key."},
        ),
    ]  # fmt: skip


def _shown(key: Key) -> KeyOut:
    return KeyOut(
        number=key.number, kind="gateway" if key.gateway else "account", account=key.account, created=rfc3339(key.created), mac=key.mac,
        site=key.site, name=key.name,
    )  # fmt: skip
