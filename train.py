"""Trains a detector: options -> data, network, loss, optimiser, loop.

    python train.py --config_path=config/ssd300_mobilenet_v2_voc.yaml --voc_root=DATA --output_path=runs/first
    mpirun -n 8 python train.py --run_distribute=True --config_path=config/ssd_resnet50_fpn_config_gpu.yaml ...
    python train.py --help
"""
import contextlib
import sys

from src.errors import run_main, smaller_batch
from src.machine import process
from src.text import split_names


def main():
    """Reads the options and trains."""
    from src.config import read_options

    options = read_options(sys.argv[1:], "train.py", doc=__doc__)
    with contextlib.ExitStack() as held:
        train(options, held)


def train(options, held):
    """Wires the parts together and runs the loop. held: closed at the end, however it comes."""
    from src.config import unused_note
    from src.option_rules import graph_options, shared_options

    process.prepare(options.device_target, options.run_distribute, options.device_num)
    # MindSpore reads its environment when it is imported, so nothing that imports it may come earlier
    import mindspore as ms

    from src.data.prepare import describe_split
    from src.machine import distributed
    from src.machine.compat import set_deterministic
    from src.machine.compile_cache import use_cache
    from src.models.freeze import freeze_layers
    from src.models.initialize import he_initialize
    from src.models.norms import choose_norms
    from src.models.ssd import build_model
    from src.training.build import build_loader, build_rates, build_step, check_weights, choose_overfit, choose_score
    from src.training.log import RunLog
    from src.training.resume import find_saved
    from src.training.run_folder import check_run_folder, hold_run_folder
    from src.training.trainer import Run, check_options, prepare_splits

    choose_overfit(options)
    held.enter_context(smaller_batch("batch_size", options.batch_size))
    check_options(options)
    check_weights(options)
    check_run_folder(options.output_path, options.resume)
    rank, world = distributed.start(options.device_target, options.device_id, options.run_distribute)
    distributed.check_equal({f"--{key}": value for key, value in shared_options(options).items()}, rank, world)
    if rank == 0:
        held.enter_context(hold_run_folder(options.output_path, options.resume))
    ms.set_seed(options.seed)
    if options.deterministic:
        set_deterministic()
    log = RunLog(rank == 0)
    note = unused_note(options, "train.py")
    if note:
        log.say(note)
    saved = find_saved(options, log.say) if options.resume else None
    train_split, val_split = prepare_splits(options, rank, log.say)
    distributed.check_equal({f"the data of {split.name}": describe_split(split) for split in (train_split, val_split)
                             if split}, rank, world)

    model = build_model(options.model, len(train_split.classes) + 1, image_size=options.image_size, width=options.width)
    model = choose_score(model, options.loss)
    if options.weight_init == "he":
        he_initialize(model.network, model.num_classes, options.seed)
    loader = build_loader(options, train_split, model, rank, world)
    rates = build_rates(options, loader.steps)
    run = Run(options, model, train_split, val_split, loader, log, rank, world)
    run.load_pretrained()
    choose_norms(model.network, options.batch_norm, world)
    frozen = freeze_layers(model.network, split_names(options.freeze_layer))
    step = build_step(options, model, rates, world)
    start = run.attach(step, saved)
    facts = {**graph_options(options), "classes": model.num_classes, "processes": world, "order": run.owed}
    use_cache(options.compile_cache, facts, step.get_parameters())
    run.open(start, frozen)
    run.train(rates, start)


if __name__ == "__main__":
    run_main(main)
