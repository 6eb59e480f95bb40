"""What a channel keeps and gives back, whatever comes in which order."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.integrations.ekm.channels import Asked, ChannelIds, Channels, Message, Place, asked, behind

NOW = 1_800_000_000


def test_a_path_names_channels_and_how_many_old_messages() -> None:
    assert asked("response_a-B.b20") == [Asked("response_a-B", 20)]
    assert asked("a.b3/b/c.b5") == [Asked("a", 3), Asked("b", 0), Asked("c", 5)]
    assert asked("a.b3/a") == [Asked("a", 3)], "a channel is heard once"


@pytest.mark.parametrize("path", ["", "a//b", "a/", "a.b", "a.bx", "a.c3", "ä", "a b", "a" * 129, "/".join(f"c{number}" for number in range(51))])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        asked(path)


def test_headers_name_a_place() -> None:
    since = "Fri, 15 Jan 2027 08:00:00 GMT"
    assert behind(since, "") == Place(NOW)
    assert behind(since, "W/3") == Place(NOW, 3)
    assert behind(since, '"3"') == Place(NOW, 3)
    assert behind("", "W/3") is None
    assert behind("yesterday", "") is None
    assert behind("", "", f"{NOW}:7") == Place(NOW, 7)
    place = Place(NOW, 4)
    assert behind(place.modified, f"W/{place.tag}") == place
    assert behind("", "", place.event_id) == place


@given(st.text(max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_no_header_is_too_strange(since: str, tag: str, event: str) -> None:
    behind(since, tag, event)


CHANNEL = st.sampled_from("abc")
PUBLISHED = st.lists(st.tuples(CHANNEL, st.integers(-3, 200), st.binary(max_size=30)), max_size=80)


@given(PUBLISHED, st.integers(0, 30), st.integers(0, 400))
def test_replay_is_the_youngest_of_each_in_order(published: list[tuple[str, int, bytes]], back: int, later: int) -> None:
    channels, model, now = Channels(), defaultdict[str, list[Message]](list), NOW
    last = Place(0, 0)
    for channel, pause, text in published:
        now += pause
        message = channels.publish(channel, text, now)
        assert message.place > last, "places only go up, also when the clock goes back"
        last = message.place
        model[channel].append(message)
    now = last.second + later if published else now
    alive = {channel: [one for one in messages[-20:] if one.place.second > now - 300] for channel, messages in model.items()}
    expected = sorted((one for messages in alive.values() for one in (messages[-back:] if back else [])), key=lambda one: one.place)
    assert channels.replay([Asked(channel, back) for channel in "abc"], None, now) == expected
    whole = sorted((one for messages in alive.values() for one in messages), key=lambda one: one.place)
    everything = [Asked(channel, 0) for channel in "abc"]
    assert channels.replay(everything, Place(0), now) == whole
    for number, message in enumerate(whole):
        assert channels.replay(everything, message.place, now) == whole[number + 1 :], "who names the last one it had gets all that is behind it"
    stored = sum(len(one.text) for messages in channels._channels.values() for one in messages)
    assert channels.size == stored
    channels.forget(now + 1_000_000)
    assert (len(channels), channels.size) == (0, 0)


def test_a_place_without_a_tag_is_behind_its_whole_second() -> None:
    channels = Channels()
    channels.publish("a", b"1", NOW)
    channels.publish("a", b"2", NOW)
    channels.publish("a", b"3", NOW + 1)
    assert [one.text for one in channels.replay([Asked("a", 0)], Place(NOW), NOW + 1)] == [b"3"]
    assert [one.text for one in channels.replay([Asked("a", 0)], Place(NOW, 1), NOW + 1)] == [b"2", b"3"]


def test_there_is_a_bound_over_all_channels() -> None:
    channels = Channels(size=1_000)
    for number in range(50):
        channels.publish(f"c{number}", b"x" * 100, NOW + number)
    assert channels.size <= 1_000
    assert len(channels) == 10
    assert channels.dropped == 40
    assert channels.replay([Asked("c0", 5)], None, NOW + 50) == []
    assert len(channels.replay([Asked("c49", 5)], None, NOW + 50)) == 1


def test_one_message_that_is_larger_than_all_room_is_not_kept() -> None:
    channels = Channels(size=10)
    assert channels.publish("a", b"x" * 11, NOW).text == b"x" * 11
    assert (len(channels), channels.size) == (0, 0)


def test_ids_are_stable_sealed_and_of_their_owner() -> None:
    ids, others = ChannelIds(b"s" * 32), ChannelIds(b"t" * 32)
    mine = ids.of("anna/1010")
    assert mine == ChannelIds(b"s" * 32).of("anna/1010"), "also after a restart"
    assert mine != ids.of("anna/1010", "other") != ids.of("bert/1010", "other")
    assert ids.of("anna/1010", mine) == mine, "an id of ours stands for itself"
    stolen = ids.of("bert/1010", mine)
    assert stolen != mine, "nobody else gets a channel by naming it"
    assert ids.issued(mine)
    assert ids.issued(stolen)
    assert not others.issued(mine)
    assert not ids.issued("response_" + "A" * 43)
    assert not ids.issued(mine[:-1])


@given(st.integers(0, 51), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_an_id_changed_in_one_place_is_none_of_ours(at: int, letter: str) -> None:
    ids = ChannelIds(b"s" * 32)
    id = ids.of("anna/1010")
    changed = id[:at] + letter + id[at + 1 :]
    assert ids.issued(changed) is (changed == id)
