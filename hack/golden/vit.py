"""Writes test/golden/testdata/vit: tiny random ViTs, PEFT adapters on them, and PEFT's own logits for each.

They cover what the trained samples (hack/samples) do not. Every parameter is random, LayerNorms, biases and saved
modules too, so that none can be left out unnoticed; each model and adapter has a seed of its own, from its name. Base
and adapters are read back from disk before they answer: float32, evaluation mode, eager attention, one row at a time.

    base/, golden.safetensors    pixel_values [6,3,8,8], logits.base, logits.CASE for each folder of adapters/
    base-variants/NAME/          other configs, no adapters; each with a golden.safetensors of its own (logits.base)

Run it in the current environment first (transformers 5: base, variants and most adapters), then in the legacy one
(transformers 4: the adapters with the older names), which also checks that both agree on the bases. hack/samples/make
makes the two environments; versions are pinned in hack/samples/requirements*.txt.
"""

import json
import os
import shutil
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the base's name in the adapters, "tiny", is no repository to look up

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

OUT = Path(__file__).parents[2] / "test" / "golden" / "testdata" / "vit"
LEGACY = transformers.__version__.startswith("4.")
HEAD = ["classifier"]

BASE = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, hidden_act="gelu",
    image_size=8, patch_size=4, num_channels=3, qkv_bias=True, num_labels=5,
)
VARIANTS = {
    "gelu-new-wide": BASE | dict(hidden_act="gelu_new", qkv_bias=False, image_size=[8, 16], patch_size=[4, 4]),
    # Images of one channel, whose last row is left over by the patches; more layers than the base.
    "relu-grey": BASE | dict(
        hidden_act="relu", num_hidden_layers=3, num_attention_heads=2, num_channels=1,
        image_size=[9, 8], patch_size=[4, 2], layer_norm_eps=1e-3, num_labels=3,
    ),
    "silu": BASE | dict(hidden_act="silu", num_labels=2),
}

# Each case: the labels of its head, and its LoraConfig. Without modules_to_save the base's own classifier answers.
CASES = {
    "plain": (5, dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"])),
    # The task type is null, as for images, so the classifier is a target like any Linear.
    "all-linear": (5, dict(r=3, lora_alpha=2, target_modules="all-linear")),
    # PEFT writes patterns sorted by key: the narrower key stands first here.
    "rslora-patterns": (4, dict(
        r=4, lora_alpha=2, use_rslora=True, target_modules=["fc1", "fc2", "q_proj", "v_proj"], modules_to_save=HEAD,
        rank_pattern={"layers.0.attention.q_proj": 1, "layers.[01].mlp.fc1": 5, "q_proj": 3},
        alpha_pattern={"layers.0.attention.q_proj": 1, "layers.[01].mlp.fc1": 3, "q_proj": 6},
    )),
    # Not sorted, as a person would write it: the first key that matches counts, so the wider hides the narrower.
    "pattern-order": (5, dict(
        r=4, lora_alpha=2, target_modules=["fc1", "q_proj"], modules_to_save=HEAD,
        rank_pattern={"q_proj": 3, "layers.0.attention.q_proj": 1},
        alpha_pattern={"q_proj": 6, "mlp.fc1": 1, "layers.[01].mlp.fc1": 8, "layers.0.attention.q_proj": 1},
    )),
    "saved-norm": (3, dict(
        r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier", "layernorm"],
    )),
    "saved-trunk": (4, dict(
        r=2, lora_alpha=2, target_modules=["fc1", "k_proj"],
        modules_to_save=["classifier", "layernorm_before", "o_proj"],
    )),
    # The class token, the position embeddings and the patch projection, all in one saved module. (By the name
    # "embeddings" alone PEFT would also save patch_embeddings within it, and cannot load what it wrote.)
    "saved-embeddings": (4, dict(
        r=2, lora_alpha=2, target_modules=["q_proj"], modules_to_save=["classifier", "vit.embeddings"],
    )),
    # Updates that add nothing, and one that subtracts.
    "alpha-zero": (3, dict(
        r=2, lora_alpha=0, target_modules=["fc1", "q_proj", "v_proj"], modules_to_save=HEAD,
        alpha_pattern={"layers.1.attention.v_proj": -3},
    )),
    # PEFT refuses an adapter without any update; this is as near to a head alone as it comes.
    "one-module": (2, dict(r=2, lora_alpha=2, target_modules=["layers.1.mlp.fc2"], modules_to_save=HEAD)),
    "one-layer": (6, dict(
        r=2, lora_alpha=2, target_modules=["fc1", "q_proj"], layers_to_transform=[1], modules_to_save=HEAD,
    )),
    "exclude": (5, dict(
        r=2, lora_alpha=2, target_modules="all-linear", exclude_modules=["classifier", "layers.1.mlp.fc2", "o_proj"],
    )),
    "regex-target": (5, dict(
        r=2, lora_alpha=2, target_modules=r".*layers\.0\.(attention\.[qk]_proj|mlp\.fc2)", modules_to_save=HEAD,
    )),
    "big-rank": (5, dict(r=48, lora_alpha=24, target_modules=["fc2", "q_proj"], modules_to_save=HEAD)),
    "rank-one": (37, dict(r=1, lora_alpha=1, target_modules=["fc1", "v_proj"], modules_to_save=HEAD)),
}
LEGACY_CASES = {
    # "output.dense" is the end of two names in each layer, "attention.output.dense" of one of them.
    "legacy": (7, dict(
        r=3, lora_alpha=2, target_modules=["intermediate.dense", "key", "output.dense"], modules_to_save=HEAD,
        rank_pattern={"layer.1.output.dense": 2},
        alpha_pattern={"attention.output.dense": 1, "output.dense": 5},
    )),
    "legacy-saved": (3, dict(
        r=2, lora_alpha=2, target_modules=["query", "value"], modules_to_save=["classifier", "intermediate.dense"],
    )),
}


def generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


@torch.no_grad()
def randomize(model: torch.nn.Module, name: str, std: float) -> None:
    """Draws every parameter that is to be trained; the weights of LayerNorms around 1."""
    draw = generator(name)
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:
            mean = 1.0 if "layernorm" in path and path.endswith("weight") else 0.0
            parameter.normal_(mean, std, generator=draw)


def write_base(folder: Path, name: str, config: dict) -> None:
    model = ViTForImageClassification(ViTConfig(**config))
    randomize(model, name, std=0.2)
    model.save_pretrained(folder)


def read_base(folder: Path, labels: int | None = None) -> torch.nn.Module:
    model = ViTForImageClassification.from_pretrained(folder, attn_implementation="eager").eval()
    if labels not in (None, model.config.num_labels):
        model.classifier = torch.nn.Linear(model.config.hidden_size, labels)
    return model


def write_adapter(name: str, labels: int, config: dict) -> None:
    folder = OUT / "adapters" / name
    model = get_peft_model(read_base(OUT / "base", labels), LoraConfig(**config))
    randomize(model, name, std=0.3)
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = "tiny"
    for field in ("target_modules", "exclude_modules"):  # sets, in memory: their order differs from run to run
        if isinstance(getattr(saved, field), set):
            setattr(saved, field, sorted(getattr(saved, field)))
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()

    path = folder / "adapter_config.json"
    written = json.loads(path.read_text())
    for field in ("rank_pattern", "alpha_pattern"):  # PEFT sorted them: back to the order they were trained with
        written[field] = config.get(field, {})
    path.write_text(json.dumps(written, indent=2))


def answers(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(pixel_values=row).logits for row in pixels.split(1)])


def golden(path: Path, folder: Path, cases: dict) -> None:
    """Writes the golden file of one base, which the current environment starts and the legacy one goes on with."""
    model = read_base(folder)
    if LEGACY:
        tensors = load_file(path)
        pixels = tensors["pixel_values"]
        torch.testing.assert_close(answers(model, pixels), tensors["logits.base"], rtol=0, atol=1e-6)
    else:
        size, channels = model.config.image_size, model.config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.randn(6, channels, height, width, generator=generator(folder.name))
        tensors = {"pixel_values": pixels, "logits.base": answers(model, pixels)}
    for name, (labels, _) in cases.items():
        adapted = PeftModel.from_pretrained(read_base(folder, labels), OUT / "adapters" / name).eval()
        tensors[f"logits.{name}"] = answers(adapted, pixels)
    save_file(tensors, path)


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    cases = LEGACY_CASES if LEGACY else CASES
    if not LEGACY:
        shutil.rmtree(OUT, ignore_errors=True)
        write_base(OUT / "base", "base", BASE)
        for name, config in VARIANTS.items():
            write_base(OUT / "base-variants" / name, name, config)
    for name, (labels, config) in cases.items():
        write_adapter(name, labels, config)
    golden(OUT / "golden.safetensors", OUT / "base", cases)
    for name in VARIANTS:
        golden(OUT / "base-variants" / name / "golden.safetensors", OUT / "base-variants" / name, {})


if __name__ == "__main__":
    main()
