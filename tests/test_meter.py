"""Speed and remaining time of a run."""
import pytest

from src.training.meter import MEANS, Meter
from src.training.state import RunState


def meter_of(steps):
    return Meter(RunState(steps, steps), images_per_step=4)


def add(meter, seconds, finite=1.0):
    numbers = {**dict.fromkeys(MEANS, 1.0), "loss_scale": 8.0, "finite": finite}
    meter.add(numbers, data_time=0.0, step_time=seconds)
    meter.state.count_step()


def test_the_step_that_compiles_counts_for_no_other():
    meter = meter_of(10)
    add(meter, 20.0)
    alone = meter.row(0.1)
    assert alone["step_time"] == 20 and alone["eta"] == 180
    add(meter, 2.0)
    row = meter.row(0.1)
    assert row["images_per_second"] == 2 and row["eta"] == 16


def test_it_is_left_out_of_the_mean_of_a_row():
    meter = meter_of(10)
    for seconds in (20.0, 1.0, 3.0):
        add(meter, seconds)
    row = meter.row(0.1)
    assert row["step_time"] == 2 and row["eta"] == 14 and row["images_per_second"] == 2


def test_of_a_resumed_run_its_own_first_step_is_meant():
    before, after = meter_of(10), meter_of(10)
    add(before, 20.0)
    add(before, 1.0)
    after.state = before.state
    add(after, 30.0)
    assert after.row(0.1)["step_time"] == 1


def test_skipped_steps_are_counted_and_said():
    meter = meter_of(4)
    add(meter, 1.0, finite=0.0)
    add(meter, 1.0)
    row = meter.row(0.1)
    assert row["skipped"] == 1 and meter.line(row).endswith("1 skipped, loss scale 8")


@pytest.mark.parametrize("total, epochs", [(30, 3), (25, 3), (20, 2)])
def test_a_line_names_the_epoch_and_how_many_there_are(total, epochs):
    meter = Meter(RunState(steps_per_epoch=10, total_steps=total, steps_done=10), images_per_step=4)
    add(meter, 1.0)
    assert f"step 11/{total}  epoch 2/{epochs}  loss" in meter.line(meter.row(0.1))
