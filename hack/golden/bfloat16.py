"""Writes test/golden/testdata/bfloat16.json: how far torch's own bfloat16 is from the float32 of the golden files.

Each base is loaded as torch.bfloat16, and each adapter on it as PEFT does, whose low-rank updates stay float32; the inputs
are those of the golden file, one at a time. Of each row the largest difference of any logit is written, to three digits,
and of each case how many answers (of rows, or of their tokens) have another label than in float32:

    {"SUITE": {"CASE": {"off": [a row each], "labels": [others, of so many]}}}

Before that every case is computed in float32 and held to its golden file: what this version of transformers does not load
as the golden file has it (adapters with older names) is left to the other. Run it in the current environment first, then in
the legacy one, which goes on with what the first has written. Arguments are names of suites to write alone.
"""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import cases
from golden import CLASSES, LEGACY

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "test" / "golden" / "testdata"
OUT = GOLDEN / "bfloat16.json"


def suites() -> dict[str, tuple[Path, Path]]:
    """Folders with a golden file, and their bases, by name."""
    found = {p.name: (p, p / "base") for p in GOLDEN.iterdir() if (p / "golden.safetensors").exists()}
    found |= {p.name: (p, p) for p in (GOLDEN / "variants").iterdir()}
    found |= {p.name: (p, p / "base") for p in (ROOT / "hack" / "samples").iterdir() if (p / "base").exists()}
    return dict(sorted(found.items()))


def inputs_of(golden: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    if "pixel_values" in golden:
        return [dict(pixel_values=pixels[None]) for pixels in golden["pixel_values"]]
    rows = []
    while fields := [k for k in golden if k.startswith(f"inputs.{len(rows)}.")]:
        row = {k.split(".")[2]: golden[k][None] for k in fields}
        rows.append({k: v if k == "pixel_values" else v.long() for k, v in row.items()})
    return rows


def wanted(golden: dict[str, torch.Tensor], case: str, rows: int) -> list[torch.Tensor]:
    if f"logits.{case}" in golden:
        return list(golden[f"logits.{case}"])
    return [golden[f"logits.{case}.{i}"] for i in range(rows)]


def task_of(suite: str, case: str, like: torch.Tensor, row: dict) -> str:
    listed = cases.SUITES.get(suite, [0, {}])[1] | cases.LEGACY.get(suite, {})
    if case in listed:
        return listed[case][1]
    if suite == "deit-teacher":
        return "teacher"
    if "pixel_values" in row:
        return "image"
    return "token" if like.dim() == 2 else "sequence"


@torch.no_grad()
def answers(folder: Path, base: Path, case: str, like: torch.Tensor, rows: list, dtype: torch.dtype) -> list[torch.Tensor]:
    config, task = transformers.AutoConfig.from_pretrained(base), task_of(folder.name, case, like, rows[0])
    more = {} if case == "base" else dict(num_labels=like.shape[-1], ignore_mismatched_sizes=True)
    if config.model_type == "deit" and task == "image":
        more["architectures"] = ["DeiTForImageClassification"]  # the Auto class knows two
    model = CLASSES[task].from_pretrained(base, attn_implementation="eager", dtype=dtype, **more)
    if case != "base":
        model = PeftModel.from_pretrained(model, folder / "adapters" / case)
    model.eval()
    found = []
    for row in rows:
        row = {k: v.to(dtype) if v.is_floating_point() else v for k, v in row.items()}
        found.append(model(**row).logits[0].float())
    return found


def labels(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1).flatten()


def compare(folder: Path, base: Path, case: str, golden: dict, rows: list) -> dict | None:
    """What is to be written of a case; None if it is not the golden file's in float32."""
    want = wanted(golden, case, len(rows))
    try:
        exact = answers(folder, base, case, want[0], rows, torch.float32)
        for found, expected in zip(exact, want):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    except Exception as e:  # whatever loading or comparing it says
        print(f"{folder.name}/{case}: left to the other version: {str(e).splitlines()[0]}")
        return None
    rounded = answers(folder, base, case, want[0], rows, torch.bfloat16)
    others = sum(int((labels(a) != labels(b)).sum()) for a, b in zip(rounded, want))
    return {
        "off": [float(f"{(a - b).abs().max():.3g}") for a, b in zip(rounded, want)],
        "labels": [others, sum(labels(b).numel() for b in want)],
    }


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    only = sys.argv[1:]
    written = json.loads(OUT.read_text()) if OUT.exists() and (LEGACY or only) else {}
    for name, (folder, base) in suites().items():
        if only and name not in only:
            continue
        golden = load_file(folder / "golden.safetensors")
        rows, suite = inputs_of(golden), written.setdefault(name, {})
        for case in sorted({k.split(".")[1] for k in golden if k.startswith("logits.")}):
            if LEGACY and case in suite:
                continue
            if found := compare(folder, base, case, golden, rows):
                suite[case] = found
            elif LEGACY:
                raise RuntimeError(f"{name}/{case}: neither version answers as the golden file has it")
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(case)}: {json.dumps(suite[case], separators=(',', ':'))}" for case in sorted(suite))
        + "\n}"
        for name, suite in sorted(written.items())
    ]
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
