"""Prints how far PEFT's own float32 is from its float64, for the rows of one adapter of a suite of texts:

    precision.py SUITE ADAPTER

SUITE is a folder with a base, adapters and golden.safetensors. A row is printed with its largest logit and the largest
difference of any. Where that is more than a few millionths, the golden file cannot say what is right to a hundred thousandth.
"""

import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification


def main(suite: Path, name: str) -> None:
    golden = load_file(suite / "golden.safetensors")
    base = AutoModelForSequenceClassification.from_pretrained(suite / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, suite / "adapters" / name).double().eval()
    prefix = f"logits.{name}."
    for key in sorted((k for k in golden if k.startswith(prefix)), key=lambda k: int(k.removeprefix(prefix))):
        row = key.removeprefix(prefix)
        fields = {
            field: golden[f"inputs.{row}.{field}"].long().reshape(1, -1)
            for field in ("input_ids", "token_type_ids") if f"inputs.{row}.{field}" in golden
        }
        with torch.no_grad():
            exact = model(**fields, attention_mask=torch.ones_like(fields["input_ids"])).logits.flatten()
        off = (golden[key].double().flatten() - exact).abs().max()
        print(f"{name} {row}: largest {exact.abs().max():.6f}, off by {off:.1e}, {off / exact.abs().max():.1e} of it")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
