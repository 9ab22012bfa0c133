"""Finds objects in an image, a folder, a video or a camera: drawings and a JSON file.

    python predict.py --checkpoint_file_path=ssd.mindir --source=pictures/ --output_path=found
"""
import json
import os
import stat
import sys
import unicodedata
from collections import Counter
from contextlib import closing

from src.errors import DataError, Interrupted, OptionError, run_main
from src.machine import process


def main():
    """Reads the options, loads the model, predicts on the source."""
    from src.config import model_options, read_options, unused_note

    options = read_options(sys.argv[1:], "predict.py", doc=__doc__)
    source, folder = options.source, options.output_path
    if not source:
        raise OptionError("--source is empty; give an image, a folder, a video or a camera number")
    if not source.isdigit() and not os.path.exists(source):
        raise DataError(f"source '{source}' does not exist")
    refuse_source_folder(source, folder)
    note = unused_note(options, "predict.py")
    if note:
        print(note, flush=True)
    process.prepare(options.device_target)
    from src.files import output_folder
    from src.inference.predictor import load_predictor
    from src.machine import distributed

    distributed.start(options.device_target, options.device_id)
    predict = load_predictor(options.checkpoint_file_path, batch_size=1, compile_cache=options.compile_cache,
                             **model_options(options))
    with output_folder(folder):
        write_predictions(predict, options)


def write_predictions(predict, options):
    """Writes drawings and predictions.json into output_path, and says what was found."""
    from src.files import write_atomic

    source, folder = options.source, options.output_path
    names, notes = image_files(source), []
    work = predict_images(predict, names, options) if names else predict_video(predict, options, notes)
    rows, stopped = take_rows(work)
    if not rows and not stopped:
        raise DataError(f"source '{source}' gives no picture that can be read")
    thresholds = {"draw_score": options.draw_score,
                  **{name: predict.meta[name] for name in ("min_score", "nms_threshold", "max_boxes")}}
    rows = [{**row, "thresholds": thresholds} for row in rows]
    write_atomic(os.path.join(folder, "predictions.json"), json.dumps(rows, indent=1).encode())
    found = sum(len(row["objects"]) for row in rows)
    hint = "" if found else f"; the model gives scores from {predict.meta['min_score']} on"
    text = (f"{found} object(s) with a score of at least {options.draw_score} (--draw_score) in {len(rows)} "
            f"{'picture' if names else 'frame'}(s){hint}; drawings and predictions.json are in {folder}")
    if stopped and not source.isdigit():  # Ctrl-C is how a camera ends
        raise Interrupted(f"interrupted before the end of '{source}': {text}")
    print("\n".join([*notes, text]))


def take_rows(work):
    """The rows that a generator yields, and whether Ctrl-C ended it before its end."""
    rows = []
    try:
        with closing(work):
            for row in work:
                rows.append(row)
    except KeyboardInterrupt:
        return rows, True
    return rows, False


def refuse_source_folder(source, output_path):
    """Raises OptionError where a drawing could replace the picture or the video it was made from."""
    folder = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    if os.path.exists(source) and os.path.isdir(output_path) and os.path.samefile(folder, output_path):
        raise OptionError(f"output_path '{output_path}' is the folder of the source, whose files the drawings could "
                          "replace; choose another one")


def image_files(source):
    """The pictures of a source: itself, or those of the folder in order; [] for a video or camera."""
    from src.data.images import IMAGE_ENDINGS
    if os.path.isdir(source):
        names = sorted(name for name in os.listdir(source) if name.lower().endswith(IMAGE_ENDINGS))
        if not names:
            raise DataError(f"folder '{source}' holds no pictures ({', '.join(IMAGE_ENDINGS)})")
        return [os.path.join(source, name) for name in names]
    if os.path.exists(source) and stat.S_ISFIFO(os.stat(source).st_mode):  # OpenCV would wait for its other end
        raise DataError(f"source '{source}' is a named pipe; give an image, a folder, a video or a camera number")
    return [source] if source.lower().endswith(IMAGE_ENDINGS) else []


def detect(predict, image, least_score):
    """Drawing of one RGB image, and its objects with class, score and box x1, y1, x2, y2 in pixels."""
    from src.drawing import draw_boxes
    boxes, scores, labels = predict.detect(image)
    shown = scores >= least_score
    boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
    height, width = image.shape[:2]
    objects = [{"class": predict.classes[label - 1], "score": round(float(score), 4),
                "box": [round(float(value), 1) for value in box * (width, height, width, height)]}
               for box, score, label in zip(boxes, scores, labels)]
    return draw_boxes(image, boxes, labels, scores=scores, classes=predict.classes), objects


def predict_images(predict, names, options):
    """Writes one drawing and yields one row a picture; an unreadable one is named and left out."""
    from src.data.images import read_image
    from src.drawing import save_png
    from src.progress import track
    drawings = drawing_names(names)
    for name in track(names, len(names), "predicting"):
        try:
            image = read_image(name)
        except DataError as error:
            print(f"left out: {error}", flush=True)
            continue
        drawing, objects = detect(predict, image, options.draw_score)
        save_png(os.path.join(options.output_path, drawings[name]), drawing)
        yield {"file": name, "drawing": drawings[name], "objects": objects}


def drawing_names(paths):
    """{path: name of its drawing}: "a.jpg" -> "a.png", or "a.jpg.png" where another picture is an "a" too.

    No two are the same, not even on file systems that take "A" for "a" or one way to write an umlaut for the other.
    """
    def key(name):
        return unicodedata.normalize("NFC", name).casefold()

    stems, taken, names = Counter(key(stem(path)) for path in paths), set(), {}
    for path in sorted(paths, key=lambda path: stems[key(stem(path))] > 1):  # the plain names first
        wanted, number = stem(path) if stems[key(stem(path))] == 1 else os.path.basename(path), 1
        name = f"{wanted}.png"
        while key(name) in taken:
            number += 1
            name = f"{wanted}_{number}.png"
        taken.add(key(name))
        names[path] = name
    return names


def predict_video(predict, options, notes):
    """Writes a drawn .mp4, whole up to the last frame at Ctrl-C too, and yields one row a frame.

    notes: a list that takes what differs from the source, in words.
    """
    from src.data.images import IMAGE_ENDINGS
    from src.inference.video import VideoFile, VideoSource, drawing_path
    video = VideoSource(options.source, IMAGE_ENDINGS)
    drawn = VideoFile(drawing_path(options.source, options.output_path), video.rate)
    try:
        for number, frame in enumerate(video):
            drawing, objects = detect(predict, frame, options.draw_score)
            drawn.write(drawing)
            yield {"frame": number, "objects": objects}
            if (number + 1) % 50 == 0:
                print(f"{number + 1} frames", flush=True)
    finally:
        video.close()
        drawn.close()
        notes += drawn.notes


def stem(path):
    """"pictures/a.jpg" -> "a"."""
    return os.path.splitext(os.path.basename(path))[0]


if __name__ == "__main__":
    run_main(main)
