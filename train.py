"""Trains a detector: options -> data, network, loss, optimiser, loop.

    python train.py --config_path=config/ssd300_mobilenet_v2_voc.yaml --voc_root=DATA --output_path=runs/first
    mpirun -n 8 python train.py --run_distribute=True --config_path=config/ssd_resnet50_fpn_config_gpu.yaml ...
    python train.py --help
"""
import os
import sys

from src import runtime
from src.config import OF_A_HOST, read_options
from src.errors import Interrupted, NotFiniteError, run_main


def main():
    """Reads the options, wires the parts together and runs the loop."""
    options = read_options(sys.argv[1:], "train.py")
    runtime.prepare(options.device_target, options.run_distribute, options.device_num)
    # MindSpore reads its environment when it is imported, so nothing that imports it may come earlier
    import mindspore as ms

    from src import distributed, engine, optim
    from src.compile_cache import FREE, use_cache
    from src.data.loader import TrainLoader
    from src.data.mindrecord import describe_split
    from src.logger import RunLog
    from src.matching import Matcher
    from src.meter import peak_memory
    from src.models.initialize import he_initialize
    from src.models.ssd import build_model
    from src.recipe import build_loss, build_rates, choose_score, mixed_precision
    from src.run import Run, check_options, describe_run, draw_first_batch, prepare_splits
    from src.run_folder import check_run_folder, open_run_folder, read_json

    check_options(options)
    check_run_folder(options.output_path, options.resume)
    rank, world = distributed.start(options.device_target, options.device_id, options.run_distribute)
    distributed.check_equal({f"--{key}": value for key, value in options.items() if key not in OF_A_HOST}, rank, world)
    ms.set_seed(options.seed)
    log = RunLog(rank == 0)
    train_split, val_split = prepare_splits(options, rank, log.say)
    distributed.check_equal({f"the data of {split.name}": describe_split(split) for split in (train_split, val_split)
                             if split}, rank, world)

    model = build_model(options.model, len(train_split.classes) + 1, options.image_size, options.width)
    model = choose_score(model, options.loss)
    if options.weight_init == "he":
        he_initialize(model.network, model.num_classes, options.seed)
    matcher = Matcher(model.anchors, options.match_threshold, options.matching)
    loader = TrainLoader(train_split.files, train_split.count, matcher,
                         options.augmentation, model.image_size, options.batch_size, options.seed, rank, world,
                         options.num_workers or runtime.loader_threads(), options.use_difficult, model.mean)
    rates = build_rates(options, loader.steps)
    run = Run(options, model, train_split, val_split, loader, log, rank, world)
    run.load_pretrained()
    frozen = optim.freeze(model.network, [name for name in options.freeze_layer.split(",") if name])
    optimizer = optim.build_optimizer(model.network.trainable_params(), rates, options.optimizer, options.momentum,
                                      options.weight_decay, options.decay_exclude, options.body_lr)
    loss = build_loss(options, model.score)
    step = engine.TrainStep(mixed_precision(model, options.amp_level), loss, optimizer, options.loss_scale,
                            options.dynamic_loss_scale, options.grad_clip, world)
    start = run.attach(step)
    facts = {key: value for key, value in options.items() if key not in FREE}
    use_cache(options.compile_cache, {**facts, "classes": model.num_classes, "ranks": (rank, world)},
              step.get_parameters())

    if rank == 0:
        open_run_folder(options.output_path, options)
        log.open(options.output_path)
    facts = describe_run(options, model, train_split, frozen, world)
    log.write(facts)
    log.say(", ".join(f"{key} {value}" for key, value in facts.items()))
    names = [image["file_name"] for image in read_json(train_split.ground_truth)["images"]]
    if rank == 0:
        draw_first_batch(loader, model, train_split.classes, os.path.join(options.output_path, "train_batch.png"))
    step.set_train()
    stopped = None
    try:
        engine.train(step, loader, rates, log, start, options.max_steps, options.log_interval, lambda row: names[row],
                     run.after_epoch, lambda done: run.save("last", done))
    except NotFiniteError:
        run.save("diverged")
        raise
    except Interrupted as error:
        stopped = error
    finally:
        run.finish()
    distributed.wait_for_all(world)  # the first process that leaves ends the others
    if stopped:
        raise stopped
    name = "mAP (area)" if options.dataset == "voc" else "AP"
    best = f", best {name} {run.best:.4f} in best.ckpt" if run.best >= 0 else ""
    log.say(f"done: {options.output_path}/ckpt/last.ckpt{best}, peak memory {peak_memory():.1f} GiB")


if __name__ == "__main__":
    run_main(main)
