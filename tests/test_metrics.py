"""COCO and VOC metrics against published numbers and numbers computed by hand."""
import copy
import gc
import json
import sys

import pytest

from src import metrics
from src.errors import DataError, EnvironmentFault, SSDError
from src.evaluation.evaluate import compute_metrics, has_memorised
from src.metrics import (
    COCO_NAMES,
    evaluate_boxes,
    format_metrics,
    split_notes,
    voc_metrics,
    write_metrics,
)

ENGINES = ("hotcoco", "pycocotools")
CAT, DOG, BIRD = 3, 7, 9


def coco_metrics(*arguments):
    return evaluate_boxes(*arguments).metrics()


def truth(*boxes, images=2):
    """Ground truth of (image_id, category_id, [x, y, w, h], more keys if any), without the optional keys."""
    return {"images": [{"id": number} for number in range(1, images + 1)],
            "annotations": [{"image_id": image, "category_id": category, "bbox": box, **(more[0] if more else {})}
                            for image, category, box, *more in boxes],
            "categories": [{"id": DOG, "name": "dog"}, {"id": CAT, "name": "cat"}, {"id": BIRD, "name": "bird"}]}


def found(*boxes):
    """Detections of (image_id, category_id, score, [x, y, w, h])."""
    return [{"image_id": image, "category_id": category, "score": score, "bbox": box}
            for image, category, score, box in boxes]


@pytest.mark.parametrize("engine", ENGINES)
def test_coco_metrics_are_the_published_ones(engine, shared):
    with open(shared("coco_eval/expected_bbox.json"), encoding="utf-8") as file:
        expected = json.load(file)
    assert tuple(expected["names"]) == COCO_NAMES
    with open(shared("coco_eval/instances_val2014_fakebbox100_results.json"), encoding="utf-8") as file:
        detections = json.load(file)
    before = copy.deepcopy(detections)
    with open(shared("coco_eval/instances_val2014_100.json"), encoding="utf-8") as file:
        metrics = coco_metrics(json.load(file), detections, engine)
    assert [metrics[name] for name in COCO_NAMES] == pytest.approx(expected["stats"], abs=1e-12)
    assert len(metrics["per_class"]) == 80
    assert detections == before


@pytest.mark.parametrize("engine", ENGINES)
def test_coco_by_hand(engine):
    # the cat (30x30, small) is hit exactly; of two dogs (100x100, large) one is hit with IoU 0.8: right at .5 to .8
    ground_truth = truth((1, CAT, [10, 10, 30, 30]), (1, DOG, [100, 100, 100, 100]), (2, DOG, [0, 0, 100, 100]))
    detections = found((1, CAT, 0.9, [10, 10, 30, 30]), (1, DOG, 0.8, [100, 100, 80, 100]))
    metrics = coco_metrics(ground_truth, detections, engine)
    half = 51 / 101  # recall 0.5 reaches 51 of the 101 recall values
    assert metrics["AP50"] == pytest.approx((1 + half) / 2)
    assert metrics["AP"] == pytest.approx((1 + half * 7 / 10) / 2)
    assert (metrics["APs"], metrics["APm"]) == (pytest.approx(1), -1)
    assert metrics["APl"] == pytest.approx(half * 7 / 10)
    assert metrics["AR100"] == pytest.approx((1 + 0.5 * 7 / 10) / 2)
    assert metrics["per_class"] == {"cat": {"AP": pytest.approx(1), "AP50": pytest.approx(1), "boxes": 1},
                                    "dog": {"AP": pytest.approx(half * 0.7), "AP50": pytest.approx(half), "boxes": 2},
                                    "bird": {"AP": None, "AP50": None, "boxes": 0}}


@pytest.mark.parametrize("engine", ENGINES)
def test_coco_without_detections_is_zero_where_there_is_ground_truth(engine):
    metrics = coco_metrics(truth((1, CAT, [10, 10, 30, 30])), [], engine)
    assert [metrics[name] for name in COCO_NAMES] == [0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1]
    assert metrics["per_class"]["cat"] == {"AP": 0, "AP50": 0, "boxes": 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_coco_without_ground_truth(engine):
    metrics = coco_metrics(truth(), found((1, CAT, 0.5, [0, 0, 10, 10])), engine)
    assert {metrics[name] for name in COCO_NAMES} == {-1}


@pytest.mark.parametrize("engine", ENGINES)
def test_coco_counts_images_without_detections_and_ignores_crowds(engine):
    # both images have one cat, one is found; the second detection lies in a crowd: neither right nor wrong
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (2, CAT, [0, 0, 50, 50]),
                         (1, CAT, [100, 100, 200, 200], {"iscrowd": 1}))
    detections = found((1, CAT, 0.9, [120, 120, 20, 20]), (1, CAT, 0.8, [0, 0, 50, 50]))
    metrics = coco_metrics(ground_truth, detections, engine)
    assert metrics["AP"] == pytest.approx(51 / 101)
    assert metrics["per_class"]["cat"]["boxes"] == 2


def test_annotation_id_zero_is_an_annotation_like_others():
    ground_truth = truth((1, CAT, [0, 0, 50, 50], {"id": 0}))
    detections = found((1, CAT, 0.8, [0, 0, 50, 50]))
    assert [coco_metrics(ground_truth, detections, engine)["AP"] for engine in ENGINES] == pytest.approx([1, 1])


def test_annotations_of_images_that_are_not_listed_do_not_count():
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (2, CAT, [0, 0, 50, 50]), images=1)
    detections = found((1, CAT, 0.8, [0, 0, 50, 50]))
    assert coco_metrics(ground_truth, detections)["AP"] == pytest.approx(1)
    assert voc_metrics(ground_truth, detections)["mAP_area"] == pytest.approx(1)


def test_detection_in_an_unknown_image():
    for metric in (coco_metrics, voc_metrics):
        with pytest.raises(DataError, match="image id 5"):
            metric(truth(), found((5, CAT, 0.5, [0, 0, 1, 1])))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("images, category", [
    ((-5, 2), CAT), ((0, 2), CAT), (("x", "y"), CAT), ((1.0, 2), CAT), ((2 ** 63, 2), CAT), ((1, 2), -1),
    ((1, 2), "cat"), ((1, 2), 2 ** 70), ((-5, "y"), "c")])
def test_ids_of_any_kind(engine, images, category):
    first, second = images
    boxes = [(first, category, [10, 10, 40, 40]), (second, DOG, [0, 0, 50, 50]), (second, category, [60, 60, 30, 30])]
    ground_truth = {**truth(*boxes), "images": [{"id": first}, {"id": second}],
                    "categories": [{"id": DOG, "name": "dog"}, {"id": category, "name": "cat"}]}
    detections = found((first, category, 0.9, [10, 10, 40, 40]), (second, DOG, 0.8, [0, 0, 50, 50]))
    before = copy.deepcopy((ground_truth, detections))
    metrics = coco_metrics(ground_truth, detections, engine)
    assert metrics["per_class"]["cat"] == {"AP": pytest.approx(51 / 101), "AP50": pytest.approx(51 / 101), "boxes": 2}
    assert metrics["per_class"]["dog"]["AP"] == pytest.approx(1)
    curves = evaluate_boxes(ground_truth, detections, engine).curves()
    assert {name: round(float(curve.mean()), 6) for name, curve in curves.items()} == {"dog": 1, "cat": 0.50495}
    assert voc_metrics(ground_truth, detections)["mAP_area"] == pytest.approx(0.75)
    assert (ground_truth, detections) == before


def test_numbering_ids_changes_no_number(in_bench):
    """Scores that are equal in several images count in the order of the ids."""
    draw = in_bench("coco_metric").draw
    ground_truth, detections = draw(40)
    detections = [{**item, "score": round(item["score"], 1)} for item in detections]
    negative = {**ground_truth, "images": [{**image, "id": image["id"] - 10000} for image in ground_truth["images"]],
                "annotations": [{**box, "image_id": box["image_id"] - 10000} for box in ground_truth["annotations"]]}
    shifted = [{**item, "image_id": item["image_id"] - 10000} for item in detections]
    first, second = coco_metrics(ground_truth, detections), coco_metrics(negative, shifted)
    assert first["AP"] > 0 and first == second


def test_engines_agree_to_the_last_digit(in_bench):
    draw = in_bench("coco_metric").draw
    truth, detections = draw(40)
    first, second = (coco_metrics(truth, detections, engine) for engine in ENGINES)
    assert first["AP"] > 0 and all(abs(first[name] - second[name]) <= 1e-15 for name in COCO_NAMES)


def test_the_garbage_collector_is_on_again(monkeypatch):
    seen = []
    monkeypatch.setattr(metrics, "run_engine", lambda *rest: seen.append(gc.isenabled()) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        coco_metrics({"images": [], "annotations": [], "categories": []}, [])
    assert seen == [False] and gc.isenabled()


def test_engine_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(EnvironmentFault, match="--metric_engine=pycocotools"):
        coco_metrics(truth(), [])


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_print_nothing(engine, capfd):
    coco_metrics(truth((1, CAT, [0, 0, 9, 9])), found((1, CAT, 0.5, [0, 0, 9, 9])), engine)
    assert capfd.readouterr() == ("", "")


def test_precision_curves():
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (2, CAT, [0, 0, 50, 50]), (2, DOG, [0, 0, 50, 50]))
    curves = evaluate_boxes(ground_truth, found((1, CAT, 0.9, [0, 0, 50, 50]))).curves()
    assert list(curves) == ["cat", "dog"]
    assert curves["cat"].tolist() == pytest.approx([1] * 51 + [0] * 50)
    assert curves["dog"].tolist() == [0] * 101


def test_voc_metrics_are_the_published_ones(shared):
    with open(shared("voc_eval/expected.json"), encoding="utf-8") as file:
        expected = json.load(file)
    boxes, detections = [], []
    for image in range(1, 8):
        for folder, rows in (("gts", boxes), ("dets", detections)):
            with open(shared("voc_eval", folder, f"{image:05d}.txt"), encoding="utf-8") as file:
                rows += [(image, CAT, *map(float, line.split()[1:])) for line in file]
    ground_truth = truth(*((*row[:2], row[2:]) for row in boxes), images=7)
    detections = found(*((*row[:3], row[3:]) for row in detections))
    for iou, eleven, area in zip(expected["iou"], expected["ap_11_point"], expected["ap_every_point"]):
        metrics = voc_metrics(ground_truth, detections, iou)
        assert (metrics["mAP_11point"], metrics["mAP_area"]) == pytest.approx((eleven, area), abs=1e-9)


def test_voc_by_hand():
    # by score: right, wrong (hits the first box again), right, wrong (an empty image) -> precision 1, 1/2, 2/3, 1/2
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (2, CAT, [0, 0, 50, 50]), (2, CAT, [200, 0, 50, 50]), images=3)
    detections = found((2, CAT, 0.7, [0, 0, 50, 50]), (1, CAT, 0.9, [0, 0, 50, 50]), (1, CAT, 0.8, [1, 0, 50, 50]),
                       (3, CAT, 0.6, [0, 0, 50, 50]))
    metrics = voc_metrics(ground_truth, detections)
    # recall 1/3 at precision 1, recall 2/3 at precision 2/3, never more: of 11 values 0..0.3 and 0.4..0.6
    assert metrics["mAP_11point"] == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert metrics["mAP_area"] == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    assert metrics["per_class"]["cat"]["boxes"] == 3
    assert metrics["per_class"]["dog"] == {"AP_11point": None, "AP_area": None, "boxes": 0}


def test_voc_difficult_boxes_are_neither_wanted_nor_wrong():
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (1, CAT, [200, 0, 50, 50], {"difficult": 1}),
                         (1, DOG, [0, 0, 50, 50], {"difficult": 1}))
    detections = found((1, CAT, 0.9, [200, 0, 50, 50]), (1, CAT, 0.9, [201, 0, 50, 50]), (1, CAT, 0.8, [0, 0, 50, 50]))
    metrics = voc_metrics(ground_truth, detections)
    assert (metrics["mAP_11point"], metrics["mAP_area"]) == (pytest.approx(1), pytest.approx(1))
    assert metrics["per_class"]["cat"]["boxes"] == 1
    assert metrics["per_class"]["dog"]["AP_area"] is None


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_voc_data_have_coco_numbers_too_that_leave_out_difficult_boxes(engine):
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (1, CAT, [200, 0, 50, 50], {"difficult": 1}),
                         (1, DOG, [100, 100, 50, 50]))
    # the first is right at every IoU, the second hits the difficult box, the dog has IoU 40 / 50 = .8
    detections = found((1, CAT, 0.9, [0, 0, 50, 50]), (1, CAT, 0.95, [200, 0, 50, 50]),
                       (1, DOG, 0.9, [100, 100, 50, 40]))
    metrics, evaluated = compute_metrics(ground_truth, detections, dataset="voc", engine=engine)
    assert evaluated.classes == ["dog", "cat", "bird"] and evaluated.boxes == [1, 1, 0], "in the order of the data"
    assert evaluated.precision[0, :, :, 0].mean(axis=0).tolist() == pytest.approx([1, 1, -1])
    assert metrics["AP50"] == metrics["AP75"] == pytest.approx(1)
    assert metrics["AP"] == pytest.approx((1 + 0.7) / 2), "the dog counts up to .80, 7 of 10 thresholds"
    assert metrics["mAP_area"] == pytest.approx(1)
    assert metrics["per_class"]["cat"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "AP_11point": 1.0,
                                           "AP_area": 1.0, "boxes": 1}
    names = [line.split()[0] for line in format_metrics(metrics).splitlines()[:5]]
    assert names == ["mAP_11point", "mAP_area", "AP", "AP50", "AP75"]


def test_a_difficult_box_need_not_be_found_by_any_protocol():
    ground_truth = truth((1, CAT, [0, 0, 50, 50]), (2, CAT, [0, 0, 50, 50], {"difficult": 1}))
    detections = found((1, CAT, 0.8, [0, 0, 50, 50]))
    for dataset in ("voc", "labelme"):
        metrics, _ = compute_metrics(ground_truth, detections, dataset=dataset)
        assert metrics["AP"] == pytest.approx(1) and metrics["per_class"]["cat"]["boxes"] == 1


def test_a_self_test_compares_the_number_that_it_names():
    said, voc = [], {"AP50": 0.96, "mAP_area": 0.2}
    assert has_memorised(voc, images=4, steps_done=9, last=False, say=said.append)
    assert said == ["overfit: AP50 0.9600 on 4 images after 9 steps, passed"]
    with pytest.raises(SSDError, match="AP50 0.5000 on 4 images after 9 steps, wanted above 0.95"):
        has_memorised({"AP50": 0.5, "mAP_area": 0.99}, images=4, steps_done=9, last=True, say=said.append)


def test_voc_overlap_counts_both_border_pixels():
    # corners 0..9 and 0..4 name 10 and 5 pixels: IoU 5/10 matches; by plain width it is 4/9
    ground_truth, detections = truth((1, CAT, [0, 0, 9, 9])), found((1, CAT, 0.9, [0, 0, 4, 9]))
    assert voc_metrics(ground_truth, detections)["mAP_area"] == 1


def test_voc_without_detections_and_without_boxes():
    assert voc_metrics(truth((1, CAT, [0, 0, 9, 9])), [])["mAP_area"] == 0
    assert voc_metrics(truth(), [])["mAP_area"] == -1


def test_format_metrics():
    ground_truth = truth((1, CAT, [10, 10, 30, 30]), (1, DOG, [100, 100, 100, 100]))
    detections = found((1, DOG, 0.9, [100, 100, 100, 100]))
    lines = format_metrics(coco_metrics(ground_truth, detections)).splitlines()
    assert lines[0].split()[:2] == ["AP", "0.5000"]
    assert [line.split()[0] for line in lines[:12]] == list(COCO_NAMES)
    assert lines[4].split()[1] == "-"
    assert [line.split() for line in lines[-3:]] == [["dog", "1", "1.0000", "1.0000"], ["cat", "1", "0.0000", "0.0000"],
                                                     ["bird", "0", "-", "-"]]
    assert format_metrics(voc_metrics(ground_truth, detections)).startswith("mAP_11point 0.5000")


def test_write_metrics(tmp_path):
    detections = found((1, CAT, 0.5, [0.0, 0.0, 10.0, 10.0]))
    metrics = coco_metrics(truth((1, CAT, [0, 0, 10, 10])), detections)
    write_metrics(str(tmp_path / "run" / "eval"), metrics, detections)
    assert json.loads((tmp_path / "run/eval/metrics.json").read_text()) == metrics
    assert json.loads((tmp_path / "run/eval/detections.json").read_text()) == detections
    assert sorted(path.name for path in (tmp_path / "run/eval").iterdir()) == ["detections.json", "metrics.json"]


def test_write_metrics_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "eval").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_metrics(str(tmp_path / "eval"), {}, [])
    (tmp_path / "run" / "detections.json").mkdir(parents=True)
    with pytest.raises(EnvironmentFault, match="detections.json cannot be written"):
        write_metrics(str(tmp_path / "run"), {}, [])
    assert not (tmp_path / "run" / "metrics.json").exists(), "metrics without the detections that they are of"


def test_notes_about_a_split():
    both = truth((1, CAT, [0, 0, 9, 9]), (1, DOG, [0, 0, 9, 9]))
    assert split_notes(both, "coco", max_boxes=100) == [
        "1 of 3 classes have no box in the validation split and are left out of all averages: bird"]
    assert split_notes(both, "coco", max_boxes=100, where="the two images")[0].startswith(
        "1 of 3 classes have no box in the two images and are left out")
    for dataset, flag in (("coco", {"iscrowd": 1}), ("voc", {"difficult": 1}), ("other", {"iscrowd": 1})):
        for split in (truth(), truth((1, CAT, [0, 0, 9, 9], flag))):
            note, = split_notes(split, dataset, max_boxes=100)
            assert note.startswith("the validation split has no box that counts")


@pytest.mark.parametrize("dataset, max_boxes, cats, dogs, told", [
    ("coco", 100, 100, 0, None), ("coco", 100, 60, 41, "up to 101 boxes: at most 100 an image are found"),
    ("coco", 300, 60, 141, "COCO's protocol counts 100 of a class in an image (maxDets)"), ("coco", 300, 60, 60, None),
    ("voc", 300, 0, 200, None), ("voc", 100, 0, 101, "at most 100 an image are found (--max_boxes); the others"),
    ("coco", 10, 11, 0, "at most 10 an image")])
def test_notes_about_more_boxes_than_are_found_or_counted(dataset, max_boxes, cats, dogs, told):
    split = truth(*[(1, CAT, [0, 0, 9, 9])] * cats, *[(1, DOG, [0, 0, 9, 9])] * dogs, (2, 3, [0, 0, 9, 9]))
    notes = [note for note in split_notes(split, dataset, max_boxes=max_boxes) if "image(s)" in note]
    assert len(notes) == bool(told) and all(told in note and note.startswith("1 image(s)") for note in notes)


def test_names_with_line_breaks_keep_the_table_in_shape():
    ground_truth = truth((1, CAT, [0, 0, 9, 9]))
    ground_truth["categories"][0]["name"] = "two\nlines\t\0"
    lines = format_metrics(coco_metrics(ground_truth, [])).splitlines()
    assert len(lines) == 12 + 2 + 3 and any(line.startswith("two lines ") for line in lines)
