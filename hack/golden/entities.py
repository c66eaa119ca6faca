"""Writes test/golden/testdata/entities: a tiny random BERT that classifies tokens, the tokenizers of hack/golden/texts.py,
and what transformers' pipeline finds in texts with aggregation_strategy "simple", by tokenizer.
"""

import json
import os
import shutil
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline

from texts import OUT as TOKENIZERS, TEXTS

OUT = Path(__file__).parents[2] / "test" / "golden" / "testdata" / "entities"
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
UNKNOWN = dict(wordpiece="[UNK]", bytelevel="<unk>", bytefallback="<unk>", unigram="<unk>")


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    config = BertConfig(
        vocab_size=700, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, id2label=dict(enumerate(LABELS)), label2id={l: i for i, l in enumerate(LABELS)},
    )
    model = BertForTokenClassification(config).eval()
    draw = torch.Generator().manual_seed(zlib.crc32(b"entities"))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            mean = 1.0 if "norm" in path.lower() and path.endswith("weight") else 0.0
            parameter.normal_(mean, 0.3, generator=draw)
    model.save_pretrained(OUT / "base")
    found = {}
    for kind, unknown in UNKNOWN.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(TOKENIZERS / kind / "tokenizer.json"), unk_token=unknown, model_max_length=64,
        )
        ask = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
        texts = [text for text in TEXTS if text.strip() and len(text) < 200]
        found[kind] = [dict(text=text, entities=[
            {k: float(v) if k == "score" else v for k, v in e.items()} for e in ask(text)]) for text in texts]
    (OUT / "golden.json").write_text(json.dumps(dict(unknown=UNKNOWN, found=found)))


if __name__ == "__main__":
    main()
