"""Speed and remaining time of a run."""
from src.training.meter import MEANS, Meter


def add(meter, seconds, finite=1.0):
    meter.add({**dict.fromkeys(MEANS, 1.0), "loss_scale": 8.0, "finite": finite}, 0.0, seconds)


def test_the_step_that_compiles_counts_for_no_other():
    meter = Meter(10, 4)
    add(meter, 20.0)
    alone = meter.row(1, 1, 0.1)
    assert alone["step_time"] == 20 and alone["eta"] == 180
    add(meter, 2.0)
    row = meter.row(2, 1, 0.1)
    assert row["images_per_second"] == 2 and row["eta"] == 16


def test_it_is_left_out_of_the_mean_of_a_row():
    meter = Meter(10, 4)
    for seconds in (20.0, 1.0, 3.0):
        add(meter, seconds)
    row = meter.row(3, 1, 0.1)
    assert row["step_time"] == 2 and row["eta"] == 14 and row["images_per_second"] == 2


def test_of_a_resumed_run_its_own_first_step_is_meant():
    before, after = Meter(10, 4), Meter(10, 4)
    add(before, 20.0)
    add(before, 1.0)
    after.steps = before.steps
    add(after, 30.0)
    assert after.row(3, 1, 0.1)["step_time"] == 1


def test_skipped_steps_are_counted_and_said():
    meter = Meter(4, 4)
    add(meter, 1.0, finite=0.0)
    add(meter, 1.0)
    row = meter.row(2, 1, 0.1)
    assert row["skipped"] == 1 and meter.line(row).endswith("1 skipped, loss scale 8")
