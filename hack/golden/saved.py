"""Writes runtime/peft/testdata/tokenizers: the small tokenizers of texts.py, as transformers writes them again beside an
adapter once a Trainer has cut and padded with them. To be run in both environments, behind texts.py.

    KIND-transformers5.json, KIND-transformers4.json     tokenizer.json of AutoTokenizer's save_pretrained
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers

from texts import OUT as TOKENIZERS

OUT = Path(__file__).parents[2] / "runtime" / "peft" / "testdata" / "tokenizers"
VERSION = transformers.__version__.split(".")[0]
BERT = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
ROBERTA = dict(unk_token="<unk>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>")
GEMMA = dict(unk_token="<unk>", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", mask_token="<mask>")
KINDS = dict(
    wordpiece=("bert", BERT | dict(tokenizer_class="BertTokenizer")),
    bytelevel=("roberta", ROBERTA | dict(tokenizer_class="RobertaTokenizer")),
    bytefallback=("modernbert", GEMMA | dict(tokenizer_class="PreTrainedTokenizerFast")),
    unigram=("bert", ROBERTA | dict(tokenizer_class="PreTrainedTokenizerFast")),
)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for kind, (model, config) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(TOKENIZERS / kind / "tokenizer.json", folder)
            Path(folder, "config.json").write_text(json.dumps(dict(model_type=model, vocab_size=600)))
            Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            tokenizer(["a text", "and another"], truncation=True, max_length=8, padding=True)
            tokenizer.save_pretrained(folder)
            shutil.copy(Path(folder, "tokenizer.json"), OUT / f"{kind}-transformers{VERSION}.json")


if __name__ == "__main__":
    main()
