"""Writes numbers that depend on a config alone, of real sizes, as transformers computes them:

    runtime/model/modernbert/testdata/frequencies.json   how fast each pair of a head turns, by config and kind of layer
    runtime/model/deberta/testdata/buckets.json          the row of the relative embeddings for each distance
"""

import json
from pathlib import Path

import torch
import transformers
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding

from cases import YARN_512

MODELS = Path(__file__).parents[2] / "runtime" / "model"
KINDS = ("full_attention", "sliding_attention")

MMBERT = dict(
    model_type="modernbert", hidden_size=768, num_attention_heads=12, max_position_embeddings=8192,
    rope_parameters={kind: dict(rope_type="default", rope_theta=160000.0) for kind in KINDS},
)
YARN = dict(rope_type="yarn", rope_theta=160000.0, factor=4.0, original_max_position_embeddings=8192)
ROPES = {
    "mmBERT": MMBERT,
    # As it is stretched to 32,768 tokens, with the ramp of each of YaRN's defaults and of others.
    "mmBERT by YaRN": MMBERT | dict(max_position_embeddings=32768, rope_parameters={
        "full_attention": YARN,
        "sliding_attention": YARN | dict(beta_fast=8.0, beta_slow=2.0, mscale=1.5, mscale_all_dim=0.7),
    }),
    # As the suite modernbert-yarn-wide has it.
    "YaRN of 512": MMBERT | dict(max_position_embeddings=2048, rope_parameters=dict.fromkeys(KINDS, YARN_512)),
}


def frequencies(fields: dict) -> dict:
    config = transformers.AutoConfig.for_model(**fields)
    rotary = ModernBertRotaryEmbedding(config)
    return dict(config=fields, kinds={
        kind: dict(
            frequencies=getattr(rotary, f"{kind}_inv_freq").tolist(), scale=getattr(rotary, f"{kind}_attention_scaling"))
        for kind in KINDS
    })


def buckets(buckets: int, distance: int) -> dict:
    """As DeBERTa v3's attention finds the rows, for all distances between the tokens of its longest text."""
    tokens = torch.zeros(1, distance, 1)
    positions = build_relative_position(tokens, tokens, bucket_size=buckets, max_position=distance)[0]
    rows = torch.clamp(positions + buckets, 0, 2 * buckets - 1).long()
    return dict(
        position_buckets=buckets, max_relative_positions=distance,
        rows=torch.cat([rows[0].flip(0), rows[1:, 0]]).tolist())  # of [query, key]: their distance is query - key


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def main() -> None:
    write(MODELS / "modernbert" / "testdata" / "frequencies.json", {n: frequencies(f) for n, f in ROPES.items()})
    write(MODELS / "deberta" / "testdata" / "buckets.json", buckets(256, 512))


if __name__ == "__main__":
    main()
