"""Runs Switchyard beside PEFT, ONNX Runtime and OpenVINO, in turn, on the same weights and inputs.

    hack/python peers hack/bench/peers.py [CASE…] [--dtype DTYPE…] [--rounds N] [--write]

A case is one of SHAPES, or fanout; all are run if none is named, in float32 and in bfloat16. Medians and ratios are
printed, and --write puts them in docs/benchmarks.md, in place of the former ones of the same cases and types. Models
and adapters are drawn at random: no figure here depends on what weights say. Each answer of Switchyard's largest mixed
batch is held to that of PEFT in float32 before anything is timed.
"""

import argparse
import copy
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import onnxruntime
import openvino
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

transformers.logging.set_verbosity_error()

ROOT = pathlib.Path(__file__).resolve().parents[2]
THREADS = len(os.sched_getaffinity(0))
ROWS = 32
ADAPTERS = 32
FANOUT_ADAPTERS = 6
CORE = openvino.Core()
# What answers may be off those of PEFT in float32, of a row's largest logit.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.2}


HEADER = """# Benchmarks

Written by `hack/bench/peers.py`; no figure is of another run. Every table is one interleaved run: each contestant in
turn, round after round, and the medians of these. The machine may be shared, so that ratios count, not milliseconds.
What ran, and when, stands before the tables of each type; the types of a case may be of different runs.
Weights are random; every row of the largest mixed batch has been held to PEFT's answer in float32.
"""
FANOUT = "Fan-out: ModernBERT-base, one text of six adapters of rank 32"


def vit(**config):
    return lambda: (
        ViTForImageClassification(ViTConfig(num_labels=10, **config)),
        {"pixel_values": torch.randn(ROWS, 3, 224, 224)},
    )


def bert(tokens, **config):
    return lambda: (
        BertForSequenceClassification(BertConfig(num_labels=10, **config)),
        {"input_ids": torch.randint(5, 30000, (ROWS, tokens))},
    )


SMALL = dict(hidden_size=384, intermediate_size=1536)
# By name: what it is, its model and inputs, what adapters change (rank, modules), the sizes of batches.
SHAPES = {
    "minilm": (
        "MiniLM-L6 (22M), 64 tokens",
        bert(64, num_hidden_layers=6, num_attention_heads=12, **SMALL),
        [(8, ["query", "value"])],
        (1, 8, 32),
    ),
    "minilm-short": (
        "MiniLM-L6 (22M), 16 tokens",
        bert(16, num_hidden_layers=6, num_attention_heads=12, **SMALL),
        [(8, ["query", "value"]), (64, ["query", "value"])],
        (1, 32),
    ),
    "vit-s": (
        "ViT-S/16 (22M), 224²",
        vit(num_attention_heads=6, **SMALL),
        [(8, ["q_proj", "v_proj"]), (16, "all-linear")],
        (1, 8, 32),
    ),
    "bert-b": ("BERT-base (110M), 128 tokens", bert(128), [(8, ["query", "value"])], (1, 8, 32)),
    "vit-b": ("ViT-B/16 (86M), 224²", vit(), [(8, ["q_proj", "v_proj"])], (1, 8)),
}


class Switchyard:
    """hack/bench/contestant, as a process of its own."""

    def __init__(self, folder):
        binary = os.path.join(folder, "contestant")
        subprocess.run(["go", "build", "-o", binary, "./hack/bench/contestant"], cwd=ROOT, check=True)
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if answer.get("error"):
            sys.exit("switchyard: " + answer["error"])
        return answer

    def run(self, rows, whole=False):
        return self.tell(Rows=rows, Whole=whole)


def in_turn(contestants, rounds):
    """Medians in ms, by name: of the time that a contestant returns in ms, else of the caller's clock."""
    times = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            time.sleep(0.05)  # the threads of the one before may still be looking for work
            began = time.perf_counter()
            own = run()
            took = own if isinstance(own, float) else (time.perf_counter() - began) * 1e3
            if turn:  # the first warms up
                times[name].append(took)
    return {name: statistics.median(t) for name, t in times.items()}


class Exported(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors):
        return self.model(**dict(zip(self.names, tensors))).logits


def exports(model, inputs, folder, name):
    """The bare base for the engines that take files: {attention: path}, with a batch of any size."""
    paths = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        path = os.path.join(folder, f"{name}-{attention}.onnx")
        torch.onnx.export(
            Exported(model, list(inputs)), tuple(t[:2] for t in inputs.values()), path, input_names=list(inputs),
            dynamic_axes={i: {0: "batch"} for i in inputs}, dynamo=False, opset_version=17,
        )
        paths[attention] = path
    model.set_attn_implementation("sdpa")
    return paths


def openvino_model(path, inputs, dtype, streams):
    """An export compiled for inputs of these shapes: for latency, or for some streams at once."""
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS}
    config |= {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": str(streams)}
    model = CORE.read_model(path)
    model.reshape({i.get_any_name(): list(inputs[i.get_any_name()].shape) for i in model.inputs})
    return CORE.compile_model(model, "CPU", config)


def openvino_run(model, parts):
    """A request for each part of the inputs, of which the model computes as many at once as it has streams."""
    names = [i.get_any_name() for i in model.inputs]
    requests = [(model.create_infer_request(), {name: part[name] for name in names}) for part in parts]

    def run():
        for request, part in requests:
            request.start_async(part)
        for request, _ in requests:
            request.wait()

    return run


def openvino_batches(paths, inputs, dtype):
    """Each export for latency, and with two streams of half the batch each."""
    runs, rows = {}, len(next(iter(inputs.values())))
    for attention, path in paths.items():
        for streams, named in (1, "latency"), (2, "two streams"):
            if rows % streams:
                continue
            parts = [
                {name: np.ascontiguousarray(np.split(values, streams)[n]) for name, values in inputs.items()}
                for n in range(streams)
            ]
            model = openvino_model(path, parts[0], dtype, streams)
            runs[f"OpenVINO base, {attention}, {named}"] = openvino_run(model, parts)
    return runs


def openvino_fanout(paths, inputs, dtype):
    """Each export for one text once, and for six of its size as its users would ask them: in turn, in two streams."""
    runs = {}
    for attention, path in paths.items():
        once = openvino_run(openvino_model(path, inputs, dtype, 1), [inputs])
        streams = openvino_run(openvino_model(path, inputs, dtype, 2), [inputs] * FANOUT_ADAPTERS)
        runs[f"OpenVINO base, {attention}, once"] = once
        runs[f"OpenVINO base, {attention}, six in turn"] = lambda once=once: [once() for _ in range(FANOUT_ADAPTERS)]
        runs[f"OpenVINO base, {attention}, six in two streams"] = streams
    return runs


def onnxruntime_run(path, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name: inputs[i.name] for i in session.get_inputs()}

    def run():
        session.run(None, wanted)

    return run


def adapted(model, configs):
    """PEFT's model with an adapter of each config: a0, a1, …"""
    tuned = get_peft_model(model, configs[0], adapter_name="a0")
    for n, config in enumerate(configs[1:], 1):
        tuned.add_adapter(f"a{n}", config)
    tuned.eval().set_adapter("a0")
    return tuned


def lora(rank, modules, task="SEQ_CLS", **more):
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=modules, modules_to_save=["classifier"], init_lora_weights=False,
        task_type=task, **more,
    )


def tame(tuned):
    """Random updates far larger than trained ones would make answers that say nothing."""
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.1)


def check(name, dtype, ours, theirs):
    theirs = theirs.numpy()
    for row, logits in enumerate(ours):
        off = np.abs(np.array(logits) - theirs[row]).max() / np.abs(theirs[row]).max()
        if off > TOLERANCES[dtype]:
            sys.exit(f"{name}: row {row}: Switchyard is off PEFT by {off:.1e} of its largest logit")


def best(times, *words):
    """The fastest of those whose name has all of the words."""
    return min((name for name in times if all(word in name for word in words)), key=times.get)


class Peft:
    """PEFT's model in a dtype, asked as its users ask it."""

    def __init__(self, tuned, inputs, dtype):
        torch_dtype = getattr(torch, dtype)
        self.tuned = tuned if dtype == "float32" else copy.deepcopy(tuned).to(torch_dtype)
        self.inputs = {k: t.to(torch_dtype) if t.is_floating_point() else t for k, t in inputs.items()}

    def mixed(self, rows, adapters):
        with torch.no_grad():
            asked = {k: t[:rows] for k, t in self.inputs.items()}
            return self.tuned(**asked, adapter_names=[f"a{i % adapters}" for i in range(rows)]).logits.float()

    def switching(self, rows, adapters):
        with torch.no_grad():
            for n in range(adapters):
                self.tuned.set_adapter(f"a{n}")
                self.tuned(**{k: t[:rows][n::adapters] for k, t in self.inputs.items()})


def shape(switchyard, name, dtypes, rounds, folder, results):
    _, build, variants, _ = SHAPES[name]
    torch.manual_seed(0)
    model, inputs = build()
    model.eval()
    base = os.path.join(folder, name)
    model.save_pretrained(base)
    paths = exports(model, inputs, folder, name)
    inputs_file = os.path.join(folder, name + ".safetensors")
    save_file({k: np.ascontiguousarray(t.float().numpy()) for k, t in inputs.items()}, inputs_file)
    for at, (rank, modules) in enumerate(variants):
        torch.manual_seed(1)
        bare, _ = build()
        bare.load_state_dict(model.state_dict())
        task = "SEQ_CLS" if "input_ids" in inputs else None
        tuned = adapted(bare, [lora(rank, modules, task) for _ in range(ADAPTERS)])
        tame(tuned)
        saved = os.path.join(folder, f"{name}-{at}")
        tuned.save_pretrained(saved)
        truth = Peft(tuned, inputs, "float32").mixed(ROWS, ADAPTERS)
        what = f"rank {rank} on {'every linear' if modules == 'all-linear' else 'query and value'}"
        for dtype in dtypes:
            names = [os.path.join(saved, f"a{n}") for n in range(ADAPTERS)]
            results[dtype]["variant"] = switchyard.tell(Open=base, DType=dtype, Adapters=names)["variant"]
            switchyard.tell(Inputs=inputs_file)
            check(name, dtype, switchyard.run([[i, i] for i in range(ROWS)])["logits"], truth)
            mixed_batches(switchyard, name, dtype, what, inputs, Peft(tuned, inputs, dtype), paths, rounds, results)


def mixed_batches(switchyard, name, dtype, what, inputs, peft, paths, rounds, results):
    """A table for each size of a batch."""
    batches = SHAPES[name][3]

    def ours(rows, adapters, whole=False):
        asked = [[i, i % adapters if adapters else -1] for i in range(rows)]
        return lambda: switchyard.run(asked, whole)["ms"]

    for rows in batches:
        arrays = {k: t[:rows].numpy() for k, t in inputs.items()}
        contestants = {}
        for adapters in sorted({1, min(8, rows), rows}):
            contestants[f"Switchyard, {adapters} adapters"] = ours(rows, adapters)
            contestants[f"PEFT mixed, {adapters} adapters"] = lambda n=adapters: peft.mixed(rows, n)
        contestants[f"Switchyard, {rows} adapters, whole last layer"] = ours(rows, rows, True)
        contestants["Switchyard base"] = ours(rows, 0)
        contestants[f"PEFT switching, {rows} adapters"] = lambda: peft.switching(rows, rows)
        if dtype == "float32":  # it computes in no other on CPUs
            contestants["ONNX Runtime base"] = onnxruntime_run(paths["eager"], arrays)
        contestants |= openvino_batches(paths, arrays, dtype)
        times = in_turn(contestants, rounds)
        mark = best(times, "OpenVINO")
        case = f"{dtype}, batch of {rows}, {what}"
        report(results[dtype], case, times, mark, "OpenVINO's best")
        summary(results[dtype], case, {
            "mixed / OpenVINO's bare base": times[f"Switchyard, {rows} adapters"] / times[mark],
            "the same with the whole last layer": times[f"Switchyard, {rows} adapters, whole last layer"] / times[mark],
            "mixed / own base": times[f"Switchyard, {rows} adapters"] / times["Switchyard base"],
            "PEFT mixed / Switchyard": times[f"PEFT mixed, {rows} adapters"] / times[f"Switchyard, {rows} adapters"],
        })


def fanout(switchyard, dtypes, rounds, folder, results):
    """One text asked of six adapters of a ModernBERT-base."""
    torch.manual_seed(0)
    adapters, lengths = FANOUT_ADAPTERS, (32, 128, 512)
    config = ModernBertConfig(num_labels=14, vocab_size=50368, reference_compile=False)
    model = ModernBertForSequenceClassification(config).eval()
    base = os.path.join(folder, "modernbert")
    model.save_pretrained(base)
    inner = ["Wqkv", "Wo", "Wi"]
    layers = config.num_hidden_layers
    last = list(range(layers - layers // 3, layers))
    kinds = {
        "everywhere": lambda: lora(32, inner),
        "the last third of the layers": lambda: lora(32, inner, layers_to_transform=last),
        "heads only": lambda: lora(32, ["head.dense"]),
    }
    texts = {n: torch.randint(5, 50000, (1, n)) for n in lengths}
    paths = {n: exports(model, {"input_ids": t.repeat(2, 1)}, folder, f"modernbert-{n}") for n, t in texts.items()}
    for kind, make in kinds.items():
        torch.manual_seed(1)
        bare = ModernBertForSequenceClassification(config).eval()
        bare.load_state_dict(model.state_dict())
        tuned = adapted(bare, [make() for _ in range(adapters)])
        tame(tuned)
        saved = os.path.join(folder, "modernbert-" + kind.replace(" ", "-"))
        tuned.save_pretrained(saved)
        names = [os.path.join(saved, f"a{n}") for n in range(adapters)]
        for dtype in dtypes:
            results[dtype]["variant"] = switchyard.tell(Open=base, DType=dtype, Adapters=names)["variant"]
            for length, ids in texts.items():
                file = os.path.join(folder, f"text-{length}.safetensors")
                save_file({"input_ids": np.ascontiguousarray(ids.float().numpy())}, file)
                switchyard.tell(Inputs=file)
                inputs = {"input_ids": ids.repeat(adapters, 1)}
                truth = Peft(tuned, inputs, "float32").mixed(adapters, adapters)
                asked = [[0, n] for n in range(adapters)]
                case = f"{dtype}, {length} tokens, {kind}"
                check(case, dtype, switchyard.run(asked)["logits"], truth)
                peft = Peft(tuned, inputs, dtype)
                contestants = {
                    "Switchyard, one text of six adapters": lambda: switchyard.run(asked)["ms"],
                    "Switchyard, the same, whole last layer": lambda: switchyard.run(asked, True)["ms"],
                    "Switchyard base once": lambda: switchyard.run([[0, -1]])["ms"],
                    "PEFT mixed, six rows": lambda: peft.mixed(adapters, adapters),
                    "PEFT, six in turn": lambda: peft.switching(adapters, adapters),
                } | openvino_fanout(paths[length], {"input_ids": ids.numpy()}, dtype)
                times = in_turn(contestants, rounds)
                once, six = best(times, "OpenVINO", "once"), best(times, "OpenVINO", "six")
                report(results[dtype], case, times, once, "OpenVINO's best, once")
                ours = times["Switchyard, one text of six adapters"]
                whole = times["Switchyard, the same, whole last layer"]
                summary(results[dtype], case, {
                    "six adapters / six runs of OpenVINO's bare base": ours / times[six],
                    "the same with the whole last layer": whole / times[six],
                    "six adapters / one run of it": ours / times[once],
                    "PEFT mixed / Switchyard": times["PEFT mixed, six rows"] / ours,
                })


def report(results, title, times, mark, named):
    lines = [f"### {title}", "", f"| | ms | of {named} |", "|---|---|---|"]
    for name, ms in times.items():
        lines.append(f"| {name} | {ms:.1f} | {ms / times[mark]:.2f} |")
    results["tables"].append("\n".join(lines))
    print(results["tables"][-1] + "\n", flush=True)


def summary(results, title, ratios):
    for name, ratio in ratios.items():
        results["ratios"].append(f"| {title} | {name} | {ratio:.2f} |")
        print(f"{title}: {name}: {ratio:.2f}", flush=True)
    print(flush=True)


def machine():
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    sets = [s for s in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if s in flags]
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in
                         ("torch", "transformers", "peft", "onnxruntime", "openvino"))
    go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{cpu}, {THREADS} cores, {' '.join(sets)}; {platform.system()}; {go}; {versions}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*SHAPES, "fanout", []])
    parser.add_argument("--dtype", nargs="*", choices=[*TOLERANCES], default=[*TOLERANCES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    cases = asked.cases or [*SHAPES, "fanout"]
    torch.set_num_threads(THREADS)
    folder = tempfile.mkdtemp(prefix="peers-")
    try:
        switchyard = Switchyard(folder)
        for case in cases:
            results = {dtype: {"tables": [], "ratios": []} for dtype in asked.dtype}
            if case == "fanout":
                fanout(switchyard, asked.dtype, asked.rounds, folder, results)
            else:
                shape(switchyard, case, asked.dtype, asked.rounds, folder, results)
            if asked.write:
                write(case, results, asked.rounds)
    finally:
        shutil.rmtree(folder)


def title(case):
    return FANOUT if case == "fanout" else SHAPES[case][0]


def write(case, results, rounds):
    """Puts what has run in place of a case's former section, but for the types that it has not run in."""
    page = ROOT / "docs" / "benchmarks.md"
    _, *former = page.read_text().split("\n## ") if page.exists() else [""]
    sections = dict(section.split("\n", 1) for section in former)
    types = parse(sections.get(title(case), ""))
    for dtype, result in results.items():
        ran = [machine(), f"Switchyard's kernels: {result['variant']}", f"{rounds} rounds", f"{datetime.date.today()}."]
        types[dtype] = {"ran": f"{dtype}: " + "; ".join(ran), "ratios": result["ratios"], "tables": result["tables"]}
    sections[title(case)] = section(types)
    parts = [HEADER] + [f"## {t}\n{sections[t]}" for t in map(title, [*SHAPES, "fanout"]) if t in sections]
    page.write_text("\n".join(part.rstrip() + "\n" for part in parts))


def section(types):
    """A case's section of the page: what has run in each type, all ratios, all tables."""
    of = [types[dtype] for dtype in TOLERANCES if dtype in types]
    ratios = ["| case | ratio | |", "|---|---|---|"] + [row for each in of for row in each["ratios"]]
    tables = [table for each in of for table in each["tables"]]
    return "\n\n".join(["", *(each["ran"] for each in of), "\n".join(ratios), *tables])[1:]


def parse(text):
    """What section made the text of, by type."""
    head, *tables = text.split("\n### ")
    types = {}
    for line in head.splitlines():
        dtype = line.split(":")[0]
        if dtype in TOLERANCES:
            types[dtype] = {
                "ran": line,
                "ratios": [row for row in head.splitlines() if row.startswith(f"| {dtype}, ")],
                "tables": [f"### {table.strip()}" for table in tables if table.startswith(f"{dtype}, ")],
            }
    return types


if __name__ == "__main__":
    main()
