"""``[everest]``: which brokers, and which meters of the hub are powermeter modules of an EVerest charger there."""

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


class Section(Table, frozen=True):
    """The keys of ``[everest]``.

    ``broker``: of all modules that name none. ``prefix``: EVerest's ``mqtt_external_prefix``, put before every topic. ``ca_file``: whom to trust
    with ``mqtts://`` instead of the machine's authorities.
    """

    broker: BrokerUrl | None = None
    prefix: str = ""
    ca_file: ReadableFile | None = None
    powermeter: tuple[Powermeter, ...] = ()

    def __post_init__(self) -> None:
        known: set[str] = set()
        for index, one in enumerate(self.powermeter):
            if one.broker is None and self.broker is None:
                raise ValueError(f"powermeter[{index}]: neither it nor [everest] names a broker")
            if one.module_id in known:
                raise ValueError(f"powermeter[{index}].module_id: {one.module_id!r} is there twice; it names the device everest:{one.module_id}")
            known.add(one.module_id)
