"""The peer of torchvision_training.py: torchvision's SSDLite on MobileNetV2, and our data as its data set.

torchvision publishes SSDLite with MobileNetV3 only (ssdlite320_mobilenet_v3_large); its own classes take MobileNetV2 as
well. Numbers without another source are those of that builder, torchvision/models/detection/ssdlite.py of 0.28.
"""
import os
from functools import partial

import numpy as np
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.models import mobilenet_v2
from torchvision.models.detection import ssdlite
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.transforms import v2

from src.data.images import decode_image

NORM = {"eps": 0.001, "momentum": 0.03}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
# what the ImageNet weights of MobileNetV2 were trained with (references/classification): a third of its channels have a
# variance below 0.001, which the eps of SSDLite would weaken
IMAGENET_NORM = {"eps": 1e-5, "momentum": 0.03}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LAST_STRIDE = 14  # the block of stride 2 before the last maps: the first map is its expansion
TRAINABLE_LAYERS = 6  # all
EVAL_BATCH = 8


def build_model(num_classes, *, size=320, init="none"):
    """SSD of num_classes with the background; images [3, H, W] 0..1 of any size are resized to [size, size].

    init: path of mobilenet_v2-b0353104.pth, or none: the backbone is then drawn like the rest.
    """
    scratch = init == "none"
    network = mobilenet_v2(norm_layer=partial(nn.BatchNorm2d, **(NORM if scratch else IMAGENET_NORM)))
    if scratch:
        ssdlite._normal_init(network)
    else:
        network.load_state_dict(torch.load(init, map_location="cpu", weights_only=True))
    block = network.features[LAST_STRIDE]
    block.block = block.conv  # the name that MobileNetV3 gives it, and the extractor reads
    norm = partial(nn.BatchNorm2d, **NORM)
    backbone = ssdlite._mobilenet_extractor(network, TRAINABLE_LAYERS, norm)
    anchors = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    head = ssdlite.SSDLiteHead(retrieve_out_channels(backbone, (size, size)), anchors.num_anchors_per_location(),
                               num_classes, norm)
    return SSD(backbone, anchors, (size, size), num_classes, head=head, score_thresh=0.001, nms_thresh=0.55,
               detections_per_img=300, topk_candidates=300, **(HALF if scratch else IMAGENET))


def training_transform():
    """--data-augmentation ssdlite of references/detection/presets.py, by transforms.v2 on tensors."""
    return v2.Compose([v2.RandomIoUCrop(), v2.RandomHorizontalFlip(p=0.5), v2.ToDtype(torch.float, scale=True),
                       v2.SanitizeBoundingBoxes(), v2.ToPureTensor()])


class Pictures(torch.utils.data.Dataset):
    """(image [3, H, W] 0..1, target) of the images below a folder, decoded as our loader decodes them.

    images: dicts of file_name, height, width and, for training, boxes [N, 4] in pixels and labels [N]. The target is a
    dict of both, or without a transform the number of the image.
    """

    def __init__(self, images, folder, transform=None):
        self.images, self.folder, self.transform = images, folder, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        image = self.images[number]
        height, width = image["height"], image["width"]
        data = np.fromfile(os.path.join(self.folder, image["file_name"]), np.uint8)
        pixels = torch.from_numpy(decode_image(data, height, width)).permute(2, 0, 1)
        if not self.transform:
            return pixels.float() / 255, number
        boxes = tv_tensors.BoundingBoxes(torch.tensor(image["boxes"]), format="XYXY", canvas_size=(height, width))
        return self.transform(tv_tensors.Image(pixels), {"boxes": boxes, "labels": torch.tensor(image["labels"])})


def loader(pictures, batch_size, *, workers, seed=None):
    """Batches (images, targets): shuffled and whole with a seed, as references/detection/train.py; else in order."""
    training = seed is not None
    return torch.utils.data.DataLoader(
        pictures, batch_size, shuffle=training, drop_last=training, num_workers=workers, collate_fn=unzip,
        persistent_workers=workers > 0, worker_init_fn=quiet_worker,
        generator=torch.Generator().manual_seed(seed) if training else None)


def unzip(samples):
    """[(image, target), ..] -> (images, targets)"""
    return tuple(zip(*samples))


def quiet_worker(_):
    """One thread a worker, also in OpenCV; torch sets its own."""
    import cv2
    cv2.setNumThreads(1)


def detect(model, images, folder, *, workers):
    """Rows [image row, x1, y1, x2, y2 in pixels, score, label] of what a model finds in images."""
    model.eval()
    table = []
    with torch.inference_mode():
        for pixels, rows in loader(Pictures(images, folder), EVAL_BATCH, workers=workers):
            for number, found in zip(rows, model(list(pixels))):
                columns = [found["boxes"], found["scores"][:, None], found["labels"][:, None]]
                table += [[number, *values] for values in torch.cat(columns, 1).tolist()]
    return table
