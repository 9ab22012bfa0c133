"""Several processes compute what one computes: gradients, BatchNorm, micro-steps, evaluation. Started with mpirun."""
import os
import sys
import uuid

import numpy as np
import pytest
from programs import MPIRUN, ROOT, left_behind, read_json, read_rows, read_weights, run, succeed

# a batch of 8 over 24 images: 3 steps an epoch; colours and crops follow from the row, so the batches are the same
SAME = ("--epoch_size=2", "--max_steps=5", "--run_eval=False", "--log_interval=1", "--grad_clip=1", "--lr=0.01")
VGG = ("--model=ssd300_vgg16", "--image_size=0", "--width=1", "--lr_init=0.001", "--lr=0.001")


def together(place, processes, *options):
    """Runs train.py in so many processes; none is left afterwards."""
    mark = uuid.uuid4().hex
    launch = [*MPIRUN[:-1], str(processes), sys.executable, os.path.join(ROOT, "train.py")]
    done = run(place, *launch, *place.data, "--run_distribute=True", *options, SSD_TEST_MARK=mark)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert left_behind(mark) == []
    return done.stdout


def assert_same_weights(first, second, most=1e-5):
    expected, values = (read_weights(folder / "ckpt" / "last.ckpt") for folder in (first, second))
    names = [name for name in expected if "." in name and not name.startswith("moments.") and "moving" not in name]
    assert len(names) > 50
    assert max(np.abs(expected[name] - values[name]).max() for name in names) < most


def losses(folder):
    return [(row["loss"], row["positives"], row["grad_norm"]) for row in read_rows(folder) if "loss" in row]


@pytest.mark.long
@pytest.mark.parametrize("norm", ["frozen", "sync"])
@pytest.mark.parametrize("processes, accumulate", [(2, 1), (4, 1), (2, 2)])
def test_processes_and_micro_steps_train_as_one(place, trained, tmp_path, norm, processes, accumulate):
    """Batches of 8 in 1 process, and split over processes and micro-steps, whose positives are not the same."""
    if norm == "sync" and accumulate > 1:
        pytest.skip("BatchNorm normalises each micro-step by itself")
    one, many = tmp_path / "one", tmp_path / "many"
    own = "frozen" if norm == "frozen" else "own"
    start = [f"--pre_trained={trained.last}"] if norm == "frozen" else []  # statistics that are frozen come from a file
    succeed(place, "train.py", *place.data, *SAME, *start, "--batch_size=8", f"--batch_norm={own}",
            f"--output_path={one}")
    together(place, processes, *SAME, *start, f"--batch_size={8 // processes // accumulate}", f"--batch_norm={norm}",
             f"--accumulate={accumulate}", f"--output_path={many}")
    assert_same_weights(one, many, 1e-5 if norm == "frozen" else 5e-5)
    for (loss, positives, norm_one), (other, mean, norm_many) in zip(losses(one), losses(many), strict=True):
        assert other == pytest.approx(loss, rel=1e-4) and norm_many == pytest.approx(norm_one, rel=1e-3)
        assert mean * processes == pytest.approx(positives)


@pytest.mark.long
def test_a_network_without_batch_norm_trains_the_same_in_two_processes(place, tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    succeed(place, "train.py", *place.data, *SAME, *VGG, "--batch_size=8", f"--output_path={one}")
    together(place, 2, *SAME, *VGG, "--batch_size=4", f"--output_path={many}")
    assert_same_weights(one, many)


@pytest.mark.long
def test_the_positives_of_each_process_alone_give_other_weights(place, trained, tmp_path):
    """--loss_normalizer=local, the published behaviour: shows that the tests above could fail."""
    one, many = tmp_path / "one", tmp_path / "many"
    frozen = ("--batch_norm=frozen", f"--pre_trained={trained.last}")
    succeed(place, "train.py", *place.data, *SAME, "--batch_size=8", *frozen, f"--output_path={one}")
    together(place, 2, *SAME, "--batch_size=4", *frozen, "--loss_normalizer=local", f"--output_path={many}")
    with pytest.raises(AssertionError):
        assert_same_weights(one, many)


@pytest.mark.long
def test_a_run_of_two_processes_goes_on_with_one_and_says_so(place, tmp_path):
    """Two processes stop after 3 of 6 steps an epoch; one, whose batches are half as large, goes on after 6 of 12."""
    folder = tmp_path / "run"
    options = ("--epoch_size=2", "--run_eval=False", "--log_interval=1", f"--output_path={folder}")
    together(place, 2, *options, "--batch_size=2", "--max_steps=3")
    text = succeed(place, "train.py", *place.data, *options, "--resume=True", "--batch_size=2")
    assert "resumed after step 6, epoch 1" in text
    for change in ("processes 2 -> 1", "steps_per_epoch 6 -> 12", "--run_distribute True -> False"):
        assert f"changed since: {change}" in text
    steps = [row["step"] for row in read_rows(folder) if "loss" in row]
    assert steps == [1, 2, 3, *range(7, 25)]


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_shared_evaluation_gives_the_same_detections(place, trained, tmp_path, processes):
    options = (*place.data, f"--checkpoint_file_path={trained.best}", "--min_score=0.001")
    succeed(place, "eval.py", *options, f"--output_path={tmp_path / 'one'}")
    launch = [*MPIRUN[:-1], str(processes), sys.executable, os.path.join(ROOT, "eval.py")]
    done = run(place, *launch, *options, "--run_distribute=True", f"--output_path={tmp_path / 'many'}")
    assert done.returncode == 0, done.stdout + done.stderr
    one, many = (read_json(tmp_path, name, "eval", "metrics.json") for name in ("one", "many"))
    assert one == many and one["AR100"] > 0

    def ordered(name):
        return sorted(read_json(tmp_path, name, "eval", "detections.json"), key=str)

    assert ordered("one") == ordered("many") and len(ordered("one")) > 7


@pytest.mark.long
def test_evaluation_in_training_is_that_of_eval(place, trained):
    """The last epoch's row of the log against eval.py on last.ckpt."""
    folder = place.folder / "evaluated_again"
    succeed(place, "eval.py", *place.data, f"--checkpoint_file_path={trained.last}", f"--output_path={folder}")
    row = [row for row in read_rows(trained.folder) if "AP" in row][-1]
    metrics = read_json(folder, "eval", "metrics.json")
    assert [metrics[name] for name in ("AP", "AP50", "AP75")] == [row[name] for name in ("AP", "AP50", "AP75")]


@pytest.mark.parametrize("rows, batch, worlds", [(24, 8, (1, 2, 4, 8)), (26, 6, (1, 2, 3)), (3, 8, (1, 2))])
def test_every_image_comes_in_an_epoch_however_many_processes_share_it(rows, batch, worlds):
    from src.data.loader import TrainLoader
    orders = []
    for world in worlds:
        loader = TrainLoader([], None, rows=rows, policy="plain", image_size=64, batch_size=batch // world, seed=3,
                             rank=0, world=world)
        order = [loader.order(epoch) for epoch in (0, 1)]
        assert order[0].shape == (loader.steps, world, batch // world) and set(order[0].ravel()) == set(range(rows))
        assert not np.array_equal(*order)
        counts = np.bincount(order[0].ravel())
        assert counts.max() - counts.min() <= 1
        orders.append(order[0].reshape(loader.steps, batch))
    assert all(np.array_equal(orders[0], other) for other in orders)
