"""Debian's packages, what is asked of them, and how each task is trained: what every step of this sample shares.

The texts are the synopses in the package index of the machine that trains ("Real-time strategy game of ancient
warfare"), without the packages' names, which would give the answers away. Four tasks, each with what the index knows or
a rule says:

    section    the archive's section, of ten that are of a subject or a kind
    language   the one that the package is implemented in by its tag, else the one whose section it is in
    library    whether it is one, by the tags of its role
    versions   where version numbers stand in the synopsis, by the rule of spans()

One source package in eight is held out, with all its binary packages, from all training; a synopsis that a training
package has, too, is not held out. Some of the held-out texts of each task are published.
"""

import functools
import random
import re
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Encoding, Tokenizer

from common import SAMPLES, SEED, fit

torch.set_num_threads(1)  # such small steps are not worth another, which waits by spinning where the machine is busy

OUT = SAMPLES / "packages"
LISTS = Path("/var/lib/apt/lists")
MAX_TOKENS = 64
HELD_OUT = 8  # one source package in so many

# Each task's labels.
LABELS = {
    "section": ["doc", "fonts", "games", "graphics", "libdevel", "libs", "mail", "net", "science", "sound"],
    "language": ["c", "c++", "go", "haskell", "java", "javascript", "perl", "python", "r", "ruby", "rust"],
    "library": ["library", "other"],
    "versions": ["O", "B-VERSION", "I-VERSION"],
}
# The sections that are a language's.
LANGUAGES = {
    "gnu-r": "r", "golang": "go", "haskell": "haskell", "java": "java", "javascript": "javascript", "perl": "perl",
    "python": "python", "ruby": "ruby", "rust": "rust",
}

# Numbers joined by dots ("3.11", "2.0.x"), the first of at most two digits; or one of at most two digits behind a name
# with a capital, or the word version ("Qt 6"), unless the name is that of a body of standards.
DOTTED = re.compile(r"(?<![\w.:/-])v?\d{1,2}(?:\.\d+)*\.(?:\d+|x)(?![\w.:/-]*\w)")
NUMBERED = re.compile(r"(?<![\w.:/-])([A-Z][A-Za-z]*\+{0,2}|version) (v?\d{1,2})(?![\w.:/-]*\w)")
STANDARDS = {"IEC", "IEEE", "ISO", "MPEG", "PEP", "PSR", "RFC"}

Spans = tuple[tuple[int, int], ...]


@functools.cache
def index() -> list[dict[str, str]]:
    """The packages of the machine's largest package index, its release's, each with its fields."""
    files = [file for file in LISTS.glob("*_Packages*") if file.is_file()]
    if not files:
        raise SystemExit(f"{LISTS}: expected a package index, as apt-get update leaves it, found none")
    read = ["/usr/lib/apt/apt-helper", "cat-file", str(max(files, key=lambda file: file.stat().st_size))]
    text = subprocess.run(read, check=True, capture_output=True, text=True).stdout
    unfolded = text.replace("\n ", " ").split("\n\n")
    packages = [dict(line.partition(": ")[::2] for line in p.splitlines()) for p in unfolded]
    return [p for p in packages if p.get("Description")]


def is_held_out(package: dict[str, str]) -> bool:
    source = package.get("Source", package["Package"]).split()[0]  # "gcc-12 (12.2.0-14)"
    return zlib.crc32(source.encode()) % HELD_OUT == 0


@functools.cache
def held_out() -> dict[str, bool]:
    """Each synopsis, in the index's order, and whether all packages that have it are held out."""
    held = {}
    for package in index():
        held[package["Description"]] = held.get(package["Description"], True) and is_held_out(package)
    return held


def tags(package: dict[str, str], facet: str) -> list[str]:
    """What is tagged of one facet: ["shared-lib"] of "role::shared-lib"."""
    all = (tag.strip().split("::") for tag in package.get("Tag", "").split(","))
    return [tag[1] for tag in all if tag[0] == facet]


def spans(text: str) -> Spans:
    """Where versions stand in a text."""
    found = [match.span() for match in DOTTED.finditer(text)]
    found += [match.span(2) for match in NUMBERED.finditer(text) if match[1] not in STANDARDS]
    return tuple(sorted(found))


def label(package: dict[str, str], task: str) -> str | Spans | None:
    """What is true of a package; None where the index does not say."""
    section = package.get("Section", "")
    if task == "versions":
        return spans(package["Description"])
    if task == "section":
        return section if section in LABELS[task] else None
    if task == "language":
        written = tags(package, "implemented-in") or [LANGUAGES.get(section)]
        return written[0] if len(written) == 1 and written[0] in LABELS[task] else None
    roles = set(tags(package, "role"))
    is_library = bool(roles & {"shared-lib", "devel-lib"})
    return None if not roles or is_library and "program" in roles else ["other", "library"][is_library]


@functools.cache
def examples(task: str) -> tuple[list, list]:
    """The texts of a task with their labels, for training and held out. One that has two labels is left out.

    Of versions there are as many texts with one as without, of which half have another number.
    """
    truth = {}
    for package in index():
        if (known := label(package, task)) is not None:
            truth.setdefault(package["Description"], set()).add(known)
    parts = [], []
    for text, labels in truth.items():
        if len(labels) == 1:
            parts[held_out()[text]].append((text, *labels))
    return tuple(map(balanced, parts)) if task == "versions" else parts


def balanced(texts: list) -> list:
    draw = random.Random(SEED)
    some = [(text, found) for text, found in texts if found]
    numbers = [(text, found) for text, found in texts if not found and re.search(r"\d", text)]
    plain = [(text, found) for text, found in texts if not found and not re.search(r"\d", text)]
    half = len(some) // 2
    return some + draw.sample(numbers, half) + draw.sample(plain, len(some) - half)


def published(task: str, n: int) -> list:
    """Some of a task's held-out texts, with their labels."""
    return random.Random(SEED).sample(examples(task)[1], n)


def tokenizer() -> Tokenizer:
    t = Tokenizer.from_file(str(OUT / "base" / "tokenizer.json"))
    t.enable_truncation(MAX_TOKENS)
    return t


def padded(encodings: list[Encoding]) -> dict[str, torch.Tensor]:
    pad = lambda rows: torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return dict(input_ids=pad([e.ids for e in encodings]), attention_mask=pad([e.attention_mask for e in encodings]))


def target(task: str, encoding: Encoding, known: str | Spans) -> list[int]:
    """A text's label as a number; of versions one for each token, -100 where nothing is asked."""
    if task != "versions":
        return [LABELS[task].index(known)]
    numbers = []
    for special, (begin, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True):
        inside = [span for span in known if span[0] <= begin and end <= span[1]]
        numbers.append(-100 if special else 0 if not inside else 1 if begin == inside[0][0] else 2)
    return numbers


def train(model: torch.nn.Module, task: str, epochs: int, rate: float) -> None:
    """Trains, and prints the loss and the accuracy on the held-out texts beside that of the commonest answer."""
    training, held = examples(task)
    encodings = tokenizer().encode_batch([text for text, _ in training])
    targets = [torch.tensor(target(task, e, known)) for e, (_, known) in zip(encodings, training, strict=True)]

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        logits = model(**padded([encodings[i] for i in batch])).logits
        wanted = torch.nn.utils.rnn.pad_sequence([targets[i] for i in batch], batch_first=True, padding_value=-100)
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=-100)

    lengths = torch.tensor([len(e.ids) for e in encodings])
    loss = fit(model, len(training), epochs, rate, loss_of, lengths=lengths)
    print(f"{task}: loss {loss:.3f}, trained on {len(training)} texts, {score(model, task, held)} held-out texts")


@torch.no_grad()
def score(model: torch.nn.Module, task: str, texts: list) -> str:
    """The share of texts that are answered right throughout, beside that of the commonest answer."""
    right = 0
    encodings = tokenizer().encode_batch([text for text, _ in texts])
    for encoding, (_, known) in zip(encodings, texts, strict=True):
        found = model(**padded([encoding])).logits[0].view(-1, len(LABELS[task])).argmax(-1)
        wanted = torch.tensor(target(task, encoding, known))
        right += (found == wanted)[wanted >= 0].all().item()
    (_, commonest), = Counter(known for _, known in texts).most_common(1)
    return f"accuracy {right / len(texts):.3f} (the commonest answer: {commonest / len(texts):.3f}) on {len(texts)}"
