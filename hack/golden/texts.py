"""Writes into runtime/preprocess/text/testdata what HuggingFace's own Python libraries make of texts.

    KIND/tokenizer.json                a tokenizer of each kind that bases have. It is read, not written: they were trained
                                       once, on what this repository's docs said then, and the docs go on changing
    KIND/golden.json                   for each text, pair or none: ids, types, special, offsets
    KIND/left.json                     the same of texts that are cut on the left
    vocab/vocab.txt                    a BERT without a tokenizer.json: the words of wordpiece
    vocab/NAME.txt                     other such files
    vocab/NAME.json                    what transformers' BertTokenizer makes of texts, by a tokenizer_config.json
                                       and the files beside it
"""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer
from transformers import BertTokenizer, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
OUT = ROOT / "runtime" / "preprocess" / "text" / "testdata"
KINDS = ["wordpiece", "bytelevel", "bytefallback", "unigram"]

TEXTS = [
    "", " ", "a", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "naïve café – Straße", "ÀÉÎÕÜ àéîõü",
    "日本語のテキスト", "한국어 텍스트", "देवनागरी लिपि", "العربية", "emoji 👩‍👩‍👧‍👦 🇩🇪 x", "tab\tnew\nline\r\n", "zero\u200bwidth\u00adsoft",
    "a" * 300, "1234567890 3.14159 -5e-10", "https://example.org/a?b=c&d=e#f", "[CLS] [SEP] [MASK] <s> </s>", "\u0000\ufffd\ue000",
    "libfoo-dev 1.2.3-4+b1 (>= 2:0.9~rc1)", "  many   spaces  ", "don't can't won't", "CamelCaseAndUPPER", "e\u0301 combining",
]
PAIRS = [("first text", "second text"), ("", "only the second"), ("a long first text " * 4, "short"), ("x", "a long second " * 5)]
MAX_TOKENS = 24
LEFT = dict(truncation_side="left")
LONG = ["the first words are cut off, and the last of them stay as they are: " * 3, "naïve café – 日本語のテキスト 😀 " * 6]


def special(content: str, **more) -> dict:
    """A special token as transformers writes an AddedToken."""
    return dict(__type="AddedToken", content=content, lstrip=False, normalized=False, rstrip=False, single_word=False) | more


def decoded(content: str, **more) -> dict:
    """The same in added_tokens_decoder."""
    token = special(content, special=True) | more
    del token["__type"]
    return token


# Special tokens of other names, as objects: some take the spaces around them along, or are none within a word.
OBJECTS = dict(
    pad_token=special("<pad>", single_word=True), unk_token=special("<unk>"), cls_token=special("<s>"),
    sep_token=special("</s>", rstrip=True), mask_token=special("<mask>", lstrip=True),
)
# As transformers 4 writes them: as texts, with the objects by their ids, which are the last word.
DECODED = dict(
    {field: token["content"] for field, token in OBJECTS.items()} | dict(cls_token=special("<s>", single_word=True)),
    added_tokens_decoder={"2": decoded("<s>"), "3": decoded("</s>", lstrip=True), "4": decoded("<mask>", single_word=True)},
)
NAMED = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
MASKED = ["the <mask> of it", "a<mask>b", "  <mask>  <mask> ", "<pad><unk> </s>  x<s>", "x<pad>y <pad> z"]

# Words and tokens that are added to a vocabulary: as transformers 4.34 writes them, and as those before did.
ADDED = ["[E1] version [E1]version", "[e1] the Version of versions, [E1]s", "x[E1]y  [E1]  z", "theses, THE Thé version"]
WORDS = Tokenizer.from_file(str(OUT / "wordpiece" / "tokenizer.json")).get_vocab()
E1, VERSION, THE = len(WORDS), len(WORDS) + 1, WORDS["the"]
WORD = dict(special=False, normalized=True)
LISTED = dict(additional_special_tokens=["[E1]", "the"])
MAP = {field: {k: v for k, v in token.items() if k != "__type"} for field, token in OBJECTS.items()}
MAP["mask_token"] = "<mask>"

# By name: the tokenizer_config.json, the vocabulary if it is not vocab.txt, texts beside the usual ones, and other files.
VOCABULARIES = dict(
    lower=({},),
    cased=(dict(do_lower_case=False, strip_accents=False),),
    chinese=(dict(tokenize_chinese_chars=False),),
    accents=(dict(do_lower_case=False, strip_accents=True),),
    lower_accents=(dict(do_lower_case=True, strip_accents=False),),
    objects=(OBJECTS, "named.txt", MASKED),
    decoder=(DECODED, "named.txt", MASKED),
    twice=({}, "twice.txt", ["the theses of others, the s"]),
    left=(LEFT, "vocab.txt", LONG),
    added=(dict(), "vocab.txt", ADDED, {"added_tokens.json": {"version": VERSION, "[E1]": E1, "the": THE}}),
    added_cased=(dict(do_lower_case=False), "vocab.txt", ADDED, {"added_tokens.json": {"[E1]": E1, "version": VERSION}}),
    added_special=(LISTED, "vocab.txt", ADDED, {"added_tokens.json": {"[E1]": E1, "version": VERSION}}),
    added_decoder=(dict(additional_special_tokens=["[E1]"], added_tokens_decoder={
        str(THE): decoded("the", **WORD), str(E1): decoded("[E1]", rstrip=True), str(VERSION): decoded("version", **WORD),
    }), "vocab.txt", ADDED, {"added_tokens.json": {"not read": 0}, "special_tokens_map.json": {"cls_token": "not read"}}),
    map=(dict(cls_token="not read"), "named.txt", MASKED, {"special_tokens_map.json": MAP}),
    map_words=(dict(), "vocab.txt", ADDED, {"special_tokens_map.json": dict(additional_special_tokens=["the"])}),
)


def random_texts(n: int) -> list[str]:
    draw = random.Random(7)
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x400, 0x500), (0x900, 0x980), (0x4E00, 0x4F00), (0xAC00, 0xAD00),
              (0x2000, 0x2070), (0x1F600, 0x1F650)]
    return ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(1, 40))) for _ in range(n)]


def encoded(t: Tokenizer, text: str, pair: str | None) -> dict:
    e = t.encode(text, pair)
    return dict(text=text, pair=pair, ids=e.ids, types=e.type_ids, special=e.special_tokens_mask, offsets=e.offsets)


def write(path: Path, config: dict, cases: list[dict], **more) -> None:
    path.write_text(json.dumps(dict(max_tokens=MAX_TOKENS) | more | dict(config=config, cases=cases)))


def old_bert(vocab: Path, config: dict, files: dict) -> BertTokenizer:
    """The tokenizer of a folder as old BERTs have it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(vocab, Path(folder, "vocab.txt"))
        for name, content in (files | {"tokenizer_config.json": config}).items():
            Path(folder, name).write_text(json.dumps(content))
        return BertTokenizer.from_pretrained(folder)


def cut(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[dict]:
    """What the tokenizer makes of texts and of the pairs, cut on its own side: by the library below transformers, which
    says more of each token, but as transformers itself asks it."""
    t = tokenizer.backend_tokenizer
    t.enable_truncation(MAX_TOKENS, strategy="longest_first", direction=tokenizer.truncation_side)
    cases = [encoded(t, text, None) for text in texts] + [encoded(t, text, pair) for text, pair in PAIRS]
    for case in cases:
        asked = tokenizer(case["text"], case["pair"], truncation=True, max_length=MAX_TOKENS)
        assert asked["input_ids"] == case["ids"], case
    return cases


def write_kind(folder: Path) -> None:
    t = Tokenizer.from_file(str(folder / "tokenizer.json"))
    t.enable_truncation(MAX_TOKENS, strategy="longest_first")
    cases = [encoded(t, text, None) for text in TEXTS + random_texts(200)]
    cases += [encoded(t, text, pair) for text, pair in PAIRS]
    (folder / "golden.json").write_text(json.dumps(dict(max_tokens=MAX_TOKENS, cases=cases)))
    left = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **LEFT)
    write(folder / "left.json", LEFT, cut(left, TEXTS + LONG))


def write_vocabularies(folder: Path) -> None:
    ids = Tokenizer.from_file(str(OUT / "wordpiece" / "tokenizer.json")).get_vocab()
    words = sorted(ids, key=ids.get)
    for name, lines in {
        "vocab.txt": words, "named.txt": [NAMED.get(word, word) for word in words], "twice.txt": words + ["the", "##s"],
    }.items():
        (folder / name).write_text("".join(word + "\n" for word in lines))
    for name, (config, *more) in VOCABULARIES.items():
        vocab, texts, files = (*more, {})[:3] if more else ("vocab.txt", [], {})
        cases = cut(old_bert(folder / vocab, config, files), TEXTS + texts)
        other = (dict(vocab=vocab) if vocab != "vocab.txt" else {}) | (dict(files=files) if files else {})
        write(folder / f"{name.replace('_', '-')}.json", config, cases, **other)


def main() -> None:
    for kind in KINDS:
        write_kind(OUT / kind)
    write_vocabularies(OUT / "vocab")


if __name__ == "__main__":
    main()
