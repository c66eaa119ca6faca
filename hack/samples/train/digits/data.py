"""The digits, the tasks, and how each is trained: what every step of this sample shares.

scikit-learn's digits (1797 grey images of 8x8, values 0 to 16) become PNG files of grey levels 0 to 255; whatever sees
an image, in training or in the golden file, sees that PNG through the base's own image processor (PIL's bilinear
resize to 32x32, 1/255, mean and deviation 0.5). 360 images, the same share of each digit, are held out from all
training; 120 of those are published in digits/images. Works with transformers 4 and 5.
"""

import io

import numpy as np
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from common import SAMPLES, SEED, fit

OUT = SAMPLES / "digits"

# Each task: its label names, and the label of each digit 0 to 9. Holes are the closed loops of a digit (an open 4).
TASKS = {
    "base": ([str(d) for d in range(10)], list(range(10))),
    "digit": (["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], list(range(10))),
    "parity": (["even", "odd"], [d % 2 for d in range(10)]),
    "holes": (["none", "one", "two"], [1, 0, 0, 0, 0, 0, 1, 0, 2, 1]),
}


def processor():
    """The image processor on PIL: transformers 5 calls it ViTImageProcessorPil, transformers 4 ViTImageProcessor."""
    cls = getattr(transformers, "ViTImageProcessorPil", None) or transformers.ViTImageProcessor
    return cls(
        do_convert_rgb=True,
        size={"height": 32, "width": 32},
        resample=Image.Resampling.BILINEAR,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def png(pixels: np.ndarray, angle: int = 0, shift: tuple[int, int] = (0, 0)) -> bytes:
    """One digit, values 0 to 16, as a grey PNG; turned by some degrees, moved by some pixels."""
    image = Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8))
    buffer = io.BytesIO()
    image.rotate(angle, Image.Resampling.BILINEAR, translate=shift).save(buffer, format="PNG")
    return buffer.getvalue()


def pixel_values(pngs: list[bytes]) -> torch.Tensor:
    return processor()([Image.open(io.BytesIO(p)) for p in pngs], return_tensors="pt")["pixel_values"]


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices, in scikit-learn's order, of the training split, the held-out split and its published part."""
    target = load_digits().target
    train, held = train_test_split(np.arange(len(target)), test_size=360, stratify=target, random_state=SEED)
    _, published = train_test_split(held, test_size=120, stratify=target[held], random_state=SEED)
    return train, held, published


def train(model: torch.nn.Module, task: str, epochs: int, rate: float) -> None:
    """Trains, and prints the loss and the held-out accuracy.

    In each epoch an image is seen in one of its forms: as it is, moved by a pixel, or turned a little.
    """
    images, target = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    labels = torch.tensor(TASKS[task][1])[torch.from_numpy(target)]
    train_rows, held_rows, _ = split()
    forms = [(0, (0, 0)), (0, (1, 0)), (0, (-1, 0)), (0, (0, 1)), (0, (0, -1)), (12, (0, 0)), (-12, (0, 0))]
    pixels = torch.stack([pixel_values([png(images[i], *form) for i in train_rows]) for form in forms])
    train_labels = labels[train_rows]

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        form = torch.randint(len(forms), batch.shape)
        logits = model(pixel_values=pixels[form, batch]).logits
        return torch.nn.functional.cross_entropy(logits, train_labels[batch])

    loss = fit(model, len(train_rows), epochs, rate, loss_of)
    with torch.no_grad():
        logits = model(pixel_values=pixel_values([png(images[i]) for i in held_rows])).logits
    accuracy = (logits.argmax(-1) == labels[held_rows]).float().mean().item()
    print(f"{task}: loss {loss:.3f}, accuracy {accuracy:.3f} on {len(held_rows)} held-out images")
