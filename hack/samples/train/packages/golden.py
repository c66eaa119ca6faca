"""Writes packages/golden.safetensors and packages/entities.json: what PEFT and transformers answer for published texts.

inputs.N.input_ids and inputs.N.token_type_ids [tokens] (as float32) of the first texts of held-out.jsonl, and
logits.NAME.N of each adapter alone on the base: [labels], or of versions [tokens, 3]. float32, evaluation mode, eager
attention, one text at a time. entities.json has what transformers' token-classification pipeline finds, with the
strategy "simple", in the texts of versions. Base and adapters are read back from disk. Prints each adapter's accuracy
on its published texts.
"""

import json

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import BertForSequenceClassification, BertForTokenClassification, PreTrainedTokenizerFast, pipeline

from packages import data

FIRST = 120  # texts of which logits are kept


def adapted(name: str) -> PeftModel:
    cls = BertForTokenClassification if name == "versions" else BertForSequenceClassification
    labels = data.LABELS[name]
    base = cls.from_pretrained(
        data.OUT / "base", dtype=torch.float32, attn_implementation="eager",
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )
    return PeftModel.from_pretrained(base, data.OUT / "adapters" / name).eval()


def main() -> None:
    lines = [json.loads(line) for line in (data.OUT / "held-out.jsonl").read_text().splitlines()]
    encodings = data.tokenizer().encode_batch([line["text"] for line in lines[:FIRST]])
    tensors = {}
    for i, e in enumerate(encodings):
        tensors[f"inputs.{i}.input_ids"] = torch.tensor(e.ids).float()
        tensors[f"inputs.{i}.token_type_ids"] = torch.tensor(e.type_ids).float()
    for name in data.LABELS:
        model = adapted(name)
        own = [line for line in lines if line["adapter"] == name]
        truth = [(o["text"], o["label"] if "label" in o else tuple(map(tuple, o["spans"]))) for o in own]
        print(f"{name}: {data.score(model, name, truth)} published texts")
        with torch.no_grad():
            for i, e in enumerate(encodings):
                tensors[f"logits.{name}.{i}"] = model(**data.padded([e])).logits[0].contiguous()
    save_file(tensors, data.OUT / "golden.safetensors")

    ask = pipeline(
        "token-classification", model=adapted("versions").get_base_model(), aggregation_strategy="simple",
        tokenizer=PreTrainedTokenizerFast.from_pretrained(data.OUT / "base"),
    )
    found = [
        dict(text=line["text"], entities=[entity | dict(score=float(entity["score"])) for entity in ask(line["text"])])
        for line in lines if line["adapter"] == "versions"
    ]
    (data.OUT / "entities.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
