"""Makes adapters of a BERT of real size and writes what PEFT and Python's tokenizers answer: golden.py MODEL OUT

    OUT/base/                 MODEL's files
    OUT/adapters/CASE/        adapters by PEFT, their weights drawn at random
    OUT/golden.safetensors    inputs.N.input_ids and inputs.N.token_type_ids (as float32), logits.CASE.N: each adapter alone,
                              one text at a time, unpadded, float32, eager attention
    OUT/tokens.json           texts and their ids: descriptions of Debian's packages, and random Unicode
"""

import json
import random
import shutil
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "samples" / "train"))

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Encoding, Tokenizer
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from common import SEED, save_adapter
from packages.data import held_out, padded

MAX_TOKENS = 512
DESCRIPTIONS, RANDOM = 10_000, 5_000
SHORT = 24  # texts whose logits are compared, beside two long ones

SEQ, TOKEN = "SEQ_CLS", "TOKEN_CLS"
# Each adapter: its labels and LoraConfig.
CASES = {
    "plain": (7, dict(task_type=SEQ, r=16, lora_alpha=32, target_modules=["query", "value"])),
    "all-linear": (3, dict(task_type=SEQ, r=8, lora_alpha=8, target_modules="all-linear", use_rslora=True)),
    "dora": (5, dict(
        task_type=SEQ, r=4, lora_alpha=8, target_modules=["key", "output.dense", "query"], use_dora=True)),
    "wide": (100, dict(task_type=SEQ, r=64, lora_alpha=64, target_modules=["intermediate.dense", "query"])),
    "pooler": (2, dict(task_type=SEQ, r=2, lora_alpha=4, target_modules=["value"], modules_to_save=["pooler.dense"])),
    "embedding": (4, dict(task_type=SEQ, r=4, lora_alpha=8, target_modules=["query", "word_embeddings"])),
    "tokens": (9, dict(task_type=TOKEN, r=8, lora_alpha=16, target_modules=["key", "query", "value"])),
    "tokens-dora": (3, dict(
        task_type=TOKEN, r=16, lora_alpha=16, target_modules=["intermediate.dense", "output.dense"], use_dora=True)),
}

# Characters that tokenizers treat in ways of their own: ASCII, Latin and its accents, Greek and Cyrillic, Devanagari,
# spaces and controls, CJK, Hangul, emoji. Half of the random ones are any characters at all.
RANGES = [
    (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x900, 0x980), (0x0, 0x20), (0x2000, 0x2070),
    (0x3000, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4), (0x1F300, 0x1F700),
]


def read(model: Path, labels: int, task: str) -> torch.nn.Module:
    cls = AutoModelForTokenClassification if task == TOKEN else AutoModelForSequenceClassification
    return cls.from_pretrained(model, num_labels=labels, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def randomize(model: torch.nn.Module, name: str) -> None:
    """Draws what is trained, near the size of what training makes of it."""
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.empty_like(parameter).normal_(0, 0.05, generator=draw)
        if "magnitude" in path:
            parameter.mul_(1 + noise)
        elif "lora_" in path:
            parameter.copy_(noise)
        else:
            parameter.add_(noise)


def random_text(draw: random.Random) -> str:
    characters = []
    for _ in range(draw.randrange(1, 80)):
        low, high = draw.choice(RANGES) if draw.random() < 0.5 else (0x0, 0x110000)
        if not 0xD800 <= (point := draw.randrange(low, high)) < 0xE000:  # halves of pairs are no characters
            characters.append(chr(point))
    return "".join(characters)


def long_text(t: Tokenizer, texts: list[str], tokens: int) -> Encoding:
    """So many tokens of texts put together."""
    t.enable_truncation(tokens)
    return t.encode(" ".join(texts))


def main() -> None:
    model, out = map(Path, sys.argv[1:])
    (out / "base").mkdir(parents=True)
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(model / name, out / "base" / name)

    draw = random.Random(SEED)
    t = Tokenizer.from_file(str(model / "tokenizer.json"))
    t.no_padding()
    t.enable_truncation(MAX_TOKENS)
    descriptions = draw.sample(list(held_out()), DESCRIPTIONS)
    texts = dict(descriptions=descriptions, random=[random_text(draw) for _ in range(RANDOM)])
    tokens = {kind: [dict(text=text, ids=t.encode(text).ids) for text in all] for kind, all in texts.items()}
    (out / "tokens.json").write_text(json.dumps(dict(max_tokens=MAX_TOKENS, **tokens)))

    inputs = t.encode_batch(descriptions[:SHORT])
    inputs += [long_text(t, descriptions, MAX_TOKENS // 2), long_text(t, descriptions, MAX_TOKENS)]
    tensors = {}
    for i, e in enumerate(inputs):
        tensors[f"inputs.{i}.input_ids"] = torch.tensor(e.ids).float()
        tensors[f"inputs.{i}.token_type_ids"] = torch.tensor(e.type_ids).float()
    for name, (labels, config) in CASES.items():
        torch.manual_seed(SEED)
        adapted = get_peft_model(read(model, labels, config["task_type"]), LoraConfig(**config))
        randomize(adapted, name)
        save_adapter(adapted, adapted.config, out / "adapters" / name, "minilm")
        torch.manual_seed(SEED)
        adapted = PeftModel.from_pretrained(
            read(model, labels, config["task_type"]), out / "adapters" / name).eval()
        with torch.no_grad():
            for i, e in enumerate(inputs):
                tensors[f"logits.{name}.{i}"] = adapted(**padded([e])).logits[0].contiguous()
    save_file(tensors, out / "golden.safetensors")


if __name__ == "__main__":
    main()
