"""Writes test/golden/testdata: tiny random bases, PEFT adapters on them (cases.py), and PEFT's own logits for each.

They cover what the trained samples (hack/samples) do not. Every parameter is random, LayerNorms, biases and saved
modules too, so that none can be left out unnoticed; each base and adapter has a seed of its own, from its name. Both are
read back from disk before they answer: float32, evaluation mode, eager attention, one row at a time, unpadded.

    SUITE/base/, SUITE/golden.safetensors     the base, the inputs, and all logits
    SUITE/adapters/CASE/                      an adapter
    variants/NAME/                            a base without adapters, with its golden.safetensors

A golden file has inputs.N.pixel_values [C,H,W], or inputs.N.input_ids and inputs.N.token_type_ids [tokens] (as float32),
and logits.CASE.N, [labels] or [tokens, labels]; the case "base" is the base alone.

Arguments are names of suites and variants to write alone; without any all are written anew.

Run it in the current environment first (transformers 5), then in the legacy one (transformers 4: the adapters with the
older names), which also checks that both agree on those bases. hack/samples/make makes the two environments; versions are
pinned in hack/samples/requirements*.txt.
"""

import json
import os
import shutil
import sys
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the base's name in the adapters, "tiny", is no repository to look up

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import cases

OUT = Path(__file__).parents[2] / "test" / "golden" / "testdata"
LEGACY = transformers.__version__.startswith("4.")
LONGEST = 600  # tokens of a text
CLASSES = {
    "image": transformers.AutoModelForImageClassification,
    "sequence": transformers.AutoModelForSequenceClassification,
    "token": transformers.AutoModelForTokenClassification,
    "teacher": transformers.DeiTForImageClassificationWithTeacher,
}


def generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


@torch.no_grad()
def randomize(model: torch.nn.Module, name: str, std: float) -> None:
    """Draws every parameter that is to be trained; those that multiply (norms, scales, magnitudes) around 1."""
    draw = generator(name)
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:
            multiplies = "norm" in path.lower() and path.endswith("weight") or "lambda1" in path or "magnitude" in path
            parameter.normal_(1.0 if multiplies else 0.0, std, generator=draw)
            if "classifier" in path and path.endswith("bias"):
                parameter += parameter.numel() == 1  # a single answer near 0 would have no digits to compare


def config_of(fields: dict) -> transformers.PretrainedConfig:
    fields = dict(fields)
    return transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)


def base_class(name: str, fields: dict) -> type:
    if name == "deit-teacher":
        return CLASSES["teacher"]
    return CLASSES["image" if "image_size" in fields else "sequence"]


def write_base(folder: Path, name: str, fields: dict, bare: dict | None = None) -> None:
    """Writes a base; bare is how one without a head is saved."""
    config, cls = config_of(fields), base_class(name, fields)
    if bare is not None:
        model = transformers.AutoModel.from_config(config)
        randomize(model, name, std=0.2)
        dtype = bare.pop("dtype", "float32")
        model.to(getattr(torch, dtype)).save_pretrained(folder, **bare)
        return
    if config.model_type == "deit" and cls is not CLASSES["teacher"]:
        config.architectures = ["DeiTForImageClassification"]  # the Auto class knows two
    model = cls(config) if cls is CLASSES["teacher"] else cls.from_config(config)
    randomize(model, name, std=0.2)
    model.save_pretrained(folder)


def read(cls: type, folder: Path, labels: int | None = None, name: str = "") -> torch.nn.Module:
    """Reads a base for a task. A head that it has for another one, or of another size, is drawn anew."""
    more = {} if labels is None else dict(num_labels=labels, ignore_mismatched_sizes=True)
    torch.manual_seed(zlib.crc32(name.encode()))
    return cls.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32, **more).eval()


def write_adapter(suite: Path, name: str, labels: int, task: str, config: dict, extras: dict) -> None:
    folder = suite / "adapters" / name
    base = read(CLASSES[task], suite / "base", labels, name)
    model = get_peft_model(base, LoraConfig(**config))
    randomize(model, name, std=0.3)
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = "tiny"
    for field in ("target_modules", "exclude_modules"):  # sets, in memory: their order differs from run to run
        if isinstance(getattr(saved, field), set):
            setattr(saved, field, sorted(getattr(saved, field)))
    if extras.get("dtype"):
        model = model.to(getattr(torch, extras["dtype"]))
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    if extras.get("config"):
        base.config.problem_type = extras["problem"]
        base.config.save_pretrained(folder)

    path = folder / "adapter_config.json"
    written = json.loads(path.read_text())
    for field in ("rank_pattern", "alpha_pattern"):  # PEFT sorted them: back to the order they were trained with
        written[field] = config.get(field, {})
    written["fan_in_fan_out"] = config.get("fan_in_fan_out", False)  # PEFT took it back where it met a Linear
    path.write_text(json.dumps(written, indent=2))


def inputs_of(name: str, config: transformers.PretrainedConfig) -> list[dict[str, torch.Tensor]]:
    draw = generator(name)
    if hasattr(config, "image_size"):
        size, channels = config.image_size, config.num_channels
        sizes = [(size, size) if isinstance(size, int) else tuple(size)] * 5
        if config.model_type == "dinov2":  # of any size
            sizes = sizes[:2] + [(16, 16), (8, 20), (12, 4)]
        return [dict(pixel_values=torch.randn(1, channels, *s, generator=draw)) for s in sizes]
    longest = min(LONGEST, config.max_position_embeddings - (2 if "roberta" in config.model_type else 0))
    all = []
    for length in [1, 2, 7, 19, longest]:
        ids = torch.randint(3, config.vocab_size, (1, length), generator=draw)
        if length == 19:
            ids[0, 4:9] = torch.tensor([21, 7, 99, 3, 40])  # those that replaced-rows replaces
            ids[0, 11] = 1  # RoBERTa's padding, in the midst
        row = dict(input_ids=ids)
        types = getattr(config, "type_vocab_size", 0)
        if types > 1:
            row["token_type_ids"] = (torch.arange(length)[None] > length // 2).long()
        all.append(row)
    return all


@torch.no_grad()
def answers(model: torch.nn.Module, rows: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    return [model(**row).logits[0].contiguous() for row in rows]


def golden(path: Path, folder: Path, name: str, cls: type, adapters: dict) -> None:
    """Writes the golden file of one base, which the current environment starts and the legacy one goes on with."""
    bare = name.endswith("-bare")  # nothing to answer with by itself
    model = read(cls, folder)
    rows = inputs_of(name, model.config)
    own = [] if bare else answers(model, rows)
    if LEGACY:
        tensors = load_file(path)
        for i, logits in enumerate(own):
            torch.testing.assert_close(logits, tensors[f"logits.base.{i}"], rtol=0, atol=2e-6)
    else:
        tensors = {f"inputs.{i}.{k}": v[0].float() for i, row in enumerate(rows) for k, v in row.items()}
        tensors |= {f"logits.base.{i}": logits for i, logits in enumerate(own)}
    for case, (labels, task, _, *_) in adapters.items():
        base = read(CLASSES[task], folder, labels, case)
        adapted = PeftModel.from_pretrained(base, path.parent / "adapters" / case).eval()
        tensors |= {f"logits.{case}.{i}": logits for i, logits in enumerate(answers(adapted, rows))}
    save_file(tensors, path)


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    only = sys.argv[1:]
    if not LEGACY and not only:
        shutil.rmtree(OUT, ignore_errors=True)
    for name, (fields, current, *bare) in cases.SUITES.items():
        if only and name not in only or LEGACY and name not in cases.LEGACY:
            continue
        adapters = cases.LEGACY.get(name, {}) if LEGACY else current
        suite = OUT / name
        if not LEGACY:
            write_base(suite / "base", name, fields, *bare)
        for case, (labels, task, config, *extras) in adapters.items():
            try:
                write_adapter(suite, case, labels, task, config, extras[0] if extras else {})
            except Exception as e:
                raise RuntimeError(f"{name}/{case}") from e
        golden(suite / "golden.safetensors", suite / "base", name, base_class(name, fields), adapters)
    for name, fields in cases.VARIANTS.items() if not LEGACY else ():
        if only and name not in only:
            continue
        folder = OUT / "variants" / name
        write_base(folder, name, fields)
        golden(folder / "golden.safetensors", folder, name, base_class(name, fields), {})


if __name__ == "__main__":
    main()
