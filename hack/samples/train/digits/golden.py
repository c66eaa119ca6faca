"""Writes digits/golden.safetensors: what PEFT answers for the published images, for the adapters named.

pixel_values [120,3,32,32] as the base's processor gives them, logits.base [120,10] of the base alone, and logits.NAME
[120,labels] of each adapter alone on the base: float32, evaluation mode, eager attention, one image at a time. Base and
adapters are read back from disk. Run it in the current environment first, then in the legacy one for parity, which
transformers 5 cannot load: it adds its logits, once its own pixels and base logits are found to agree with the first
(pixels exactly, logits to 1e-6). Prints each adapter's accuracy on these images.
"""

import csv
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import ViTForImageClassification

from digits import data

GOLDEN = data.OUT / "golden.safetensors"


def base(labels: int) -> torch.nn.Module:
    return ViTForImageClassification.from_pretrained(
        data.OUT / "base", num_labels=labels, ignore_mismatched_sizes=True, attn_implementation="eager"
    ).eval()


def answers(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(pixel_values=row).logits for row in pixels.split(1)])


def main() -> None:
    with open(data.OUT / "images" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = data.pixel_values([(data.OUT / "images" / row["image"]).read_bytes() for row in rows])
    tensors = {"pixel_values": pixels, "logits.base": answers(base(10), pixels)}
    for name in sys.argv[1:]:
        labels = data.TASKS[name][0]
        model = PeftModel.from_pretrained(base(len(labels)), data.OUT / "adapters" / name).eval()
        logits = answers(model, pixels)
        right = sum(labels[i] == row[name] for i, row in zip(logits.argmax(-1), rows, strict=True))
        print(f"{name}: accuracy {right / len(rows):.3f} on the {len(rows)} published images")
        tensors[f"logits.{name}"] = logits
    if GOLDEN.exists():
        earlier = load_file(GOLDEN)
        torch.testing.assert_close(pixels, earlier["pixel_values"], rtol=0, atol=0)
        torch.testing.assert_close(tensors["logits.base"], earlier["logits.base"], rtol=0, atol=1e-6)
        tensors |= earlier
    save_file(tensors, GOLDEN)


if __name__ == "__main__":
    main()
