"""What a history of operations on a registry may look like: a record of them, and a check against a simple model."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

NEVER = float("inf")
STALE_S = 2.0
"""Until a replica knows what another did: far above the usual 0.05 s, as the machine is made busy on purpose."""

Verdict = tuple[Any, ...]


@dataclass(frozen=True)
class Event:
    """One request and its answer."""

    kind: str
    """fit, predict, put_alias, delete_alias, delete_version, delete_series."""
    series_id: str
    replica: int
    start_s: float
    end_s: float
    status: int | None
    """None when there was no answer."""
    selector: str = ""
    """Of a prediction: latest, a number or @alias."""
    version: int = 0
    """That was made, that answered, or that was named."""
    name: str = ""
    """Of an alias."""
    mean: float = 0.0
    """What was fitted, which no other fit has; or what the verdict expected."""
    verdict: Verdict = ()
    key: str = ""

    @property
    def is_acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def may_have_happened(self) -> bool:
        """Without an answer, or with one that promises nothing."""
        return self.is_acknowledged or self.status in {None, 503}

    @property
    def ends_s(self) -> float:
        """When it was over for certain: a request that was not answered may still be at work."""
        return self.end_s if self.status is not None and self.status != 503 else NEVER


class Stored(NamedTuple):
    """What a version says at the end."""

    status: int
    mean: float = 0.0
    verdict: Verdict = ()


@dataclass
class History:
    """All that was asked and answered, when the database was away, and what there is at the end."""

    events: list[Event] = field(default_factory=list)
    outages_s: list[tuple[float, float]] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)
    """The highest number of each series."""
    versions: dict[tuple[str, int], Stored] = field(default_factory=dict)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)


def objections(history: History, stale_s: float = STALE_S) -> list[str]:
    """What of a history no registry may do that keeps its promises; nothing if it did."""
    by_series: dict[str, list[Event]] = defaultdict(list)
    for event in history.events:
        by_series[event.series_id].append(event)
    found = []
    for series_id, events in by_series.items():
        found += _Check(series_id, events, history, stale_s).objections()
    return found


class _Check:
    """One series: nothing is promised across two."""

    def __init__(self, series_id: str, events: Sequence[Event], history: History, stale_s: float) -> None:
        self._series_id = series_id
        self._history = history
        self._stale_s = stale_s
        self._of: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            self._of[event.kind].append(event)
        self._made = {event.version: event for event in self._of["fit"] if event.is_acknowledged}
        self._last = history.last.get(series_id, 0)
        self._deletions = [
            event for event in self._of["delete_version"] + self._of["delete_series"] if event.may_have_happened
        ]

    def objections(self) -> list[str]:
        checks = (self._answers, self._numbers, self._keys, self._contents, self._predictions, self._aliases)
        return [f"{self._series_id}: {fault}" for check in checks for fault in check()]

    def _answers(self) -> Iterator[str]:
        for events in self._of.values():
            for event in events:
                if event.status == 500:
                    yield f"{event.kind} {event.selector} was answered with 500"

    def _numbers(self) -> Iterator[str]:
        """No gap, no clash, nothing lost."""
        means: dict[int, float] = {}
        for event in self._of["fit"]:
            if event.is_acknowledged and means.setdefault(event.version, event.mean) != event.mean:
                yield f"version {event.version} was given to two fits"
        for number in self._made:
            if number > self._last:
                yield f"version {number} was acknowledged, and {self._last} is the highest"
        for number in range(1, self._last + 1):
            stored = self._history.versions.get((self._series_id, number), Stored(404))
            if stored.status not in {200, 410}:
                yield f"version {number} of {self._last} is missing: {stored.status}"
            elif stored.status == 410 and not self._may_be_deleted(number, NEVER):
                yield f"version {number} is deleted, and nobody deleted it"
        for deletion in self._of["delete_version"]:
            if deletion.is_acknowledged and self._status(deletion.version) == 200:
                yield f"version {deletion.version} is there, and its deletion was acknowledged"

    def _keys(self) -> Iterator[str]:
        """One version for each key, however often it was sent."""
        versions: dict[str, set[int]] = defaultdict(set)
        for event in self._of["fit"]:
            if event.key and event.is_acknowledged:
                versions[event.key].add(event.version)
        for key, numbers in versions.items():
            if len(numbers) > 1:
                yield f"key {key} made versions {sorted(numbers)}"

    def _contents(self) -> Iterator[str]:
        """Each version is the whole of one fit, and says the same for ever."""
        fitted = {event.mean: event for event in self._of["fit"] if event.may_have_happened}
        said: dict[int, tuple[float, Verdict]] = {n: (e.mean, ()) for n, e in self._made.items()}
        seen: dict[float, int] = {}
        answers = [(e.version, e.mean, e.verdict) for e in self._of["predict"] if e.status == 200]
        stored = [
            (number, each.mean, each.verdict)
            for (series_id, number), each in self._history.versions.items()
            if series_id == self._series_id and each.status == 200
        ]
        for number, mean, verdict in answers + stored:
            before = said.setdefault(number, (mean, verdict))
            if mean != before[0] or (before[1] and verdict != before[1]):
                yield f"version {number} says {mean} {verdict}, and is of {before[0]} {before[1]}"
            elif not before[1]:
                said[number] = (mean, verdict)
            if mean not in fitted:
                yield f"version {number} says {mean}, which nobody fitted"
            if seen.setdefault(mean, number) != number:
                yield f"the fit of {mean} made versions {seen[mean]} and {number}"

    def _predictions(self) -> Iterator[str]:
        for event in self._of["predict"]:
            if event.selector == "latest":
                yield from self._latest(event)
            elif event.selector.isdigit():
                yield from self._numbered(event, int(event.selector))

    def _latest(self, read: Event) -> Iterator[str]:
        known = [
            number
            for number, fit in self._made.items()
            if self._is_settled(fit, read) and not self._may_be_deleted(number, read.end_s)
        ]
        newest = max(known, default=0)
        if read.status == 200 and read.version < newest:
            yield f"the latest was {read.version} on replica {read.replica} after {newest} was acknowledged"
        if read.status in {404, 410} and newest:
            yield f"there was no latest ({read.status}) on replica {read.replica} after {newest} was acknowledged"

    def _numbered(self, read: Event, number: int) -> Iterator[str]:
        if read.status == 200:
            if read.version != number:
                yield f"version {number} was asked for, and {read.version} answered"
            if any(self._is_settled(each, read) for each in self._deletions_of(number)):
                yield f"version {number} answered on replica {read.replica} after its deletion was acknowledged"
        made = self._made.get(number)
        if read.status == 404 and made is not None and made.ends_s < read.start_s:
            yield f"version {number} was not found after it was acknowledged"
        if read.status == 410 and not self._may_be_deleted(number, read.end_s):
            yield f"version {number} was said to be deleted before anybody deleted it"

    def _aliases(self) -> Iterator[str]:
        for (series_id, name), number in self._history.aliases.items():
            if series_id == self._series_id and self._status(number) != 200:
                yield f"alias {name} points at version {number}, which is not there"
        for read in self._of["predict"]:
            if read.selector.startswith("@") and read.status in {200, 404, 410}:
                allowed = self._may_mean(read.selector[1:], read)
                meant = read.version if read.status == 200 else None
                if meant not in allowed:
                    may_mean = ", ".join(map(str, allowed))
                    yield f"{read.selector} meant {meant} on replica {read.replica}, and may mean {may_mean}"

    def _may_mean(self, name: str, read: Event) -> set[int | None]:
        """What an alias may point at during a prediction: what was written last, or by someone still at it."""
        writes = [event for event in self._of["put_alias"] + self._of["delete_alias"] if event.name == name]
        writes = [write for write in writes + self._of["delete_series"] if write.may_have_happened]
        settled = [write for write in writes if write.is_acknowledged and self._is_settled(write, read)]
        newest_start_s = max((write.start_s for write in settled), default=-NEVER)
        allowed: set[int | None] = set() if settled else {None}
        for write in writes:
            if write.start_s < read.end_s and write.ends_s >= newest_start_s:
                allowed.add(write.version if write.kind == "put_alias" else None)
        return allowed

    def _status(self, number: int) -> int:
        return self._history.versions.get((self._series_id, number), Stored(404)).status

    def _may_be_deleted(self, number: int, by_s: float) -> bool:
        return any(each.start_s < by_s for each in self._covering(number))

    def _covering(self, number: int) -> Iterator[Event]:
        return (each for each in self._deletions if each.kind == "delete_series" or each.version == number)

    def _deletions_of(self, number: int) -> Iterator[Event]:
        """Those that were acknowledged, and began when the version was there."""
        made = self._made.get(number)
        for each in self._covering(number):
            of_it = each.kind == "delete_version" or (made is not None and made.end_s < each.start_s)
            if each.is_acknowledged and of_it:
                yield each

    def _is_settled(self, write: Event, read: Event) -> bool:
        """Whether the replica that was asked had to know of it: at once if it was the same one, else after a while."""
        if write.replica == read.replica:
            return write.ends_s < read.start_s
        known_s = write.ends_s + self._stale_s
        for began_s, ended_s in self._history.outages_s:
            if began_s < known_s and write.ends_s < ended_s + self._stale_s:
                known_s = max(known_s, ended_s + self._stale_s)
        return known_s < read.start_s


def counts(history: History) -> Mapping[str, int]:
    """How much of what there is in it."""
    found: dict[str, int] = defaultdict(int)
    for event in history.events:
        found[event.kind if event.status is not None else "unanswered"] += 1
        found["503"] += event.status == 503
    return found
