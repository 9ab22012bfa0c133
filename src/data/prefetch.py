"""An error in the batches of one of several processes is known a step early, so that all can stop together."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from src.data.loader import TrainLoader


class Prefetcher:
    """The batches of a TrainLoader; of several processes each is prepared before the step of the one in front of it.

    An error in preparing one, the next epoch's first too, is kept in `error` instead of raised. The batch in front
    still comes, and its step can tell the others: they would wait for this process in the next one. An error in the
    very first batch is raised. total_steps: steps of the run. A process alone reads as the loader does.
    """

    def __init__(self, loader: TrainLoader, total_steps: int):
        self.loader, self.total_steps, self.error = loader, total_steps, None
        self.begun = {}  # epoch: its iterator and first batch, while the last batch of the epoch before is used

    def epoch(self, epoch: int, first: int = 0) -> Iterator[list[np.ndarray]]:
        """Iterates over the batches of an epoch, from step `first` of it on."""
        if self.loader.world == 1:
            yield from self.loader.epoch(epoch, first)
            return
        source, batch = self.begun.pop(epoch, (None, None))
        if source is None:
            source = self.loader.epoch(epoch, first)
            batch = next(source, None)
        done = epoch * self.loader.steps + first
        while batch is not None:
            done += 1
            following = self.next_batch(source) if done < self.total_steps else None
            if done < self.total_steps and done % self.loader.steps == 0 and not self.error:
                source = self.loader.epoch(epoch + 1)
                self.begun[epoch + 1] = source, self.next_batch(source)
            yield batch
            batch = following

    def next_batch(self, source: Iterator[list[np.ndarray]]) -> list[np.ndarray] | None:
        """The next batch, None at the end and where it cannot be had."""
        try:
            return next(source, None)
        except Exception as error:  # of any kind: the others wait for this process
            self.error = error
            return None

    def close(self) -> None:
        """Ends an epoch that was begun and will not come, and the workers of the loader."""
        for source, _ in self.begun.values():
            source.close()
        self.loader.close()
