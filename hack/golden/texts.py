"""Writes runtime/preprocess/text/testdata: small tokenizers of the kinds that bases have, and what HuggingFace's own
Python library makes of texts.

    KIND/tokenizer.json                a tokenizer of that kind, trained here on the words of this repository's docs
    KIND/golden.json                   for each text, pair or none: ids, types, special, offsets
    vocab/vocab.txt                    a BERT without a tokenizer.json, with the ids of transformers' BertTokenizer
"""

import json
import random
import shutil
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast

ROOT = Path(__file__).parents[2]
OUT = ROOT / "runtime" / "preprocess" / "text" / "testdata"

TEXTS = [
    "", " ", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "naïve café – Straße", "ÀÉÎÕÜ àéîõü",
    "日本語のテキスト", "한국어 텍스트", "देवनागरी लिपि", "العربية", "emoji 👩‍👩‍👧‍👦 🇩🇪 x", "tab\tnew\nline\r\n", "zero\u200bwidth\u00adsoft",
    "a" * 300, "1234567890 3.14159 -5e-10", "https://example.org/a?b=c&d=e#f", "[CLS] [SEP] [MASK] <s> </s>", "\u0000\ufffd\ue000",
    "libfoo-dev 1.2.3-4+b1 (>= 2:0.9~rc1)", "  many   spaces  ", "don't can't won't", "CamelCaseAndUPPER", "e\u0301 combining",
]
PAIRS = [("first text", "second text"), ("", "only the second"), ("a long first text " * 4, "short"), ("x", "a long second " * 5)]
MAX_TOKENS = 24


def words() -> list[str]:
    return [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]


def bert() -> Tokenizer:
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(words(), trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", t.token_to_id("[CLS]")), ("[SEP]", t.token_to_id("[SEP]"))],
    )
    t.decoder = decoders.WordPiece()
    return t


def roberta() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t.train_from_iterator(words(), trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    t.decoder = decoders.ByteLevel()
    return t


def unigram() -> Tokenizer:
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t.train_from_iterator(words(), trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False))
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    t.decoder = decoders.Metaspace()
    return t


def random_texts(n: int) -> list[str]:
    draw = random.Random(7)
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x400, 0x500), (0x900, 0x980), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
              (0x2000, 0x2070), (0x1F600, 0x1F650)]
    return ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(1, 40))) for _ in range(n)]


def encoded(t: Tokenizer, text: str, pair: str | None) -> dict:
    e = t.encode(text, pair)
    return dict(text=text, pair=pair, ids=e.ids, types=e.type_ids, special=e.special_tokens_mask, offsets=e.offsets)


def write(folder: Path, t: Tokenizer) -> None:
    folder.mkdir(parents=True)
    t.save(str(folder / "tokenizer.json"), pretty=False)
    t.enable_truncation(MAX_TOKENS, strategy="longest_first")
    cases = [encoded(t, text, None) for text in TEXTS + random_texts(200)]
    cases += [encoded(t, text, pair) for text, pair in PAIRS]
    (folder / "golden.json").write_text(json.dumps(dict(max_tokens=MAX_TOKENS, cases=cases)))


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    kinds = dict(wordpiece=bert(), bytelevel=roberta(), unigram=unigram())
    for kind, t in kinds.items():
        write(OUT / kind, t)
    vocab = OUT / "vocab"
    vocab.mkdir()
    by_id = sorted(kinds["wordpiece"].get_vocab().items(), key=lambda item: item[1])
    (vocab / "vocab.txt").write_text("".join(word + "\n" for word, _ in by_id))
    for name, more in dict(lower={}, cased=dict(do_lower_case=False, strip_accents=False)).items():
        old = BertTokenizerFast(str(vocab / "vocab.txt"), **more)
        t = old.backend_tokenizer
        t.enable_truncation(MAX_TOKENS, strategy="longest_first")
        cases = [encoded(t, text, None) for text in TEXTS] + [encoded(t, text, pair) for text, pair in PAIRS]
        (vocab / f"{name}.json").write_text(json.dumps(dict(max_tokens=MAX_TOKENS, config=more, cases=cases)))


if __name__ == "__main__":
    main()
