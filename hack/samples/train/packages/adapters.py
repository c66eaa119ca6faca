"""Trains the adapters into packages/adapters: LoRA on the trunk, a classifier of their own, of a text or its tokens.

Saved by PEFT itself, with the config.json that names the labels beside them. Runs in the current environment.
"""

import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification, BertForTokenClassification

from common import SEED, save_adapter
from packages import data

SEQUENCE, TOKEN = "SEQ_CLS", "TOKEN_CLS"

# Each adapter: its LoraConfig, epochs and learning rate.
ADAPTERS = {
    "section": (dict(task_type=SEQUENCE, r=8, lora_alpha=16, target_modules="all-linear"), 4, 2e-3),
    "language": (
        dict(
            task_type=SEQUENCE, r=6, lora_alpha=12, use_dora=True,
            target_modules=["intermediate.dense", "pooler.dense", "query", "value"],
        ), 4, 2e-3,
    ),
    "library": (
        dict(
            task_type=SEQUENCE, r=4, lora_alpha=8, target_modules=["query", "value"], modules_to_save=["pooler.dense"],
        ), 3, 2e-3,
    ),
    "versions": (
        dict(
            task_type=TOKEN, r=12, lora_alpha=12, use_rslora=True,
            target_modules=["key", "output.dense", "query", "value"],
            rank_pattern={"layer.3.output.dense": 5},
        ), 5, 1e-3,
    ),
}


def main() -> None:
    for name, (config, epochs, rate) in ADAPTERS.items():
        began = time.monotonic()
        labels = data.LABELS[name]
        torch.manual_seed(SEED)
        cls = BertForTokenClassification if config["task_type"] == TOKEN else BertForSequenceClassification
        base = cls.from_pretrained(
            data.OUT / "base", dtype=torch.float32, attn_implementation="eager",
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        )
        model = get_peft_model(base, LoraConfig(**config))
        data.train(model, name, epochs, rate)
        save_adapter(model, base.config, data.OUT / "adapters" / name, "packages")
        print(f"{name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
