"""What config/default.yaml cannot say of an option: who uses it, which values it may have, what a change affects."""
from __future__ import annotations

import math
from typing import NamedTuple

# programs and scripts that read options, as a user starts them
TRAIN, EVAL, EXPORT, PREDICT, PREPARE, CATEGORIES, ANCHORS, SIZES = (frozenset({name}) for name in (
    "train.py", "eval.py", "export.py", "predict.py", "prepare_data.py", "scripts/list_categories.py",
    "scripts/anchor_stats.py", "scripts/model_info.py"))
DETECTORS = TRAIN | EVAL | EXPORT | PREDICT
DATA = TRAIN | EVAL | EXPORT | PREPARE | CATEGORIES | ANCHORS  # the options that say which data it is, and where
EVERY = DETECTORS | DATA | SIZES


class Rule(NamedTuple):
    """The rules of one option. An option without a line in RULES has these defaults."""
    programs: frozenset[str] = TRAIN  # that use it
    choices: tuple[str, ...] = ()     # the only values it, or each item of a list, may have; () for any
    minimum: float = 0                # smallest value of a number
    maximum: float = math.inf         # largest value of a number
    exclusive: bool = False           # the minimum itself is too small
    is_path: bool = False             # of a file or folder: ~ stands for the home folder
    split: str = ""                   # "name" or "place" of a split: another --dataset drops the value of a recipe
    per_host: bool = False            # may differ between the hosts of a distributed run
    in_graph: bool = True             # may change what MindSpore compiles
    start_only: bool = False          # has no effect when a run is resumed
    after_end: bool = False           # may change when all steps are done: it adds steps, or belongs to the machine

    @property
    def needs_steps(self) -> bool:
        """Whether a change of the option has an effect only where steps are left to run."""
        return self.in_graph and not self.per_host and not self.after_end

    def problem(self, value: object) -> str:
        """What is wrong with a value of the right type, "" for nothing."""
        if isinstance(value, (int, float)):
            too_small = value <= self.minimum if self.exclusive else value < self.minimum
            if not too_small and value <= self.maximum:
                return ""
            if self.maximum < math.inf:
                return f"must lie between {self.minimum} and {self.maximum}"
            return f"must be above {self.minimum}" if self.exclusive else f"must be at least {self.minimum}"
        odd = [item for item in (value if isinstance(value, list) else [value]) if item not in self.choices]
        if not self.choices or not odd:
            return ""
        near = [f"; did you mean {choice}?" for choice in self.choices if choice.lower() == odd[0].lower()]
        return f"allowed are {', '.join(self.choices)}{''.join(near)}"


RULES = {
    # what to run
    "config_path": Rule(EVERY, is_path=True, per_host=True, in_graph=False),
    "model": Rule(DETECTORS | ANCHORS | PREPARE | SIZES),
    "image_size": Rule(DETECTORS | ANCHORS | PREPARE | SIZES),
    "width": Rule(DETECTORS | ANCHORS | PREPARE | SIZES, exclusive=True),
    "anchors": Rule(TRAIN | ANCHORS | PREPARE | SIZES, is_path=True),
    "device_target": Rule(DETECTORS, choices=("CPU", "GPU", "Ascend"), after_end=True),
    "device_id": Rule(DETECTORS, per_host=True),
    "device_num": Rule(TRAIN | EVAL, after_end=True),
    "run_distribute": Rule(TRAIN | EVAL, after_end=True),
    "seed": Rule(TRAIN | ANCHORS | PREPARE),
    "output_path": Rule(TRAIN | EVAL | PREDICT | ANCHORS | PREPARE, is_path=True, per_host=True, in_graph=False),
    "report": Rule(EVAL | PREPARE, in_graph=False),
    "store_score": Rule(EVAL, in_graph=False),
    "compile_cache": Rule(TRAIN | EVAL | PREDICT, is_path=True, per_host=True, in_graph=False),
    # data
    "data": Rule(DATA, is_path=True, per_host=True, in_graph=False),
    "dataset": Rule(DATA, choices=("coco", "voc", "other", "yolo", "labelme")),
    "coco_root": Rule(DATA, is_path=True, per_host=True),
    "train_data_type": Rule(DATA, split="name"),
    "val_data_type": Rule(DATA, split="name"),
    "instances_set": Rule(DATA, is_path=True),
    "voc_root": Rule(DATA, is_path=True, per_host=True),
    "image_dir": Rule(DATA, is_path=True, split="place", per_host=True),
    "val_image_dir": Rule(DATA, is_path=True, split="place", per_host=True),
    "anno_path": Rule(DATA, is_path=True, split="place", per_host=True),
    "val_anno_path": Rule(DATA, is_path=True, split="place", per_host=True),
    "val_share": Rule(DATA, maximum=1),
    "split_seed": Rule(DATA),
    "classes": Rule(DATA | PREDICT | SIZES),
    "mindrecord_dir": Rule(DATA, is_path=True, per_host=True),
    "strict": Rule(DATA),
    "augmentation": Rule(choices=("zoo", "ssd", "paddle", "mlperf", "nvidia", "tensorflow", "jitter", "flip", "plain")),
    "mosaic": Rule(maximum=1),
    "class_balance": Rule(maximum=1),
    "match_threshold": Rule(TRAIN | ANCHORS | PREPARE, maximum=1),
    "matching": Rule(choices=("zoo", "nvidia", "ssd", "atss")),
    "num_workers": Rule(TRAIN | EVAL | EXPORT, per_host=True),
    "worker_kind": Rule(choices=("auto", "threads", "processes"), per_host=True),
    # training
    "epoch_size": Rule(minimum=1, after_end=True),
    "max_steps": Rule(in_graph=False),
    "batch_size": Rule(minimum=1),
    "accumulate": Rule(minimum=1),
    "lr": Rule(exclusive=True),
    "lr_end_rate": Rule(maximum=1),
    "lr_schedule": Rule(choices=("cosine", "multistep")),
    "optimizer": Rule(choices=("momentum", "nesterov", "rmsprop")),
    "momentum": Rule(maximum=1),
    "decay_exclude": Rule(choices=("norm", "norm_bias", "body", "none")),
    "body_lr": Rule(exclusive=True),
    "loss": Rule(choices=("auto", "focal", "quality", "varifocal", "multibox")),
    "label_smoothing": Rule(maximum=1),
    "box_loss": Rule(choices=("smooth_l1", "giou", "ciou")),
    "loss_normalizer": Rule(choices=("batch", "local", "image")),
    "alpha": Rule(maximum=1),
    "empty_negatives": Rule(maximum=1),
    "ema_decay": Rule(maximum=1),
    "batch_norm": Rule(choices=("own", "frozen", "frozen_backbone", "sync")),
    "norm_momentum": Rule(maximum=1),
    "loss_scale": Rule(exclusive=True),
    "amp_level": Rule(choices=("O0", "O1", "O2", "O3", "auto")),
    "amp_type": Rule(choices=("float16", "bfloat16")),
    "weight_init": Rule(choices=("published", "he"), start_only=True),
    "pre_trained": Rule(is_path=True, per_host=True, start_only=True),
    "pre_trained_epoch_size": Rule(start_only=True),
    "filter_weight": Rule(start_only=True),
    "freeze_layer": Rule(TRAIN | SIZES),
    "resume": Rule(in_graph=False),
    "cpu_kernels": Rule(choices=("own", "plain"), after_end=True),
    "deterministic": Rule(after_end=True),
    "log_interval": Rule(minimum=1, in_graph=False),
    "save_checkpoint_epochs": Rule(minimum=1, in_graph=False),
    "save_checkpoint_steps": Rule(in_graph=False),
    "keep_checkpoint_max": Rule(minimum=1, in_graph=False),
    "eval_interval": Rule(minimum=1),
    "early_stop": Rule(in_graph=False),
    # evaluation, export, prediction
    "checkpoint_file_path": Rule(EVAL | EXPORT | PREDICT, is_path=True, in_graph=False),
    # the graph repeats the post-processing for each image: MindSpore compiles more for minutes, or meets its own limit
    "eval_batch_size": Rule(TRAIN | EVAL | EXPORT | PREDICT, minimum=1, maximum=128),
    "eval_images": Rule(TRAIN | EVAL, in_graph=False),
    "metric_engine": Rule(TRAIN | EVAL, choices=("hotcoco", "pycocotools")),
    "resize": Rule(DETECTORS, choices=("bilinear", "antialias", "tensorflow")),
    "min_score": Rule(DETECTORS, maximum=1),
    "nms_threshold": Rule(DETECTORS, maximum=1),
    "nms_candidates": Rule(DETECTORS, minimum=1),
    "max_boxes": Rule(DETECTORS, minimum=1),
    "file_name": Rule(EXPORT, is_path=True),
    "file_format": Rule(EXPORT, choices=("MINDIR", "ONNX")),
    "export_batch_size": Rule(EXPORT, maximum=128),
    "quantize": Rule(EXPORT, choices=("none", "fp16", "int8")),
    "calibration_images": Rule(EXPORT, minimum=1),
    "raw": Rule(EXPORT),
    "source": Rule(PREDICT, is_path=True, in_graph=False),
    "tensorboard": Rule(PREDICT, in_graph=False),
    "save": Rule(PREDICT, choices=("drawings", "coco", "csv", "yolo", "voc", "crops"), in_graph=False),
    "only_classes": Rule(PREDICT, in_graph=False),
    "score_threshold": Rule(PREDICT, in_graph=False),
    "tiles": Rule(PREDICT, in_graph=False),
    "draw_score": Rule(TRAIN | EVAL | PREDICT, maximum=1, in_graph=False),
    "view": Rule(PREDICT, in_graph=False),
    "serve": Rule(PREDICT, maximum=65535, in_graph=False),
    "host": Rule(PREDICT, in_graph=False),
}
# what the model zoo and other repositories call an option
RENAMED = {
    "model_name": "model", "img_shape": "image_size", "use_float16": "amp_level", "num_classes": "classes",
    "data_path": "coco_root", "checkpoint_path": "checkpoint_file_path", "img_path": "source", "learning_rate": "lr",
    "epochs": "epoch_size", "num_epochs": "epoch_size", "output_dir": "output_path", "device": "device_target",
    "save_checkpoint_path": "output_path", "weights": "pre_trained", "feature_extractor_base_param": "pre_trained",
    "workers": "num_workers", "num_parallel_workers": "num_workers"}
# which data it is and where: what --data stands for
DATA_PLACES = ("dataset", "coco_root", "train_data_type", "val_data_type", "instances_set", "voc_root", "image_dir",
               "val_image_dir", "anno_path", "val_anno_path")
MAIN = ("model", "image_size", "lr", "batch_size", "epoch_size", "seed")  # that say most of a training
DATA_OPTIONS = tuple(name for name, rule in RULES.items() if DATA <= rule.programs and name != "config_path")


def rule_of(name: str) -> Rule:
    """The rule of an option."""
    return RULES.get(name, Rule())


def shared_options(options: dict) -> dict:
    """The options that must be equal on all hosts of a distributed run."""
    return {name: value for name, value in options.items() if name != "typed" and not rule_of(name).per_host}


def compared_options(options: dict, defaults: dict) -> dict:
    """The options by which trainings are compared, as numbers, truth values and texts: MAIN, and what is no default."""
    return {name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in options.items()
            if name in MAIN or name in defaults and value != defaults[name] and TRAIN <= rule_of(name).programs
            and rule_of(name).in_graph and not rule_of(name).per_host}


def graph_options(options: dict) -> dict:
    """The options on which compiled graphs depend."""
    return {name: value for name, value in options.items() if name != "typed" and rule_of(name).in_graph}
