"""Which checkpoints a run writes, and when."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator

from src.errors import DataError, EnvironmentFault, NotFiniteError
from src.machine.distributed import average_parameters
from src.models.freeze import STATISTICS
from src.training.state import RunState
from src.training.step import TrainStep
from src.weights import checkpoint


class Saver:
    """Writes the parameters of a TrainStep with the state of the run into `folder`.

    last.ckpt: within an epoch every `step_interval` steps (0: not), before an evaluation and after it; best.ckpt: at
    the best score; epoch_NUMBER.ckpt: every `epoch_interval` epochs and at the end, the newest max_numbered are kept;
    diverged.ckpt: after a loss that is not finite. facts: what each says of itself beside the state, JSON-able.
    last_saved: the step after which last.ckpt was written. All processes call the methods alike; rank 0 writes.
    """

    def __init__(self, step: TrainStep, folder: str, *, facts: dict, step_interval: int = 0, epoch_interval: int = 1,
                 max_numbered: int = 5, last_saved: int | None = None, rank: int = 0, world: int = 1):
        self.step, self.folder, self.facts = step, folder, facts
        self.step_interval, self.epoch_interval, self.max_numbered = step_interval, epoch_interval, max_numbered
        self.last_saved, self.rank, self.world = last_saved, rank, world

    def save_last(self, state: RunState, *, settled: bool = False) -> None:
        """Writes last.ckpt."""
        # each process has taken the statistics of BatchNorm of its own images; all go on with their mean
        statistics = [parameter for parameter in self.step.get_parameters() if parameter.name.endswith(STATISTICS)]
        average_parameters(statistics, self.rank, self.world)
        self.write("last", state, settled=settled)

    def save_best(self, state: RunState, *, scores: dict) -> None:
        """Writes best.ckpt, with the scores from which on boxes are worth showing. Only rank 0 knows when."""
        self.write("best", state, settled=True, scores=scores)

    def after_step(self, state: RunState) -> None:
        """Saves within an epoch, every step_interval steps."""
        if self.step_interval and state.steps_done % self.step_interval == 0 and not state.at_epoch_end:
            self.save_last(state)

    def after_epoch(self, state: RunState, *, evaluated: bool, ended: bool) -> None:
        """Saves at the end of an epoch. ended: that of the run too, before its last step."""
        numbered = state.is_complete or state.epoch % self.epoch_interval == 0
        if evaluated or numbered or self.step_interval:
            self.save_last(state, settled=True)
        if ended or numbered:
            self.write(f"epoch_{state.epoch:04d}", state, settled=True, keep=self.max_numbered)

    @contextlib.contextmanager
    def saving_at_fault(self, state: RunState) -> Iterator[None]:
        """Saves the state when an error ends the run."""
        try:
            yield
        except NotFiniteError:
            self.write("diverged", state)
            raise
        except (DataError, EnvironmentFault):  # between two steps
            # this process may be alone with it: its statistics are saved without the mean over the processes
            with contextlib.suppress(EnvironmentFault):  # it may be the saving that fails
                self.write("last", state)
            raise

    def write(self, name: str, state: RunState, *, settled: bool = False, keep: int = 0,
              scores: dict | None = None) -> None:
        """Writes one checkpoint, on rank 0. settled: it says that nothing is due, even if the state does not."""
        if self.rank == 0:
            meta = {**self.facts, **(scores or {}), **state.to_meta()}
            meta["settled"] |= settled
            checkpoint.save_run(self.folder, name, self.step.get_parameters(), meta=meta, keep=keep)
        if name == "last":
            self.last_saved = state.steps_done

    def what_is_saved(self) -> str:
        """What a user can go on from."""
        if self.last_saved is None:
            return "nothing was saved yet"
        return (f"{self.folder}/last.ckpt holds the state after step {self.last_saved}, --resume=True goes on from "
                "there")
