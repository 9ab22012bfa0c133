"""A detector of known AP that is trained on at a small rate keeps it: classes, boxes, anchors and norms are its own."""
import pytest
from programs import read_rows, succeed

KNOWN = 0.2936  # docs/results.md: AP on 206 images of val2017, shrunk as by Pillow


@pytest.mark.long
def test_an_imported_detector_keeps_its_ap(place, tmp_path, shared):
    weights, coco = shared("weights", "tfjs_ssdlite_mobilenet_v2_coco"), shared("coco")
    succeed(place, "train.py", "--model=ssd300_mobilenet_v2_tf", f"--coco_root={coco}", f"--pre_trained={weights}",
            f"--mindrecord_dir={tmp_path / 'mr'}", f"--output_path={tmp_path / 'run'}", "--batch_norm=frozen",
            "--epoch_size=1", "--batch_size=8", "--lr=0.001", "--lr_init=0.001", "--warmup_epochs=0",
            "--augmentation=flip", "--resize=antialias", "--min_score=0.01", "--nms_threshold=0.6", "--run_eval=True")
    assert abs(read_rows(tmp_path / "run")[-1]["AP"] - KNOWN) < 0.01
