"""A network of two weights with a TrainStep that can be computed by hand, its batches, and a loop with small fakes."""
import contextlib

import mindspore as ms
import numpy as np
from mindspore import nn

from src.ema import WeightAverage
from src.models.ssd import Model
from src.optim import build_optimizer
from src.training import step as step_module
from src.training.loop import Loop
from src.training.state import RunState


class Line(nn.Cell):
    """A network with one weight per output: logits = w * mean pixel."""

    def __init__(self):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.array([3.0, 4.0], np.float32)), name="weight")

    def construct(self, images):
        level = images.mean(axis=(1, 2, 3)).reshape((-1, 1, 1))
        return level * self.weight, level * self.weight


class Sum(nn.Cell):
    """Loss: sum of the logits over the batch size, so that the gradient of each weight is the mean pixel."""

    def construct(self, logits, deltas, labels, targets):
        loss = logits.sum() / logits.shape[0]
        return loss, loss * 0.75, loss * 0.25, (labels > 0).astype(ms.float32).sum()


class Loader:
    """Batches of constant pixels, one image each."""
    batch_size, world, rank = 1, 1, 0

    def __init__(self, steps, pixel=1):
        self.steps, self.pixel = steps, pixel

    def epoch(self, epoch, first=0):
        for index in range(first, self.steps):
            yield (np.full((1, 2, 2, 3), self.pixel, np.uint8), np.ones((1, 4), np.int32),
                   np.zeros((1, 4, 4), np.float32), np.array([100 * epoch + index]))

    def close(self):
        pass


class Log:
    """Keeps what was logged."""

    def __init__(self):
        self.rows, self.said = [], []

    def write(self, row, group=None):
        self.rows.append(row)

    def say(self, text, *, in_panel=False):
        self.said.append(text)

    @contextlib.contextmanager
    def live(self, total):
        yield lambda done, loss, total=0: None

    def leave_panel(self):
        self.said.append("left the panel")

    def close(self):
        self.said.append("closed")


class Saver:
    """Keeps the steps after which last.ckpt would be written, and (epoch, step) of each end of an epoch."""

    def __init__(self):
        self.saved, self.epochs = [], []

    @contextlib.contextmanager
    def saving_at_fault(self, state):
        yield

    def save_last(self, state):
        self.saved.append(state.steps_done)

    def after_step(self, state):
        pass

    def after_epoch(self, state, *, evaluated, ended):
        self.epochs.append((state.epoch, state.steps_done))


class Validator:
    """Ends the run after so many evaluations."""

    def __init__(self, evaluations):
        self.left = evaluations

    def is_due(self, state):
        return True

    def validate(self, state):
        self.left -= 1
        return {}

    def ends_run(self, state, metrics):
        return self.left == 0


def make_loop(step, loader, rates, *, start=0, total=0, validator=None, saver=None, log=None, plan=None, **more):
    """A Loop from step `start` to `total` (0: to the last one) with fakes for what is not given."""
    state = RunState(loader.steps, total or len(rates), steps_done=start, plan=plan or {})
    more.setdefault("image_names", Names)
    return Loop(step, loader, state, rates=rates, validator=validator, saver=saver or Saver(), log=log or Log(), **more)


class Names:
    """Image names of any row: img0, img1, .."""

    def __getitem__(self, row):
        return f"img{row}"


def build(rates, loss_scale=1.0, dynamic=False, grad_clip=0.0, weight_decay=0.0, loss=None, average=False,
          kind="momentum", momentum=0.9, **more):
    network = Line()
    model = Model(name="line", network=network, anchors=np.zeros((4, 4), np.float32), image_size=2, num_classes=2,
                  mean=(0, 0, 0), std=(1, 1, 1))
    optimizer = build_optimizer(network.trainable_params(), np.array(rates, np.float32), kind=kind, momentum=momentum,
                                weight_decay=weight_decay)
    average = WeightAverage(network, 0.5) if average else None
    step = step_module.TrainStep(model, loss or Sum(), optimizer, loss_scale=loss_scale, dynamic=dynamic,
                                 grad_clip=grad_clip, average=average, **more)
    step.set_train()
    return step, network.weight


def run(step, pixel=1):
    batch = next(Loader(1, pixel).epoch(0))
    return step(*map(ms.Tensor, batch[:3]), ms.Tensor(0.0, ms.float32)).asnumpy()
