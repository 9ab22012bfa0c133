"""Caffe networks as text and their weights as a .caffemodel, for OpenCV and for our reader: seeded, no file of others.

The layers are those of the published prototxt files: weiliu89/caffe, branch ssd, and chuanqi305/MobileNet-SSD.
"""
import numpy as np


def varint(number):
    """A number of a protobuf message."""
    data = b""
    while number > 127:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def field(number, value):
    """A field of a protobuf message: an integer, a text or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array, *, old=False):
    """A BlobProto. old: with num, channels, height and width in place of a list."""
    shape = field(7, field(1, b"".join(map(varint, array.shape))))
    if old:
        shape = b"".join(map(field, (1, 2, 3, 4), (1,) * (4 - array.ndim) + array.shape))
    return shape + field(5, array.astype("<f4").tobytes())


def caffemodel(arrays, *, name="net", old=False):
    """The bytes of a file with the arrays {LAYER.INDEX: array}. old: as Caffe wrote it until 2014."""
    layers = {}
    for key, array in arrays.items():
        layers.setdefault(key.rpartition(".")[0], []).append(array)
    number, name_field, blob_field = (2, 4, 6) if old else (100, 1, 7)
    body = b"".join(field(number, field(name_field, layer) + b"".join(field(blob_field, blob(array, old=old))
                                                                      for array in values))
                    for layer, values in layers.items())
    return (field(1, name) if name else b"") + body


class Network:
    """Collects the layers of a prototxt and seeded arrays for them."""

    def __init__(self, size, num_classes, seed=0):
        self.text = f'input: "data"\ninput_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}\n'
        self.arrays, self.depths = {}, {"data": 3}
        self.rng, self.num_classes, self.priors = np.random.default_rng(seed), num_classes, []

    def layer(self, kind, name, bottoms, parameters=""):
        """A layer whose output has its name."""
        sources = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {sources} top: "{name}" {parameters} }}\n'

    def convolve(self, name, bottom, depth, *, kernel=3, stride=1, pad=1, dilation=1, group=1, bias=True, relu=True):
        """A convolution and the ReLU behind it -> the name of its output."""
        inputs = self.depths[bottom] // group
        deviation = ((2 if relu else 1) / (inputs * kernel ** 2)) ** 0.5
        self.arrays[f"{name}.0"] = self.rng.normal(0, deviation, (depth, inputs, kernel, kernel))
        if bias:
            self.arrays[f"{name}.1"] = self.rng.normal(0, 0.1, depth)
        self.layer("Convolution", name, [bottom], f"convolution_param {{ num_output: {depth} kernel_size: {kernel} "
                   f"stride: {stride} pad: {pad} dilation: {dilation} group: {group} bias_term: {str(bias).lower()} }}")
        self.depths[name] = depth
        return self.activate(name, depth) if relu else name

    def activate(self, name, depth):
        self.layer("ReLU", f"{name}/relu", [name])
        self.depths[f"{name}/relu"] = depth
        return f"{name}/relu"

    def normalize(self, name):
        """BatchNorm and Scale behind a convolution without ReLU, with a weight of the sums, and ReLU."""
        depth = self.depths[name]
        weight = 0.8  # Caffe keeps sums and their weight
        self.arrays[f"{name}/bn.0"] = self.rng.normal(0, 0.3, depth) * weight
        self.arrays[f"{name}/bn.1"] = self.rng.uniform(0.5, 1.5, depth) * weight
        self.arrays[f"{name}/bn.2"] = np.array([weight])
        self.arrays[f"{name}/scale.0"] = self.rng.uniform(0.7, 1.3, depth)
        self.arrays[f"{name}/scale.1"] = self.rng.normal(0, 0.2, depth)
        self.layer("BatchNorm", f"{name}/bn", [name])
        self.layer("Scale", f"{name}/scale", [f"{name}/bn"], "scale_param { bias_term: true }")
        self.depths[f"{name}/scale"] = depth
        return self.activate(f"{name}/scale", depth)

    def predict(self, level, bottom, sizes, ratios, *, step=0, kernel=3):
        """The head of a level: boxes, classes and priors, flat. sizes: min_size and max_size in pixels."""
        shapes = len(sizes) + 2 * len(ratios)
        for kind, values in (("loc", 4), ("conf", self.num_classes)):
            name = f"{level}_mbox_{kind}"
            self.convolve(name, bottom, shapes * values, kernel=kernel, pad=kernel // 2, relu=False)
            self.layer("Permute", f"{name}_perm", [name], "permute_param { order: 0 order: 2 order: 3 order: 1 }")
            self.layer("Flatten", f"{name}_flat", [f"{name}_perm"], "flatten_param { axis: 1 }")
        limits = "".join(f" {kind}_size: {size}" for kind, size in zip(("min", "max"), sizes))
        limits += "".join(f" aspect_ratio: {ratio}" for ratio in ratios) + (f" step: {step}" if step else "")
        self.layer("PriorBox", f"{level}_mbox_priorbox", [bottom, "data"], f"prior_box_param {{{limits} flip: true "
                   "clip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 offset: 0.5 }")
        self.priors.append(level)

    def join(self):
        """The outputs mbox_loc, mbox_conf and mbox_priorbox of all levels."""
        for kind, axis, end in (("loc", 1, "_flat"), ("conf", 1, "_flat"), ("priorbox", 2, "")):
            self.layer("Concat", f"mbox_{kind}", [f"{level}_mbox_{kind}{end}" for level in self.priors],
                       f"concat_param {{ axis: {axis} }}")
        return self


def vgg_ssd(table, num_classes):
    """SSD on VGG-16 with the numbers of an AnchorTable -> Network."""
    net, x = Network(table.image_size, num_classes), "data"
    for stage, (depth, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for number in range(1, count + 1):
            x = net.convolve(f"conv{stage}_{number}", x, depth)
            if (stage, number) == (4, 3):
                first = x
        pool = "pool: MAX kernel_size: 3 stride: 1 pad: 1" if stage == 5 else "pool: MAX kernel_size: 2 stride: 2"
        net.layer("Pooling", f"pool{stage}", [x], f"pooling_param {{ {pool} }}")
        net.depths[f"pool{stage}"], x = depth, f"pool{stage}"
    x = net.convolve("fc6", x, 1024, pad=6, dilation=6)
    levels = [("conv4_3_norm", "conv4_3_norm"), ("fc7", net.convolve("fc7", x, 1024, kernel=1, pad=0))]
    net.layer("Normalize", "conv4_3_norm", [first], "norm_param { across_spatial: false channel_shared: false }")
    net.arrays["conv4_3_norm.0"], net.depths["conv4_3_norm"] = net.rng.uniform(10, 30, 512), 512
    strided = 3 if table.image_size == 512 else 1  # extra levels behind conv6 that halve; the others have no padding
    for number in range(len(table.maps) - 2):
        name, depths = f"conv{number + 6}", (256, 512) if number == 0 else (128, 256)
        x = net.convolve(f"{name}_1", levels[-1][1], depths[0], kernel=1, pad=0)
        last = table.image_size == 512 and number == 4
        how = {"stride": 2} if number <= strided else {"kernel": 4} if last else {"pad": 0}
        levels.append((f"{name}_2", net.convolve(f"{name}_2", x, depths[1], **how)))
    for (level, bottom), size, limit, ratios, step in zip(levels, table.sizes, table.sizes[1:], table.aspect_ratios,
                                                          table.strides):
        net.predict(level, bottom, (size, limit), ratios, step=step)
    return net.join()


MOBILE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def mobile_ssd(num_classes, *, merged):
    """MobileNet-SSD -> Network. merged: as its deploy file, with the norms inside of the convolutions."""
    net = Network(300, num_classes)

    def convolve(name, bottom, depth, **how):
        name = net.convolve(name, bottom, depth, bias=merged, relu=merged, **how)
        return name if merged else net.normalize(name)

    x, levels = convolve("conv0", "data", 32, stride=2), []
    for number, (depth, stride) in enumerate(MOBILE_BLOCKS, 1):
        x = convolve(f"conv{number}/dw", x, net.depths[x], stride=stride, group=net.depths[x])
        x = convolve(f"conv{number}", x, depth, kernel=1, pad=0)
        if number in (11, 13):
            levels.append((f"conv{number}", x))
    for number, depths in enumerate(((256, 512), (128, 256), (128, 256), (64, 128)), 14):
        x = convolve(f"conv{number}_1", x, depths[0], kernel=1, pad=0)
        x = convolve(f"conv{number}_2", x, depths[1], stride=2)
        levels.append((f"conv{number}_2", x))
    limits = [(60,), *zip((105, 150, 195, 240, 285), (150, 195, 240, 285, 300))]
    for place, ((level, bottom), sizes) in enumerate(zip(levels, limits)):
        net.predict(level, bottom, sizes, (2, 3) if place else (2,), kernel=1)
    return net.join()
