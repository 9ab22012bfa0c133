"""Finds objects in an image, a folder, a video or a camera: drawings and a JSON file.

    python predict.py --checkpoint_file_path=ssd.mindir --source=pictures/ --output_path=found
"""
import json
import os
import stat
import sys
from collections import Counter
from contextlib import closing

from src import runtime
from src.errors import DataError, Interrupted, OptionError, run_main


def main():
    """Reads the options, predicts on the source, writes drawings and predictions.json into output_path."""
    from src.config import read_options

    options = read_options(sys.argv[1:], "predict.py")
    source, folder = options.source, options.output_path
    if not source:
        raise OptionError("--source is empty; give an image, a folder, a video or a camera number")
    if not source.isdigit() and not os.path.exists(source):
        raise DataError(f"source '{source}' does not exist")
    refuse_source_folder(source, folder)
    runtime.prepare(options.device_target)
    from src import distributed
    from src.files import write_whole
    from src.predictor import load_predictor
    from src.run_folder import make_folder

    distributed.start(options.device_target, options.device_id)
    options.eval_batch_size = 1
    predict = load_predictor(options.checkpoint_file_path, options)
    make_folder(folder)
    names = image_files(source)
    work = predict_images(predict, names, options) if names else predict_video(predict, options)
    rows, stopped = take_rows(work)
    if not rows and not stopped:
        raise DataError(f"source '{source}' gives no picture that can be read")
    write_whole(os.path.join(folder, "predictions.json"), json.dumps(rows, indent=1).encode())
    found = sum(len(row["objects"]) for row in rows)
    hint = "" if found else f"; the model gives scores from {predict.meta['min_score']} on"
    text = (f"{found} object(s) with a score of at least {options.draw_score} (--draw_score) in {len(rows)} "
            f"{'picture' if names else 'frame'}(s){hint}; drawings and predictions.json are in {folder}")
    if stopped and not source.isdigit():  # Ctrl-C is how a camera ends
        raise Interrupted(f"interrupted before the end of '{source}': {text}")
    print(text)


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
    if os.path.exists(source) and os.path.realpath(folder) == os.path.realpath(output_path):
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
    from src.visualize import draw_boxes
    boxes, scores, labels = predict.detect(image)
    shown = scores >= least_score
    boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
    height, width = image.shape[:2]
    objects = [{"class": predict.classes[label - 1], "score": round(float(score), 4),
                "box": [round(float(value), 1) for value in box * (width, height, width, height)]}
               for box, score, label in zip(boxes, scores, labels)]
    return draw_boxes(image, boxes, labels, scores, predict.classes), objects


def predict_images(predict, names, options):
    """Writes one drawing and yields one row a picture; an unreadable one is named and left out."""
    from src.data.images import read_image
    from src.logger import track
    from src.visualize import save_png
    stems = Counter(stem(name) for name in names)
    for name in track(names, len(names), "predicting"):
        try:
            image = read_image(name)
        except DataError as error:
            print(f"left out: {error}", flush=True)
            continue
        drawing, objects = detect(predict, image, options.draw_score)
        # a.jpg and a.png of one folder would both become a.png
        file = f"{stem(name) if stems[stem(name)] == 1 else os.path.basename(name)}.png"
        save_png(os.path.join(options.output_path, file), drawing)
        yield {"file": name, "objects": objects}


def predict_video(predict, options):
    """Writes a drawn .mp4, whole up to the last frame at Ctrl-C too, and yields one row a frame."""
    import cv2

    from src.data.image_bytes import describe_file
    from src.data.images import IMAGE_ENDINGS
    cv2.setLogLevel(0)  # else OpenCV writes its own lines about a camera that does not open
    camera = options.source.isdigit()
    video, writer, number = cv2.VideoCapture(int(options.source) if camera else options.source), None, 0
    if not video.isOpened():
        raise DataError(f"source {options.source}: there is no such camera, or another program uses it" if camera else
                        f"source '{options.source}' is neither a picture ({', '.join(IMAGE_ENDINGS)}) nor a video "
                        f"that opens: {describe_file(options.source)}")
    path = os.path.join(options.output_path, f"{f'camera{options.source}' if camera else stem(options.source)}.mp4")
    try:
        while (frame := video.read()[1]) is not None:
            drawing, objects = detect(predict, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), options.draw_score)
            writer = writer or cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"),
                                               video.get(cv2.CAP_PROP_FPS) or 25, drawing.shape[1::-1])
            writer.write(cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR))
            yield {"frame": number, "objects": objects}
            number += 1
            if number % 50 == 0:
                print(f"{number} frames", flush=True)
    finally:
        video.release()
        if writer:
            writer.release()


def stem(path):
    """"pictures/a.jpg" -> "a"."""
    return os.path.splitext(os.path.basename(path))[0]


if __name__ == "__main__":
    run_main(main)
