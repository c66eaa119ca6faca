"""Trains the adapters named on the command line into digits/adapters: LoRA on the trunk, a classifier of their own.

digit and holes run in the current environment and carry transformers 5's names (layers.0.attention.q_proj); parity runs
in the legacy one and carries transformers 4's (encoder.layer.0.attention.attention.query). Saved by PEFT itself, with
the config.json that names the labels beside them.
"""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTForImageClassification

from common import SEED, save_adapter
from digits import data

# Each adapter: its LoraConfig, epochs and learning rate. target_modules are given sorted: PEFT keeps them as a set,
# whose order would differ from run to run.
ADAPTERS = {
    "digit": (dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]), 50, 3e-3),
    "parity": (
        dict(
            r=4, lora_alpha=8, target_modules=["attention.output.dense", "key", "query", "value"],
            alpha_pattern={"attention.output.dense": 4, r"layer\.[01]\.attention\.attention\.query": 12},
        ), 50, 3e-3,
    ),
    "holes": (
        dict(
            r=6, lora_alpha=6, use_rslora=True, target_modules=["fc1", "fc2", "o_proj"],
            rank_pattern={"layers.0.mlp.fc2": 4, "mlp.fc1": 3},
        ), 50, 2e-3,
    ),
}


def main() -> None:
    for name in sys.argv[1:]:
        config, epochs, rate = ADAPTERS[name]
        labels = data.TASKS[name][0]
        torch.manual_seed(SEED)
        base = ViTForImageClassification.from_pretrained(
            data.OUT / "base", ignore_mismatched_sizes=True,
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        )
        model = get_peft_model(base, LoraConfig(modules_to_save=["classifier"], **config))
        data.train(model, name, epochs, rate)
        save_adapter(model, base.config, data.OUT / "adapters" / name, "digits")


if __name__ == "__main__":
    main()
