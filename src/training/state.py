"""Where a run is: what its checkpoints store beside the weights."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RunState:
    """The progress of a run. A checkpoint stores it as JSON, but for the two limits, which are options."""
    steps_per_epoch: int
    total_steps: int              # limit: the run ends after this many steps
    early_stop: int = 0           # limit: and after this many evaluations without a better score, 0: not
    steps_done: int = 0
    best: float = -1.0            # best score of an evaluation, -1: not evaluated yet
    since_best: int = 0           # evaluations after the best one
    epoch_end_due: bool = False   # whether what follows the last epoch, an evaluation and checkpoints, is still to do
    plan: dict = field(default_factory=dict)  # with --minutes: a timing.Plan by its names, {} before it is made
    spent: float = 0.0            # with --minutes: seconds that all starts of the run have taken before that
    unlogged: list[dict] = field(default_factory=list)  # numbers of the steps after the last row of the log

    @classmethod
    def from_meta(cls, meta: dict, **limits: int | dict) -> RunState:
        """The state that a checkpoint stores, with the steps_per_epoch, the limits and the plan of this start."""
        state = cls(**limits, steps_done=meta["steps_done"], best=meta["best"], since_best=meta.get("since_best", 0),
                    spent=meta.get("spent", 0.0))
        if meta["steps_per_epoch"] == state.steps_per_epoch:
            state.unlogged = meta.get("unlogged", [])
        else:  # other processes or another batch: the same place in the epochs
            state.steps_done = round(state.steps_done * state.steps_per_epoch / meta["steps_per_epoch"])
        state.epoch_end_due = not meta.get("settled", True) and state.at_epoch_end
        return state

    def to_meta(self) -> dict:
        """What a checkpoint stores, JSON-able; older ones lack since_best, settled, unlogged, plan, spent."""
        return {"steps_per_epoch": self.steps_per_epoch, "steps_done": self.steps_done, "best": self.best,
                "since_best": self.since_best, "settled": not self.epoch_end_due, "unlogged": self.unlogged,
                "plan": self.plan, "spent": self.spent}

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1; 0 before the first step."""
        return -(-self.steps_done // self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """How many epochs the run has; the last may be cut short by --max_steps."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step ended an epoch, or the run."""
        return self.steps_done % self.steps_per_epoch == 0 or self.steps_done == self.total_steps

    @property
    def is_complete(self) -> bool:
        """Whether all steps are done."""
        return self.steps_done >= self.total_steps

    @property
    def is_stalled(self) -> bool:
        """Whether early_stop ends the run."""
        return 0 < self.early_stop <= self.since_best

    def count_step(self) -> None:
        """Counts a step that is done."""
        self.steps_done += 1
        self.epoch_end_due = self.at_epoch_end

    def count_score(self, score: float) -> bool:
        """Counts an evaluation. Returns whether it has the best score so far."""
        improved = score > self.best
        if improved:
            self.best = score
        self.since_best = 0 if improved else self.since_best + 1
        return improved
