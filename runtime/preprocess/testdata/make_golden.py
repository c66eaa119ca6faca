"""Makes images/* and golden.json: what Pillow and transformers make of the images.

hack/golden/make runs it, in the environment whose versions hack/samples/requirements.txt pins (without torchvision), with
cjpeg of libjpeg-turbo for the samplings that Pillow does not write:

    hack/python current runtime/preprocess/testdata/make_golden.py

PNGs and most BMPs are written here byte by byte, since Pillow cannot write most of their kinds. Each case of golden.json
is an image, a preprocessor_config.json and a model's channels, height and width; "resized" are the bytes [height, width,
channels] after resizing and cropping, "pixel_values" the processor's float32 [channels, height, width]. Results above 256
bytes are given by their digest; but what is decoded within a tolerance, a JPEG, has all its bytes, deflated.

The order of the passes changed with Pillow 13.0, so an older one gives other bytes where height shrinks most.
"""

import base64
import hashlib
import io
import itertools
import json
import pathlib
import struct
import subprocess
import zlib

import numpy as np
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

OUT = pathlib.Path(__file__).parent
IMAGES = OUT / "images"
RANDOM = np.random.default_rng(20240229)
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
PROCESSORS = {
    "ViTImageProcessor": ViTImageProcessorPil,
    "DeiTImageProcessor": DeiTImageProcessorPil,
    "BitImageProcessor": BitImageProcessorPil,
}
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
    (IMAGES / f"{name}.png").write_bytes(  # the others are called by their whole names
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
    """A case of ViT's processor, that resizes to what the model takes."""
    config.setdefault("size", {"height": height, "width": width})
    return of("ViTImageProcessor", name + ".png", channels, height, width, **config)


def of(processor, name, channels, height, width, **config):
    made = PROCESSORS[processor](**config)
    with Image.open(IMAGES / name) as opened:
        opened.load()
    convert = made.do_convert_rgb
    image = opened if convert else opened.convert("RGB" if channels == 3 else "L")
    bytes_alone = PROCESSORS[processor](**{**config, "do_rescale": False, "do_normalize": False})
    resized = np.moveaxis(bytes_alone(image)["pixel_values"][0], 0, -1)
    assert resized.dtype == np.uint8, (name, resized.dtype)
    values = made(image)["pixel_values"][0]
    assert values.shape == (channels, height, width), (name, values.shape)
    if processor != "ViTImageProcessor":
        config["image_processor_type"] = processor
    lossy = name.endswith(".jpg")
    return {
        "image": name, "channels": channels, "height": height, "width": width, "config": config,
        "resized": "zlib:" + base64.b64encode(zlib.compress(resized.tobytes(), 9)).decode() if lossy
        else text(np.ascontiguousarray(resized).tobytes()),
        "pixel_values": "" if lossy else text(np.ascontiguousarray(values, "<f4").tobytes()),
    }


def photo(height, width, channels=3):
    """Something like a photograph: shades, edges and a little noise."""
    y, x = np.mgrid[:height, :width] / 64
    planes = []
    for c in range(channels):
        shade = 110 + 70 * np.sin(3 * x + c) * np.cos(2 * y - c) + 40 * (np.hypot(x - 1, y - 0.8) < 0.5 + 0.1 * c)
        planes.append(np.clip(shade + RANDOM.normal(0, 4, (height, width)), 0, 255))
    return np.stack(planes, axis=-1).astype("u1")


def jpegs():
    for (height, width), sampling in itertools.product([(97, 141), (40, 5), (5, 40), (3, 3), (1, 1)], (0, 1, 2)):
        name = f"jpeg-{height}x{width}-{sampling}.jpg"
        Image.fromarray(photo(height, width)).save(IMAGES / name, quality=85, subsampling=sampling)
        yield name
    for quality, sampling in [(75, 2), (95, 0)]:  # as a camera has it
        Image.fromarray(photo(360, 480)).save(IMAGES / f"jpeg-camera-{quality}.jpg", quality=quality, subsampling=sampling)
    for sampling, name in [("1x2", "440"), ("4x1", "411"), ("4x2", "410")]:
        ppm = io.BytesIO()
        Image.fromarray(photo(61, 83)).save(ppm, "PPM")
        made = subprocess.run(["cjpeg", "-quality", "85", "-sample", sampling], input=ppm.getvalue(), capture_output=True,
                              check=True).stdout
        (IMAGES / f"jpeg-{name}.jpg").write_bytes(made)
        yield f"jpeg-{name}.jpg"
    rgb, ink = Image.fromarray(photo(61, 83)), Image.fromarray(photo(61, 83, 4), "CMYK")
    for name, image, options in [
        ("progressive", rgb, {"progressive": True, "quality": 80}),
        ("restarts", rgb, {"restart_marker_blocks": 3}),
        ("low", rgb, {"quality": 5}),
        ("high", rgb, {"quality": 100}),
        ("rgb", rgb, {"keep_rgb": True}),
        ("grey", rgb.convert("L"), {}),
        ("grey-progressive", rgb.convert("L"), {"progressive": True}),
        ("cmyk", ink, {"quality": 90}),
    ]:
        image.save(IMAGES / f"jpeg-{name}.jpg", **options)
        yield f"jpeg-{name}.jpg"
    inks = (IMAGES / "jpeg-cmyk.jpg").read_bytes()  # whose Adobe marker says that they are just inks
    at = inks.index(b"Adobe") + 11
    (IMAGES / "jpeg-ycck.jpg").write_bytes(inks[:at] + b"\2" + inks[at + 1:])
    yield "jpeg-ycck.jpg"
    marker = inks.index(b"\xff\xee")
    (IMAGES / "jpeg-inks.jpg").write_bytes(inks[:marker] + inks[marker + 16:])
    yield "jpeg-inks.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(IMAGES / "jpeg-exif.jpg", exif=turned)
    yield "jpeg-exif.jpg"


def webps():
    rgb = photo(61, 83)
    alpha = RANDOM.integers(0, 256, (61, 83, 1), dtype="u1")
    alpha[20:40] = 255
    few = np.stack([RANDOM.integers(0, 3, (61, 83), dtype="u1") * 90] * 3, axis=-1)
    for name, pixels, options in [
        ("lossy", rgb, {}), ("lossy-even", rgb[:60, :82], {"quality": 40}), ("lossy-1x1", rgb[:1, :1], {}),
        ("lossy-2x3", rgb[:2, :3], {}), ("lossy-low", rgb, {"quality": 1}), ("lossy-high", rgb, {"quality": 100}),
        ("lossy-alpha", np.concatenate([rgb, alpha], axis=-1), {}),
        ("lossless", rgb, {"lossless": True}), ("lossless-few", few, {"lossless": True}),
        ("lossless-alpha", np.concatenate([rgb, alpha], axis=-1), {"lossless": True, "exact": True}),
        ("lossless-alpha-exif", np.concatenate([rgb, alpha], axis=-1), {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\0"}),
        ("lossy-exif", rgb, {"exif": b"Exif\0\0MM\0*\0\0\0\0"}),
    ]:
        Image.fromarray(pixels).save(IMAGES / f"webp-{name}.webp", **options)
        yield f"webp-{name}.webp"
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(IMAGES / "webp-animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    yield "webp-animated.webp"


def gifs():
    indices = RANDOM.integers(0, 16, (31, 45), dtype="u1")
    image = Image.fromarray(indices, "P")
    image.putpalette(RANDOM.bytes(3 * 16))
    for name, options in [("plain", {"interlace": 0}), ("interlaced", {"interlace": 1}), ("transparent", {"transparency": 5})]:
        image.save(IMAGES / f"gif-{name}.gif", **options)
        yield f"gif-{name}.gif"
    shades = np.arange(256, dtype="u1").reshape(16, 16)  # all of them, else Pillow writes a palette of those that there are
    Image.fromarray(shades).save(IMAGES / "gif-grey.gif")
    yield "gif-grey.gif"
    image.save(IMAGES / "gif-animated.gif", save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    yield "gif-animated.gif"
    plain = (IMAGES / "gif-plain.gif").read_bytes()
    for name, of_file in [("smaller", plain), ("smaller-transparent", (IMAGES / "gif-transparent.gif").read_bytes())]:
        at = of_file.index(b"\x2c\0\0\0\0\x2d\0\x1f\0")  # the image, on a screen that is made larger
        larger = of_file[:6] + struct.pack("<HH", 60, 50) + of_file[10:at + 1] + struct.pack("<HH", 7, 9) + of_file[at + 5:]
        (IMAGES / f"gif-{name}.gif").write_bytes(larger)
        yield f"gif-{name}.gif"


def bmp(name, height, width, bits, data, compression=0, masks=(), palette=b"", colours=0, size=40, head=None):
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    extra = b"".join(struct.pack("<I", m) for m in masks)
    if size > 40:
        extra = extra.ljust(size - 40, b"\0")
    header = head or header + extra
    offset = 14 + len(header) + len(palette)
    (IMAGES / f"bmp-{name}.bmp").write_bytes(
        struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + header + palette + data)
    return f"bmp-{name}.bmp"


def rows(samples, width, bits):
    """Lines padded to four bytes."""
    return b"".join(line + b"\0" * (-len(line) % 4) for line in samples)


def bmps():
    rgb = photo(13, 19)
    Image.fromarray(rgb).save(IMAGES / "bmp-rgb.bmp")
    yield "bmp-rgb.bmp"
    Image.fromarray(rgb[..., 0]).save(IMAGES / "bmp-grey.bmp")
    yield "bmp-grey.bmp"
    Image.fromarray(rgb[..., 0] > 110).save(IMAGES / "bmp-black-and-white.bmp")
    yield "bmp-black-and-white.bmp"
    Image.fromarray(np.concatenate([rgb, rgb[..., :1]], axis=-1)).save(IMAGES / "bmp-rgba.bmp")
    yield "bmp-rgba.bmp"
    colours = RANDOM.bytes(4 * 16)
    for bits in (1, 4, 8):
        indices = RANDOM.integers(0, min(1 << bits, 16), (13, 19), dtype="u1")
        packed = [np.packbits((line[:, None] >> np.arange(bits - 1, -1, -1) & 1).reshape(-1).astype("u1")).tobytes()
                  for line in indices]
        n = min(1 << bits, 16)
        yield bmp(f"palette-{bits}", 13, 19, bits, rows(packed, 19, bits), palette=colours[:4 * n], colours=n)
    words = [line.astype("<u2").tobytes() for line in RANDOM.integers(0, 1 << 16, (13, 19))]
    yield bmp("16", 13, 19, 16, rows(words, 19, 16))
    yield bmp("565", 13, 19, 16, rows(words, 19, 16), compression=3, masks=(0xF800, 0x7E0, 0x1F))
    longs = [line.astype("<u4").tobytes() for line in RANDOM.integers(0, 1 << 32, (13, 19), dtype="u8")]
    yield bmp("32", 13, 19, 32, b"".join(longs))
    yield bmp("top-down", -13, 19, 32, b"".join(longs))
    for i, masks in enumerate([
        (0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF000000, 0xFF00, 0xFF, 0xFF0000), (0, 0, 0, 0),
    ]):
        yield bmp(f"masks-{i}", 13, 19, 32, b"".join(longs), compression=3, masks=masks, size=56 if i % 2 else 124)
    yield bmp("masks-52", 13, 19, 32, b"".join(longs), compression=3, masks=(0xFF0000, 0xFF00, 0xFF), size=52)
    triples = [line.astype("u1").tobytes() for line in RANDOM.integers(0, 256, (13, 19, 3))]
    core = struct.pack("<IHHHH", 12, 19, 13, 1, 24)
    yield bmp("core", 13, 19, 24, rows(triples, 19, 24), head=core)
    runs = b"\x05\x03\x00\x04\x01\x02\x03\x04\x1e\x07\0\0" + b"\0\2\3\2" + b"\x07\x09\x00\x03\x01\x02\x05\0\0\0"
    runs += b"\x13\x0b\0\0" * 9 + b"\0\1"
    yield bmp("rle8", 13, 19, 8, runs, compression=1, palette=colours, colours=16)
    runs = b"\x05\x3a\x00\x05\x12\x34\x50\x00\x1e\x71\0\0" + b"\0\2\3\2" + b"\x07\x9a\x00\x03\x12\x50\0\0"
    runs += b"\x13\xb2\0\0" * 9 + b"\0\1"
    yield bmp("rle4", 13, 19, 4, runs, compression=2, palette=colours, colours=16)


def other_formats():
    small = {"crop_size": {"height": 28, "width": 28}}
    for name in itertools.chain(jpegs(), webps(), gifs(), bmps()):
        with Image.open(IMAGES / name) as opened:
            width, height = opened.size
        yield of("ViTImageProcessor", name, 3, height, width, size={"height": height, "width": width})
        yield of("ViTImageProcessor", name, 3, 32, 24, size={"height": 32, "width": 24}, do_convert_rgb=True)
        yield of("DeiTImageProcessor", name, 3, 28, 28, size={"height": 32, "width": 32}, **small)
        yield of("BitImageProcessor", name, 3, 28, 28, size={"shortest_edge": 32}, **small)
        if "grey" in name:
            yield of("ViTImageProcessor", name, 1, 16, 20, size={"height": 16, "width": 20}, image_mean=0.5, image_std=0.5)
    for name, resample in itertools.product(["jpeg-camera-75.jpg", "jpeg-camera-95.jpg"], (2, 3)):
        yield of("BitImageProcessor", name, 3, 84, 84, size={"shortest_edge": 96},
                 crop_size={"height": 84, "width": 84}, resample=resample)
        yield of("ViTImageProcessor", name, 3, 80, 80, size={"height": 80, "width": 80}, resample=resample)
    # Sizes and crops, of images that are wide, tall, or smaller than the crop.
    for (height, width), (shortest, crop) in itertools.product(
            [(1, 40), (41, 1), (16, 16), (23, 37), (61, 47)], [(32, (28, 28)), (16, (21, 14)), (7, (16, 9)), (90, (14, 14))]):
        for resample in (0, 2, 3):
            yield of("BitImageProcessor", f"noise-{height}x{width}.png", 3, *crop, size={"shortest_edge": shortest},
                     crop_size={"height": crop[0], "width": crop[1]}, resample=resample)
    for resample in (0, 1, 3):
        yield of("DeiTImageProcessor", "camera.png", 3, 224, 224, resample=resample)
        yield of("BitImageProcessor", "camera.png", 3, 224, 224, size={"shortest_edge": 256}, resample=resample)
    yield of("BitImageProcessor", "noise-61x47.png", 3, 224, 224, do_resize=False)
    yield of("DeiTImageProcessor", "noise-61x47.png", 3, 20, 30, do_resize=False, crop_size={"height": 20, "width": 30})
    yield of("ViTImageProcessor", "camera.png", 3, 50, 50, do_center_crop=True, crop_size=50, size=64)


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
    for old in IMAGES.iterdir():
        old.unlink()
    made = ",\n".join(json.dumps(c, separators=(",", ":")) for c in itertools.chain(cases(), other_formats()))
    (OUT / "golden.json").write_text(f"[\n{made}\n]\n")


if __name__ == "__main__":
    main()
