"""Makes images/*.png and golden.json: what Pillow and transformers make of the images.

Made with Python 3.11, pillow 13.0.0, numpy 2.4.6 and transformers 5.23.0 (without torchvision):

    python runtime/preprocess/testdata/make_golden.py

The images are written chunk by chunk, since Pillow cannot write most of these kinds. Each case of golden.json is an
image, a preprocessor_config.json and a model's channels, height and width; "resized" are the bytes [height, width,
channels] after Pillow's resize, "pixel_values" the processor's float32 [channels, height, width]. Results above 256
bytes are given by their digest.

The order of the passes changed with Pillow 13.0, so an older one gives other bytes where height shrinks most.
"""

import base64
import hashlib
import itertools
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

OUT = pathlib.Path(__file__).parent
IMAGES = OUT / "images"
RANDOM = np.random.default_rng(20240229)
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def lines(samples: np.ndarray, depth: int) -> bytes:
    """Scan lines [height, width, samples], each with filter 1 (left) at 8 bits and 0 (none) at others."""
    height, width = samples.shape[:2]
    if height == 0 or width == 0:
        return b""
    flat = samples.reshape(height, -1)
    if depth == 16:
        return b"".join(b"\0" + line.astype(">u2").tobytes() for line in flat)
    if depth == 8:
        left = np.zeros_like(samples)
        left[:, 1:] = samples[:, :-1]
        return b"".join(b"\1" + line.astype("u1").tobytes() for line in (samples - left).reshape(height, -1))
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1) & 1).reshape(height, -1)
    return b"".join(b"\0" + np.packbits(line.astype("u1")).tobytes() for line in bits)


def write(name, samples, depth, colour, *chunks, interlaced=False):
    height, width = samples.shape[:2]
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    data = b"".join(lines(samples[y::dy, x::dx], depth) for x, y, dx, dy in passes)
    (IMAGES / f"{name}.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(data, 9))
        + chunk(b"IEND", b""))
    return name


def noise(height, width, depth, colour):
    return RANDOM.integers(0, 1 << depth, (height, width, SAMPLES[colour]))


def kinds():
    """One image of every kind that Pillow opens otherwise, 13 x 9 pixels."""
    for depth, colour in [(1, GREY), (2, GREY), (4, GREY), (8, GREY), (16, GREY), (8, RGB), (16, RGB),
                          (8, GREY_ALPHA), (16, GREY_ALPHA), (8, RGB_ALPHA), (16, RGB_ALPHA)]:
        for interlaced in (False, True):
            yield write(f"colour{colour}-{depth}bit" + "-interlaced" * interlaced, noise(9, 13, depth, colour), depth,
                        colour, interlaced=interlaced)
    low = noise(9, 13, 16, GREY) // 199  # half of them below 255, which 16-bit grey is clipped at
    yield write("colour0-16bit-low", low, 16, GREY)
    for depth in (1, 2, 4, 8):
        entries = min(1 << depth, 200)
        colours = chunk(b"PLTE", RANDOM.bytes(3 * entries))
        yield write(f"palette-{depth}bit", noise(9, 13, depth, PALETTE), depth, PALETTE, colours)  # 8: indices beyond
        alphas = chunk(b"tRNS", RANDOM.bytes(max(entries // 2, 1)))
        yield write(f"palette-{depth}bit-alpha", noise(9, 13, depth, PALETTE), depth, PALETTE, colours, alphas)
    one = chunk(b"tRNS", b"\xff\x00\xff\xff")
    yield write("palette-2bit-one", noise(9, 13, 2, PALETTE), 2, PALETTE, chunk(b"PLTE", RANDOM.bytes(12)), one)
    for depth in (1, 8):
        grey = noise(9, 13, depth, GREY)
        yield write(f"key-grey-{depth}bit", grey, depth, GREY, chunk(b"tRNS", struct.pack(">H", grey[4, 5, 0])))
    rgb = noise(9, 13, 8, RGB)
    rgb[2:5, 3:9] = rgb[4, 5]
    yield write("key-rgb-8bit", rgb, 8, RGB, chunk(b"tRNS", struct.pack(">3H", *rgb[4, 5])))
    write("key-rgb-16bit", rgb, 16, RGB, chunk(b"tRNS", struct.pack(">3H", *rgb[4, 5])))  # no case: compared with exif-upright on white
    upright = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 1, 0, 0)
    yield write("exif-upright", rgb, 8, RGB, chunk(b"eXIf", upright))
    turned = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    write("exif-turned", rgb, 8, RGB, chunk(b"eXIf", turned))  # no case: compared with exif-upright


def text(result: bytes) -> str:
    if len(result) > 256:
        return "sha256:" + hashlib.sha256(result).hexdigest()
    return "base64:" + base64.b64encode(result).decode()


def case(name, channels, height, width, **config):
    config.setdefault("size", {"height": height, "width": width})
    processor = ViTImageProcessorPil(**config)
    with Image.open(IMAGES / f"{name}.png") as opened:
        opened.load()
    if config.get("do_convert_rgb"):
        image, converted = opened, Image.fromarray(convert_to_rgb(opened, return_numpy=True))
    else:
        image = converted = opened.convert("RGB" if channels == 3 else "L")
    resized = np.array(converted.resize((width, height), config.get("resample", 2)))
    values = processor(image)["pixel_values"][0]
    assert values.shape == (channels, height, width), (name, values.shape)
    return {
        "image": name, "channels": channels, "height": height, "width": width, "config": config,
        "resized": text(resized.tobytes()),
        "pixel_values": text(np.ascontiguousarray(values, "<f4").tobytes()),
    }


def cases():
    for name in kinds():
        yield case(name, 3, 9, 13)
        yield case(name, 3, 7, 16)
        yield case(name, 3, 9, 13, do_convert_rgb=True)
        yield case(name, 3, 16, 5, do_convert_rgb=True, resample=3)
        if name.startswith(("colour0", "colour4", "key-grey")):
            yield case(name, 1, 9, 13, image_mean=[0.1307], image_std=[0.3081])
            yield case(name, 1, 5, 20, image_mean=0.1307, image_std=0.3081, resample=1)

    # Every value over every alpha.
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1)
    yield case(write("alpha", pairs, 8, GREY_ALPHA), 3, 256, 256, do_convert_rgb=True)

    # Every filter, over sizes that shrink, grow, stay, or all at once.
    sizes = [(1, 1), (1, 40), (41, 1), (16, 16), (23, 37), (61, 47)]
    for height, width in sizes:
        write(f"noise-{height}x{width}", noise(height, width, 8, RGB), 8, RGB)
    targets = [(1, 1), (2, 3), (16, 16), (23, 10), (7, 47), (50, 60), (224, 224)]
    for (height, width), (to_height, to_width), resample in itertools.product(sizes, targets, range(6)):
        yield case(f"noise-{height}x{width}", 3, to_height, to_width, resample=resample)
    for side in (186, 502):  # where a Hamming window of 0.54 and 0.46 in double precision gives other bytes
        yield case("noise-23x37", 3, side, side, resample=5)
    sharp = 255 * RANDOM.integers(0, 2, (48, 48, 1))  # overshoots, so sums are clipped at both ends
    write("sharp", sharp, 8, GREY)
    for (height, width), resample in itertools.product([(17, 31), (100, 90)], range(6)):
        yield case("sharp", 1, height, width, resample=resample, image_mean=0.5, image_std=0.5)

    # 640 x 480, as a camera has it, though it compresses better.
    y, x = np.mgrid[:480, :640]
    disc = ((y - 200) ** 2 + (x - 300) ** 2 < 150**2) * 90
    write("camera", np.stack([x // 4 + disc, y // 3 + (x // 16 + y // 16) % 2 * 60, (x + y) // 5], axis=-1), 8, RGB)
    for resample in range(6):
        yield case("camera", 3, 224, 224, resample=resample)
    yield case("camera", 3, 384, 384, size=384)

    # Every byte, through every step and its absence.
    write("bytes", np.arange(256).reshape(16, 16, 1), 8, GREY)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for config in [
        {}, {"image_mean": mean, "image_std": std}, {"do_rescale": False}, {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False}, {"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1},
        {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
        {"do_resize": False, "image_mean": [0.48145466, 0.4578275, 0.40821073],
         "image_std": [0.26862954, 0.26130258, 0.27577711]},
        {"rescale_factor": 1 / 256, "image_mean": [0.1, 0.7, 1 / 3], "image_std": [1e-3, 3, 1 / 7]},
    ]:
        yield case("bytes", 3, 16, 16, **config)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for old in IMAGES.glob("*.png"):
        old.unlink()
    made = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases())
    (OUT / "golden.json").write_text(f"[\n{made}\n]\n")


if __name__ == "__main__":
    main()
