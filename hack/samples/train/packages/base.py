"""Makes packages/base and packages/held-out.jsonl: a tokenizer and a tiny BERT, and the published texts.

It is trained briefly on the packages' synopses, as BERT is: to guess words that are left out.

The base is bare, and in halves: a BertModel without a head, in float16. Its pooler is as it was drawn. Trained so
briefly that adapters have something left to learn in the trunk. Runs in the current environment (requirements.txt).
"""

import json
import time

import torch
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from common import fit
from packages import data

WORDS = 6000
EPOCHS = 3
PUBLISHED = 120  # of each task
SPECIAL = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    t = Tokenizer(models.WordPiece(unk_token=SPECIAL["unk_token"]))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(SPECIAL.values())
    t.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=WORDS, min_frequency=3, limit_alphabet=200, special_tokens=special, show_progress=False))
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    t.decoder = decoders.WordPiece()
    return t


def masked(batch: list[Encoding]) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """A batch with words left out, which tokens those are, and what they were.

    Of the 15 % of the tokens that are chosen, most become [MASK], a tenth any word, and a tenth stay.
    """
    inputs = data.padded(batch)
    ids, draw = inputs["input_ids"], torch.rand(inputs["input_ids"].shape)
    chosen = (draw < 0.15) & (ids > MASK)
    truth = ids[chosen]
    ids = torch.where(chosen & (draw < 0.12), MASK, ids)
    inputs["input_ids"] = torch.where(chosen & (draw >= 0.135), torch.randint(MASK + 1, WORDS, ids.shape), ids)
    return inputs, chosen, truth


def guesses(model: BertForMaskedLM, batch: list[Encoding]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of the words that were left out, and what they were."""
    inputs, chosen, truth = masked(batch)
    return model.cls(model.bert(**inputs).last_hidden_state[chosen]), truth


def main() -> None:
    began = time.monotonic()
    texts = [text for text, held in data.held_out().items() if not held]
    held = [text for text, held in data.held_out().items() if held]
    print(f"{len(data.index())} packages, {len(texts)} synopses to train on, {len(held)} held out")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(texts), model_max_length=data.MAX_TOKENS, **SPECIAL)
    assert len(fast) == WORDS
    fast.save_pretrained(data.OUT / "base")

    config = BertConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
        max_position_embeddings=data.MAX_TOKENS, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
        pad_token_id=PAD,
    )
    base = BertModel(config)
    model = BertForMaskedLM(config)
    encodings = data.tokenizer().encode_batch(texts)

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(*guesses(model, [encodings[i] for i in batch]))

    lengths = torch.tensor([len(e.ids) for e in encodings])
    loss = fit(model, len(texts), EPOCHS, 1e-3, loss_of, size=128, lengths=lengths)
    with torch.no_grad():
        logits, truth = guesses(model, data.tokenizer().encode_batch(held))
    accuracy = (logits.argmax(-1) == truth).float().mean().item()
    print(f"base: loss {loss:.3f}, accuracy {accuracy:.3f} on {len(truth)} words left out of the held-out texts")
    base.load_state_dict(model.bert.state_dict(), strict=False)  # all but the pooler
    base.half().save_pretrained(data.OUT / "base")

    # Neighbours are of different tasks: the first lines are a mixed batch.
    with open(data.OUT / "held-out.jsonl", "w") as file:
        for row in zip(*([(task, *example) for example in data.published(task, PUBLISHED)] for task in data.LABELS)):
            for task, text, known in row:
                truth = dict(spans=known) if task == "versions" else dict(label=known)
                file.write(json.dumps(dict(adapter=task, text=text, **truth), ensure_ascii=False) + "\n")
    print(f"base: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
