"""What the hub counts about itself: a small registry of counters, gauges and histograms, without any dependency.

Names start with ``gridloom_`` and end in a base unit (``_seconds``, ``_bytes``) or, for counters, in ``_total``. Labels are bounded: at most
10,000 combinations per metric; what comes after is counted under ``other``, and how much that was is a metric of its own.
``web`` renders it for Prometheus.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]
Read = Callable[[], "float | Mapping[Values, float]"]

SERIES_LIMIT = 10_000
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NAME = re.compile(r"gridloom_[a-z][a-z0-9_]*[a-z0-9]")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class Value(msgspec.Struct, frozen=True):
    """One line of a family: ``suffix`` is empty, ``_bucket``, ``_sum`` or ``_count``."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Family(msgspec.Struct, frozen=True):
    """One metric with all its lines now. A counter's ``name`` ends in ``_total``."""

    name: str
    kind: Kind
    help: str
    values: tuple[Value, ...]


class _Metric:
    """Names, labels and the bound on their number."""

    kind: Kind

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"metric {name!r}: a name is gridloom_ and words of a-z, 0-9 and _")
        for label in labels:
            if not _LABEL.fullmatch(label):
                raise ValueError(f"metric {name!r}: label {label!r} is not a word of a-z, 0-9 and _")
        self.name = name
        self.help = help
        self.labels = tuple(labels)
        self.overflowed = 0
        self._known: set[Values] = set()
        self._other = (OTHER,) * len(self.labels)

    def _key(self, given: Mapping[str, str]) -> Values:
        if len(given) != len(self.labels):
            raise ValueError(f"metric {self.name} takes the labels {self.labels}, not {tuple(given)}")
        try:
            key = tuple([given[label] for label in self.labels])
        except KeyError as missing:
            raise ValueError(f"metric {self.name} takes the labels {self.labels}, not {tuple(given)}") from missing
        return self._bounded(key)

    def _bounded(self, key: Values) -> Values:
        if key in self._known:
            return key
        if len(self._known) >= SERIES_LIMIT:
            self.overflowed += 1
            return self._other
        self._known.add(key)
        return key

    def _named(self, key: Values) -> tuple[tuple[str, str], ...]:
        return tuple(zip(self.labels, key, strict=True))


class BoundCounter:
    """A counter whose labels are settled: the cheap way in a hot path."""

    __slots__ = ("_key", "_values")

    def __init__(self, values: dict[Values, float], key: Values) -> None:
        self._values = values
        self._key = key

    def inc(self, n: float = 1) -> None:
        """Add ``n``."""
        self._values[self._key] += n


class Counter(_Metric):
    """Only goes up."""

    kind: Kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        if not name.endswith("_total"):
            raise ValueError(f"counter {name!r} must end in _total")
        super().__init__(name, help, labels)
        self._values: dict[Values, float] = {}
        if not labels:
            self._values[self._bounded(())] = 0

    def inc(self, n: float = 1, **labels: str) -> None:
        """Add ``n`` (0 or more)."""
        if n < 0:
            raise ValueError(f"counter {self.name} only goes up, not by {n}")
        key = self._key(labels)
        self._values[key] = self._values.get(key, 0) + n

    def bind(self, **labels: str) -> BoundCounter:
        """The counter of these labels, at 0 from now on."""
        key = self._key(labels)
        self._values.setdefault(key, 0)
        return BoundCounter(self._values, key)

    def value(self, **labels: str) -> float:
        """What was counted under these labels."""
        return self._values.get(tuple(labels[label] for label in self.labels), 0)

    def values(self) -> tuple[Value, ...]:
        """All lines."""
        return tuple(Value("", self._named(key), value) for key, value in self._values.items())


class Gauge(_Metric):
    """Goes up and down; either set, or read when somebody looks."""

    kind: Kind = "gauge"

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), read: Read | None = None) -> None:
        super().__init__(name, help, labels)
        self._values: dict[Values, float] = {}
        self._read = read

    def set(self, value: float, **labels: str) -> None:
        """It is ``value`` now."""
        self._values[self._key(labels)] = value

    def add(self, n: float, **labels: str) -> None:
        """It is ``n`` more (or less) now."""
        key = self._key(labels)
        self._values[key] = self._values.get(key, 0) + n

    def value(self, **labels: str) -> float:
        """What it is now under these labels."""
        wanted = tuple(labels[label] for label in self.labels)
        return next((line.value for line in self.values() if tuple(value for _, value in line.labels) == wanted), 0)

    def values(self) -> tuple[Value, ...]:
        """All lines."""
        values: Mapping[Values, float] = self._values
        if self._read is not None:
            read = self._read()
            values = read if isinstance(read, Mapping) else {(): float(read)}
        lines: dict[Values, float] = {}
        for key, value in values.items():
            bounded = self._bounded(key)
            lines[bounded] = lines[bounded] + value if bounded is not key and bounded in lines else value
        return tuple(Value("", self._named(key), value) for key, value in lines.items())


class Histogram(_Metric):
    """How often a value fell below each bound; cumulative in ``values`` as Prometheus wants it."""

    kind: Kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help, labels)
        if list(bounds) != sorted(set(bounds)) or not bounds:
            raise ValueError(f"histogram {name!r} needs ascending bounds, not {bounds}")
        self.bounds = tuple(bounds)
        self._counts: dict[Values, list[int]] = {}
        self._sums: dict[Values, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        """One more value."""
        key = self._key(labels)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = [0] * (len(self.bounds) + 1)
            self._sums[key] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self._sums[key] += value

    def values(self) -> tuple[Value, ...]:
        """All lines: buckets with the label ``le``, sum and count."""
        lines: list[Value] = []
        for key, counts in self._counts.items():
            named = self._named(key)
            total = 0
            for bound, count in zip([*map(_number, self.bounds), "+Inf"], counts, strict=True):
                total += count
                lines.append(Value("_bucket", (*named, ("le", bound)), total))
            lines.append(Value("_sum", named, self._sums[key]))
            lines.append(Value("_count", named, total))
        return tuple(lines)


def _number(bound: float) -> str:
    return repr(float(bound))


M = TypeVar("M", "Counter", "Gauge", "Histogram")


class Metrics:
    """All metrics of one hub. Asking twice for a name gives the same metric; asking for it as something else is an error."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; ``name`` ends in ``_total``."""
        found = self._metrics.get(name)
        if found is None:
            found = self._metrics[name] = Counter(name, help, labels)
        return self._same(found, Counter, labels)

    def gauge(self, name: str, help: str, labels: Sequence[str] = (), read: Read | None = None) -> Gauge:
        """A gauge. ``read`` is asked when somebody looks: a number, or numbers by label values. A newer ``read`` replaces the older."""
        found = self._metrics.get(name)
        if found is None or (read is not None and isinstance(found, Gauge)):
            found = self._metrics[name] = Gauge(name, help, labels, read)
        return self._same(found, Gauge, labels)

    def histogram(self, name: str, help: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS) -> Histogram:
        """A histogram; bounds in the metric's unit."""
        found = self._metrics.get(name)
        if found is None:
            found = self._metrics[name] = Histogram(name, help, labels, bounds)
        return self._same(found, Histogram, labels)

    def collect(self) -> list[Family]:
        """Everything now, ordered by name."""
        families = [Family(name, metric.kind, metric.help, metric.values()) for name, metric in self._metrics.items()]
        overflowed = tuple(Value("", (("metric", name),), metric.overflowed) for name, metric in self._metrics.items() if metric.overflowed)
        if overflowed:
            families.append(Family("gridloom_metrics_overflowed_total", "counter", "Values counted under 'other', by metric.", overflowed))
        return sorted(families, key=lambda family: family.name)

    @staticmethod
    def _same(found: object, kind: type[M], labels: Sequence[str]) -> M:
        if not isinstance(found, kind) or found.labels != tuple(labels):
            raise ValueError(f"metric {getattr(found, 'name', '?')} exists as a {type(found).__name__} with other labels")
        return found
