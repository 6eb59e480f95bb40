"""The small registry of counters, gauges and histograms."""

from __future__ import annotations

import pytest

from gridloom.core import metrics as module
from gridloom.core.metrics import Family, Metrics, Value


def family(metrics: Metrics, name: str) -> Family:
    return next(one for one in metrics.collect() if one.name == name)


def test_a_counter_counts_by_labels() -> None:
    metrics = Metrics()
    counter = metrics.counter("gridloom_things_total", "Things.", ("kind",))
    counter.inc(kind="a")
    counter.inc(2, kind="b")
    counter.bind(kind="a").inc(3)
    assert counter.value(kind="a") == 4
    assert family(metrics, "gridloom_things_total").values == (Value("", (("kind", "a"),), 4), Value("", (("kind", "b"),), 2))
    with pytest.raises(ValueError, match="only goes up"):
        counter.inc(-1, kind="a")


def test_a_counter_without_labels_is_there_from_the_start() -> None:
    metrics = Metrics()
    metrics.counter("gridloom_things_total", "Things.")
    assert family(metrics, "gridloom_things_total").values == (Value("", (), 0),)


def test_asking_twice_gives_the_same_metric_and_never_another_kind() -> None:
    metrics = Metrics()
    assert metrics.counter("gridloom_things_total", "Things.") is metrics.counter("gridloom_things_total", "Things.")
    with pytest.raises(ValueError, match="exists"):
        metrics.gauge("gridloom_things_total", "Things.")
    with pytest.raises(ValueError, match="exists"):
        metrics.counter("gridloom_things_total", "Things.", ("kind",))


def test_a_gauge_is_set_or_read_when_somebody_looks() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("gridloom_depth", "Depth.")
    gauge.set(4)
    gauge.add(-1)
    assert gauge.value() == 3
    there: dict[tuple[str, ...], float] = {("a",): 1.0}
    metrics.gauge("gridloom_queues", "Queues.", ("queue",), lambda: there)
    there["b",] = 2.0
    assert family(metrics, "gridloom_queues").values == (Value("", (("queue", "a"),), 1), Value("", (("queue", "b"),), 2))


def test_a_histogram_is_cumulative() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("gridloom_wait_seconds", "Wait.", bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    lines = {(value.suffix, dict(value.labels).get("le")): value.value for value in family(metrics, "gridloom_wait_seconds").values}
    assert lines == {("_bucket", "0.1"): 2, ("_bucket", "1.0"): 3, ("_bucket", "+Inf"): 4, ("_count", None): 4, ("_sum", None): pytest.approx(7.65)}


def test_labels_are_bounded_and_what_is_beyond_is_counted_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SERIES_LIMIT", 3)
    metrics = Metrics()
    counter = metrics.counter("gridloom_things_total", "Things.", ("device",))
    for number in range(5):
        counter.inc(device=str(number))
    counter.inc(device="1")
    values = {value.labels[0][1]: value.value for value in counter.values()}
    assert values == {"0": 1, "1": 2, "2": 1, "other": 2}
    assert family(metrics, "gridloom_metrics_overflowed_total").values == (Value("", (("metric", "gridloom_things_total"),), 2),)


@pytest.mark.parametrize("name", ["things_total", "gridloom_Things_total", "gridloom_things", "gridloom__total_"])
def test_a_counters_name_has_prefix_and_suffix(name: str) -> None:
    with pytest.raises(ValueError):
        Metrics().counter(name, "Things.")


def test_wrong_labels_are_an_error() -> None:
    counter = Metrics().counter("gridloom_things_total", "Things.", ("kind",))
    with pytest.raises(ValueError, match="takes the labels"):
        counter.inc(sort="a")
    with pytest.raises(ValueError, match="takes the labels"):
        counter.inc()
