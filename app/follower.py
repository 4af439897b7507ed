"""Follows the feed of changes, so that each process knows what other processes did without asking each time."""

import time

from app.background import BackgroundLoop
from app.catalog import FEED_OVERLAP, Catalog, Change
from app.model_cache import ModelCache

POLL_INTERVAL_S = 0.05
GAP_PATIENCE_S = 60.0
"""How long an id that was skipped may still appear: longer than any of our transactions may last."""
START_OVER_S = 3600.0
"""After so long without the feed, parts of it may have been pruned."""
MOST_CHANGES = 1_000
"""Read at once; beyond as many gaps it is cheaper to forget everything."""

_IN_FLIGHT = 100
"""Transactions that may be uncommitted below the first of a feed."""


class ChangeFollower:
    """One background thread a process: reads the tail of the feed and makes the cache forget what changed.

    Ids are given before a transaction commits, so a smaller one may appear after a larger one. Ids that
    were skipped are therefore asked for again, until they appear or GAP_PATIENCE_S has passed.
    """

    def __init__(self, catalog: Catalog, cache: ModelCache) -> None:
        self._catalog = catalog
        self._cache = cache
        self._position: int | None = None
        self._missed: dict[int, float] = {}
        self._read_at = 0.0
        self._loop = BackgroundLoop(
            self.poll,
            interval_s=POLL_INTERVAL_S,
            failed="changes of other processes cannot be followed",
            recovered="changes of other processes are followed again",
        )

    def start(self) -> None:
        """Begin to follow."""
        self._loop.start()

    def stop(self) -> None:
        """End it; returns when it has ended."""
        self._loop.stop()

    def poll(self) -> None:
        """Read the feed to its end. Raises DatabaseUnavailable or SchemaOutdated; then nothing was skipped."""
        now = time.monotonic()
        if self._position is None or now - self._read_at > START_OVER_S:
            self._start_over(now)
        while len(self._read(now)) == MOST_CHANGES:
            pass
        self._missed = {id_: since for id_, since in self._missed.items() if now - since < GAP_PATIENCE_S}
        self._read_at = now

    def _start_over(self, now: float) -> None:
        # A little before the end: a change that was not committed yet shows there as a gap.
        last = self._catalog.last_change()
        first = self._catalog.changes_after(last - FEED_OVERLAP, [], 1)
        self._position = first[0].id - 1 - _IN_FLIGHT if first else last
        self._missed.clear()
        self._read(now)
        self._cache.forget_all()

    def _read(self, now: float) -> list[Change]:
        assert self._position is not None
        changes = self._catalog.changes_after(self._position, list(self._missed), MOST_CHANGES)
        for change in changes:
            self._missed.pop(change.id, None)
            if change.id > self._position:
                self._note_gap(self._position + 1, change.id, now)
                self._position = change.id
            for series_id in change.series_ids:
                self._cache.forget(series_id, models=change.deleted)
        return changes

    def _note_gap(self, first: int, end: int, now: float) -> None:
        if end - first + len(self._missed) <= MOST_CHANGES:
            self._missed.update(dict.fromkeys(range(first, end), now))
        else:  # the feed was pruned, or its counter jumped: cheaper to forget everything than to ask for each
            self._missed = dict.fromkeys(range(end - _IN_FLIGHT, end), now)
            self._cache.forget_all()
