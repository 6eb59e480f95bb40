"""Lines of the audit trail look alike, whoever writes them."""

from __future__ import annotations

from tests.core.world import World

from gridloom.core import audit
from gridloom.core.clock import Clock
from gridloom.core.model import Principal, Severity


async def test_a_line_says_who_what_when_from_where_with_which_result(world: World) -> None:
    who = Principal("bob", (), "token 1", "10.0.0.9", "curl/8")
    line = audit.entry(world.clock, who, "relay.set", "dummy:m1", "refused: no", device="dummy:m1", data={"relay": 1})
    assert (line.stream, line.device, line.kind, line.severity) == ("audit", "dummy:m1", "relay.set", Severity.WARNING.rank)
    await world.store.commit([line])
    found = audit.decode(line)
    assert (found.account, found.action, found.target, found.result) == ("bob", "relay.set", "dummy:m1", "refused: no")
    assert (found.token, found.address, found.client, found.data) == ("token 1", "10.0.0.9", "curl/8", {"relay": 1})
    assert found.time == line.time
    assert (await world.query.audit(world.admin, actions=["relay.*"])).lines == (found,)


def test_what_the_hub_does_by_itself_has_its_name() -> None:
    line = audit.decode(audit.entry(Clock(), None, "command.expire", "x", "done"))
    assert (line.account, line.address, line.client) == (audit.HUB_ACCOUNT, "", "")
    assert audit.entry(Clock(), None, "a", "x", "accepted").severity == Severity.INFO.rank
