"""FACE: the powermeter modules and their keys, as the hub's own API tells them. No private key is ever in an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gridloom.core.accounts import Accounts
from gridloom.core.errors import NotFound
from gridloom.core.hub import Operation
from gridloom.core.model import Principal
from gridloom.integrations.everest.keys import PublicKey
from gridloom.integrations.everest.ocmf import NOTICE

TAG = "everest"


class PowermeterOut(msgspec.Struct, frozen=True):
    """A powermeter module. ``public_key``: SPKI in hexadecimal digits; ``former_keys`` verify older records; ``notice`` says what a signature is."""

    module_id: str
    device: str
    meter: str
    algorithm: str
    fingerprint: str
    public_key: str
    former_keys: tuple[str, ...]
    reason: str
    notice: str = NOTICE


class PowermeterList(msgspec.Struct, frozen=True):
    """All of the configuration."""

    items: tuple[PowermeterOut, ...]


class Face(Protocol):
    """A powermeter module, as far as it is shown."""

    id: str
    reason: str

    @property
    def name(self) -> str:
        """Its module_id."""
        ...

    @property
    def meter(self) -> str:
        """The device that is its meter."""
        ...

    @property
    def public_key(self) -> PublicKey:
        """Of the key that signs now."""
        ...


class Powermeters(Protocol):
    """All of them."""

    def powermeters(self) -> Sequence[Face]:
        """Those of the configuration."""
        ...

    def former(self, name: str) -> Sequence[PublicKey]:
        """Every public key that a module had before."""
        ...

    async def rotate(self, name: str) -> None:
        """A new key from now on. Raises Conflict when the key is the owner's own file."""
        ...


def operations(modules: Powermeters, accounts: Accounts) -> tuple[Operation, ...]:
    """Who the modules are, and a new key for one."""

    def shown(one: Face) -> PowermeterOut:
        key = one.public_key
        former = tuple(found.hex for found in modules.former(one.name))
        return PowermeterOut(one.name, one.id, one.meter, key.algorithm.name, key.fingerprint, key.hex, former, one.reason)

    def find(module_id: str) -> Face:
        for one in modules.powermeters():
            if one.name == module_id:
                return one
        raise NotFound(f"there is no powermeter {module_id[:60]!r}")

    async def list_powermeters(principal: Principal) -> PowermeterList:
        """With the public keys, also those of before: they verify older records."""
        accounts.require(principal, "hub.read")
        return PowermeterList(tuple(shown(one) for one in modules.powermeters()))

    async def rotate_key(principal: Principal, module_id: str) -> PowermeterOut:
        """Records from now on are signed with a new key; the public keys of before stay known. Only of a key that the hub made itself."""
        accounts.require(principal, "key.manage")
        find(module_id)
        await modules.rotate(module_id)
        return shown(find(module_id))

    refuses = {404: "There is no such powermeter in the configuration.", 409: "The key is a file of the owner (`signing_key_file`): change it there."}
    return (
        Operation(method="GET", path="/api/v1/everest/powermeters", function=list_powermeters, summary="Powermeter modules", tag=TAG),
        Operation(
            method="POST",
            path="/api/v1/everest/powermeters/{module_id}/rotate-key",
            function=rotate_key,
            summary="A new signing key",
            tag=TAG,
            refuses=refuses,
            parameters={"module_id": "Key of the module in EVerest's configuration."},
        ),
    )
