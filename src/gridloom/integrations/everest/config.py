"""``[everest]``: which brokers, which meters of the hub are powermeter modules of an EVerest charger there, and which chargers are devices."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gridloom.core.settings import Duration, ReadableFile, SecretFile, Setting
from gridloom.core.settings import Section as Table
from gridloom.links import mqtt


class BrokerUrl(Setting):
    """Where an MQTT broker is."""

    ALLOWED = 'a broker "mqtt://[user:password@]host[:port]", or "mqtts://…" for TLS'
    __slots__ = ()

    def __new__(cls, text: str) -> BrokerUrl:
        mqtt.broker(text)
        return super().__new__(cls, text)


ModuleId = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=r"^[^/+#\x00]+$(?!\n)", description="key of the module in EVerest's configuration")
]


class Powermeter(Table, frozen=True):
    """One ``[[everest.powermeter]]``: a meter of the hub as a powermeter module.

    ``module_id``: key of the module in EVerest's configuration. ``device``: the meter's id in the hub, e.g. ``tic:021762010203``; ``location``
    which of its points of measurement, if it has several. ``signing_key_file``: private key (PEM or DER); without it one is made at
    first use and kept in the data directory. ``max_age``: how old a value may be, counted from its arrival at the hub. ``check_timeout``:
    EVerest's ``cfg_communication_check_to_s``; the hub says three times as often that it is alive. ``records``: ``one`` signed record with begin
    and end at the stop, or ``two``, of which the first is in the answer to the start. ``shortest`` and ``longest``: the stop times that EVerest is
    told at the start. ``broker``, ``prefix``: instead of those of ``[everest]``.
    """

    module_id: ModuleId
    device: str
    location: str | None = None
    signing_key_file: SecretFile | None = None
    max_age: Duration = Duration(3)
    check_timeout: Duration = Duration(5)
    records: Literal["one", "two"] = "one"
    shortest: Duration | None = None
    longest: Duration | None = None
    broker: BrokerUrl | None = None
    prefix: str | None = None


Connector = Annotated[int, Meta(ge=1, le=128)]


class Charger(Table, frozen=True):
    """One ``[[everest.charger]]``: an EVSE of an EVerest charger as a device of the hub, ``everest:NAME``.

    The keys of modules in EVerest's configuration: ``evse_manager`` of the evse_manager_consumer_API; and, each with the orders that it makes
    possible, ``limits`` of the external_energy_limits_consumer_API, ``tokens`` of the auth_token_provider_API (start), ``authorization`` of the
    auth_consumer_API, ``errors`` of the error_history_consumer_API, ``costs`` of the session_cost_consumer_API (what the charger says),
    ``session_cost`` of the session_cost_API (what the hub says). ``connector``: its number at the charger. ``identification``: on whose account
    is charged when an order does not say. ``check_timeout``: the modules' ``cfg_communication_check_to_s``. ``broker``, ``prefix``: instead of
    those of ``[everest]``.
    """

    name: ModuleId
    evse_manager: ModuleId
    limits: ModuleId | None = None
    tokens: ModuleId | None = None
    authorization: ModuleId | None = None
    errors: ModuleId | None = None
    costs: ModuleId | None = None
    session_cost: ModuleId | None = None
    connector: Connector = 1
    identification: Annotated[str, Meta(min_length=1, max_length=36)] | None = None
    check_timeout: Duration = Duration(5)
    broker: BrokerUrl | None = None
    prefix: str | None = None


class Section(Table, frozen=True):
    """The keys of ``[everest]``.

    ``broker``: of all that name none. ``prefix``: EVerest's ``mqtt_external_prefix``, put before every topic. ``ca_file``: whom to trust
    with ``mqtts://`` instead of the machine's authorities.
    """

    broker: BrokerUrl | None = None
    prefix: str = ""
    ca_file: ReadableFile | None = None
    powermeter: tuple[Powermeter, ...] = ()
    charger: tuple[Charger, ...] = ()

    def __post_init__(self) -> None:
        known: set[str] = set()
        named = [(f"powermeter[{index}]", "module_id", one.module_id, one.broker) for index, one in enumerate(self.powermeter)]
        named += [(f"charger[{index}]", "name", one.name, one.broker) for index, one in enumerate(self.charger)]
        for where, key, name, broker in named:
            if broker is None and self.broker is None:
                raise ValueError(f"{where}: neither it nor [everest] names a broker")
            if name in known:
                raise ValueError(f"{where}.{key}: {name!r} is there twice; it names the device everest:{name}")
            known.add(name)


def demo() -> Section:
    """As it is shown in a demo: a broker inside the hub, a simulated EVerest, and the first meter that there is (``demonstration``)."""
    return Section()
