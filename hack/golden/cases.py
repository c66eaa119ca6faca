"""What the golden files cover: bases by name, and for each the adapters, as PEFT would be asked to make them.

A case is (labels, task, LoraConfig's arguments, extras). The task names the head: "image", "sequence", "token", or
"teacher" (DeiT's). Extras: dtype in which the adapter is written; problem, its problem_type; config, whether it brings a
config.json of its own.
"""

SEQ, TOKEN = "SEQ_CLS", "TOKEN_CLS"


def lora(r=2, alpha=3, targets=None, **more):
    return dict(r=r, lora_alpha=alpha, target_modules=targets, **more)


def image_cases(q, k, v, o, fc1, fc2, saved, layers, norm):
    """Cases of ViT, DeiT and DINOv2, by the names that transformers 5 has for their modules."""
    head = ["classifier"]
    return {
        "plain": (5, "image", lora(2, 3, [q, v])),
        # The task type is null, as for images, so the classifier is a target like any Linear.
        "all-linear": (5, "image", lora(3, 2, "all-linear")),
        # PEFT writes patterns sorted by key: the narrower key stands first here.
        "rslora-patterns": (4, "image", lora(
            4, 2, [fc1, fc2, q, v], use_rslora=True, modules_to_save=head,
            rank_pattern={f"{layers}.0.attention.{q}": 1, f"{layers}.[01].mlp.{fc1}": 5, q: 3},
            alpha_pattern={f"{layers}.0.attention.{q}": 1, f"{layers}.[01].mlp.{fc1}": 3, q: 6},
        )),
        # Not sorted, as a person would write it: the first key that matches counts, so the wider hides the narrower.
        "pattern-order": (5, "image", lora(
            4, 2, [fc1, q], modules_to_save=head,
            rank_pattern={q: 3, f"{layers}.0.attention.{q}": 1},
            alpha_pattern={q: 6, f"mlp.{fc1}": 1, f"{layers}.[01].mlp.{fc1}": 8, f"{layers}.0.attention.{q}": 1},
        )),
        "saved-norm": (3, "image", lora(2, 2, [q, v], modules_to_save=["classifier", "layernorm"])),
        "saved-trunk": (4, "image", lora(2, 2, [fc1, k], modules_to_save=["classifier", norm, o])),
        # The special tokens, the position embeddings and the patch projection, all in one saved module. (By the name
        # "embeddings" alone PEFT would also save patch_embeddings within it, and cannot load what it wrote.)
        "saved-embeddings": (4, "image", lora(2, 2, [q], modules_to_save=["classifier", saved])),
        # Updates that add nothing, and one that subtracts.
        "alpha-zero": (3, "image", lora(
            2, 0, [fc1, q, v], modules_to_save=head, alpha_pattern={f"{layers}.1.attention.{v}": -3},
        )),
        # PEFT refuses an adapter without any update; this is as near to a head alone as it comes.
        "one-module": (2, "image", lora(2, 2, [f"{layers}.1.mlp.{fc2}"], modules_to_save=head)),
        "one-layer": (6, "image", lora(2, 2, [fc1, q], layers_to_transform=[1], modules_to_save=head)),
        "exclude": (5, "image", lora(
            2, 2, "all-linear", exclude_modules=["classifier", f"{layers}.1.mlp.{fc2}", o],
        )),
        "regex-target": (5, "image", lora(
            2, 2, rf".*{layers}\.0\.(attention\.({q}|{k})|mlp\.{fc2})".replace("layer.", r"layer\."),
            modules_to_save=head,
        )),
        "big-rank": (5, "image", lora(48, 24, [fc2, q], modules_to_save=head)),
        "rank-one": (37, "image", lora(1, 1, [fc1, v], modules_to_save=head)),
        "dora": (4, "image", lora(2, 3, [q, v, fc1, "projection"], use_dora=True, modules_to_save=head)),
        "conv": (5, "image", lora(3, 2, ["projection", q], modules_to_save=head)),
        "lora-bias": (5, "image", lora(2, 3, [q, fc2, "projection"], lora_bias=True, modules_to_save=head)),
        "bias-all": (3, "image", lora(2, 3, [q, fc1], bias="all", modules_to_save=head)),
        "bias-lora-only": (3, "image", lora(2, 3, [v, fc2], bias="lora_only", modules_to_save=head)),
        "head-lora": (5, "image", lora(2, 3, ["classifier", q])),
        "head-dora": (5, "image", lora(2, 3, ["classifier"], use_dora=True)),
        "half": (4, "image", lora(2, 3, [q, v], modules_to_save=head), dict(dtype="float16")),
        "bfloat16": (4, "image", lora(2, 3, [q, v], modules_to_save=head), dict(dtype="bfloat16")),
        "multi-label": (4, "image", lora(2, 3, [q, v], modules_to_save=head), dict(
            problem="multi_label_classification", config=True)),
        "regression": (1, "image", lora(2, 3, [q, v], modules_to_save=head), dict(problem="regression", config=True)),
    }


def text_cases(q, k, v, o, up, down, word, layers, pooler, norm):
    """Cases of the text encoders; pooler is what a sequence's head has beside the classifier."""
    return {
        "plain": (3, "sequence", lora(2, 3, [q, v], task_type=SEQ)),
        "tokens": (5, "token", lora(2, 3, [q, v], task_type=TOKEN)),
        "all-linear": (4, "sequence", lora(3, 2, "all-linear", task_type=SEQ)),
        "tokens-all-linear": (7, "token", lora(
            2, 2, "all-linear", task_type=TOKEN, exclude_modules=["classifier"])),  # which PEFT takes for a target here
        "rslora-patterns": (3, "sequence", lora(
            4, 2, [q, up, down], task_type=SEQ, use_rslora=True,
            rank_pattern={f"{layers}.0.{q}": 1, up: 5} if q != "Wqkv" else {f"{layers}.0.attn.{q}": 1, up: 5},
            alpha_pattern={up: 6, down: 1},
        )),
        "dora": (3, "sequence", lora(2, 3, [q, o, up, down], task_type=SEQ, use_dora=True)),
        "tokens-dora": (4, "token", lora(2, 3, [q, up], task_type=TOKEN, use_dora=True)),
        "lora-bias": (3, "sequence", lora(2, 3, [q, v, down], task_type=SEQ, lora_bias=True)),
        "bias-all": (3, "sequence", lora(2, 3, [q, up], task_type=SEQ, bias="all")),
        "bias-lora-only": (3, "sequence", lora(2, 3, [q, down], task_type=SEQ, bias="lora_only")),
        "embedding": (3, "sequence", lora(2, 3, [word, q], task_type=SEQ)),
        "embedding-dora": (3, "sequence", lora(2, 3, [word, q], task_type=SEQ, use_dora=True)),
        "replaced-rows": (3, "sequence", lora(
            2, 3, [q], task_type=SEQ, trainable_token_indices={word: [0, 7, 21, 99]})),
        "replaced-rows-list": (4, "token", lora(2, 3, [v], task_type=TOKEN, trainable_token_indices=[3, 21, 40])),
        "saved-embedding": (3, "sequence", lora(2, 3, [q], task_type=SEQ, modules_to_save=[word])),
        "saved-norm": (3, "sequence", lora(2, 3, [q], task_type=SEQ, modules_to_save=[norm])),
        "saved-trunk": (3, "token", lora(2, 3, [q], task_type=TOKEN, modules_to_save=[down])),
        "saved-pooler": (6, "sequence", lora(2, 3, [q], task_type=SEQ, modules_to_save=pooler)),
        "one-layer": (2, "sequence", lora(2, 3, [q, up], task_type=SEQ, layers_to_transform=[1])),
        "exclude": (3, "sequence", lora(2, 3, "all-linear", task_type=SEQ, exclude_modules=[o, down])),
        "no-head": (3, "sequence", lora(2, 3, [q, v])),  # of the base's own: the task type is null
        "head-lora": (3, "sequence", lora(2, 3, [*pooler[:1], q])),
        "regression": (1, "sequence", lora(2, 3, [q], task_type=SEQ), dict(problem="regression", config=True)),
        "multi-label": (4, "sequence", lora(2, 3, [q], task_type=SEQ), dict(
            problem="multi_label_classification", config=True)),
        "half": (3, "sequence", lora(2, 3, [q, v], task_type=SEQ), dict(dtype="float16")),
        "bfloat16": (3, "token", lora(2, 3, [q, v], task_type=TOKEN), dict(dtype="bfloat16")),
    }


VIT = dict(
    model_type="vit", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    hidden_act="gelu", image_size=8, patch_size=4, num_channels=3, qkv_bias=True, num_labels=5,
)
DINOV2 = dict(
    model_type="dinov2", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=12,
    patch_size=4, num_labels=5,
)
BERT = dict(
    model_type="bert", vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=40, type_vocab_size=2, num_labels=3,
)
ROBERTA = BERT | dict(model_type="roberta", max_position_embeddings=42, type_vocab_size=1, pad_token_id=1)
DISTILBERT = dict(
    model_type="distilbert", vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40,
    num_labels=3,
)
DEBERTA = dict(  # as DeBERTa v3
    model_type="deberta-v2", vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=40, type_vocab_size=0, relative_attention=True,
    max_relative_positions=-1, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True,
    pos_att_type=["p2c", "c2p"], position_biased_input=False, pooler_hidden_size=32, num_labels=3,
)
MODERNBERT = dict(
    model_type="modernbert", vocab_size=120, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=24, max_position_embeddings=64, local_attention=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    cls_token_id=1, sep_token_id=2, num_labels=3,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)

BERT_NAMES = dict(
    q="query", k="key", v="value", o="attention.output.dense", up="intermediate.dense", down="output.dense",
    word="word_embeddings", layers="encoder.layer", norm="attention.output.LayerNorm",
)

# The adapters of each base.
SUITES = {
    "vit": (VIT, image_cases(
        "q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "vit.embeddings", "layers", "layernorm_before")),
    "deit": (VIT | dict(model_type="deit", image_size=[8, 12], num_labels=4), {
        "plain": (4, "image", lora(2, 3, ["q_proj", "v_proj"])),
        "saved": (3, "image", lora(2, 3, ["q_proj", "fc2"], modules_to_save=["classifier"])),
        "dora": (3, "image", lora(2, 3, ["k_proj", "o_proj", "fc1"], use_dora=True, modules_to_save=["classifier"])),
        "conv": (3, "image", lora(2, 3, ["projection"], modules_to_save=["classifier"])),
        "saved-embeddings": (2, "image", lora(2, 3, ["q_proj"], modules_to_save=["classifier", "deit.embeddings"])),
        "bias-all": (3, "image", lora(2, 3, ["q_proj"], bias="all", modules_to_save=["classifier"])),
        # "classifier" is the end of cls_classifier and distillation_classifier, too.
        "teacher": (6, "teacher", lora(2, 3, ["q_proj", "v_proj"], modules_to_save=["classifier"], task_type=SEQ)),
    }),
    "deit-teacher": (VIT | dict(model_type="deit", num_labels=4), {
        "plain": (4, "teacher", lora(2, 3, ["q_proj", "v_proj"])),
        "saved": (3, "teacher", lora(2, 3, ["q_proj"], modules_to_save=["classifier"])),
        "head-lora": (4, "teacher", lora(2, 3, ["cls_classifier", "distillation_classifier", "fc1"])),
    }),
    "dinov2": (DINOV2, image_cases(
        "q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "dinov2.embeddings", "encoder.layer", "norm1") | {
        "saved-scale": (3, "image", lora(2, 3, ["q_proj"], modules_to_save=["classifier", "layer_scale1"])),
    }),
    "dinov2-swiglu": (DINOV2 | dict(use_swiglu_ffn=True, mlp_ratio=3), {
        "plain": (5, "image", lora(2, 3, ["q_proj", "v_proj"])),
        "gate": (4, "image", lora(2, 3, ["gate_proj", "down_proj"], modules_to_save=["classifier"])),
        "up-dora": (4, "image", lora(2, 3, ["up_proj", "gate_proj"], use_dora=True, modules_to_save=["classifier"])),
        "all-linear": (5, "image", lora(2, 3, "all-linear", lora_bias=True)),
    }),
    "bert": (BERT, text_cases(pooler=["pooler.dense"], **BERT_NAMES) | {
        "types": (3, "sequence", lora(2, 3, ["token_type_embeddings", "position_embeddings"], task_type=SEQ)),
        # Of another rank than "embedding", as in PEFT's test of mixed batches.
        "embedding-rank": (3, "sequence", lora(5, 3, ["word_embeddings", "query"], task_type=SEQ)),
        "saved-types": (3, "sequence", lora(2, 3, ["key"], task_type=SEQ, modules_to_save=["token_type_embeddings"])),
    }),
    "roberta": (ROBERTA, text_cases(pooler=["classifier.dense"], **BERT_NAMES) | {
        # SEQ_CLS saves all of "classifier", and PEFT cannot load a part of that saved by itself.
        "saved-pooler": (3, "sequence", lora(2, 3, ["query"], modules_to_save=["classifier.dense"])),
    }),
    "xlm-roberta": (ROBERTA | dict(model_type="xlm-roberta"), {
        "plain": (3, "sequence", lora(2, 3, ["query", "value"], task_type=SEQ)),
        "tokens": (5, "token", lora(2, 3, ["query", "value"], task_type=TOKEN, use_dora=True)),
        "no-head": (3, "sequence", lora(2, 3, ["query", "classifier.dense"])),
    }),
    "distilbert": (DISTILBERT, text_cases(
        "q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2", "word_embeddings", "transformer.layer", ["pre_classifier"],
        "sa_layer_norm") | {
        # "classifier" is the end of pre_classifier, which all-linear is not to target then.
        "all-linear": (4, "sequence", lora(3, 2, "all-linear", task_type=SEQ, exclude_modules=["pre_classifier"])),
        "exclude": (3, "sequence", lora(
            2, 3, "all-linear", task_type=SEQ, exclude_modules=["out_lin", "lin2", "pre_classifier"])),
    }),
    "deberta": (DEBERTA, text_cases(
        "query_proj", "key_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense",
        "word_embeddings", "encoder.layer", ["pooler.dense"], "attention.output.LayerNorm") | {
        "saved-relative": (3, "sequence", lora(2, 3, ["key_proj"], task_type=SEQ, modules_to_save=["rel_embeddings"])),
    }),
    "modernbert": (MODERNBERT, text_cases(
        "Wqkv", "Wqkv", "Wqkv", "attn.Wo", "Wi", "mlp.Wo", "tok_embeddings", "layers", ["head.dense"], "mlp_norm")),
    "mmbert": (MODERNBERT | dict(
        max_position_embeddings=64, norm_bias=True, classifier_bias=True, classifier_pooling="mean",
        rope_parameters=dict(full_attention=YARN | dict(rope_theta=160000.0), sliding_attention=dict(
            rope_type="default", rope_theta=160000.0)),
    ), {
        "plain": (3, "sequence", lora(2, 3, ["Wqkv"], task_type=SEQ)),
        "tokens": (5, "token", lora(4, 3, ["Wqkv", "Wo", "Wi"], task_type=TOKEN)),
        "bias-all": (3, "sequence", lora(2, 3, ["Wqkv"], task_type=SEQ, bias="all")),
    }),
}

# Bases without a head, which adapters bring: how they are saved is a third part.
SUITES |= {
    "bert-bare": (BERT, {
        "sequence": (3, "sequence", lora(2, 3, ["query", "value"], task_type=SEQ)),  # by the base's own pooler
        "pooler": (4, "sequence", lora(2, 3, ["query"], task_type=SEQ, modules_to_save=["pooler"])),
        "tokens": (5, "token", lora(2, 3, ["query", "value"], task_type=TOKEN, use_dora=True)),
    }, dict(dtype="float16", max_shard_size="20KB")),
    "deberta-bare": (DEBERTA, {
        "pooler": (4, "sequence", lora(2, 3, ["query_proj"], task_type=SEQ, modules_to_save=["pooler"])),
        "tokens": (5, "token", lora(2, 3, ["value_proj"], task_type=TOKEN)),
    }, dict(dtype="bfloat16")),
    "modernbert-bare": (MODERNBERT, {
        "head": (4, "sequence", lora(2, 3, ["Wqkv"], task_type=SEQ, modules_to_save=["head"])),
        "tokens": (5, "token", lora(2, 3, ["Wi"], task_type=TOKEN, modules_to_save=["head"])),
    }, dict()),
    "dinov2-bare": (DINOV2, {
        "plain": (4, "image", lora(2, 3, ["q_proj"], modules_to_save=["classifier"])),
    }, dict()),
}

# Bases of other configs, without adapters.
VARIANTS = {
    "vit-gelu-new-wide": VIT | dict(hidden_act="gelu_new", qkv_bias=False, image_size=[8, 16], patch_size=[4, 4]),
    # Images of one channel, whose last row is left over by the patches; more layers than the base.
    "vit-relu-grey": VIT | dict(
        hidden_act="relu", num_hidden_layers=3, num_attention_heads=2, num_channels=1,
        image_size=[9, 8], patch_size=[4, 2], layer_norm_eps=1e-3, num_labels=3,
    ),
    "vit-silu": VIT | dict(hidden_act="silu", num_labels=2),
    "bert-tanh-gelu": BERT | dict(hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-5),
    "deberta-v2": DEBERTA | dict(  # as DeBERTa v2 xlarge
        share_att_key=False, conv_kernel_size=3, conv_act="gelu", position_buckets=-1, norm_rel_ebd="none",
        type_vocab_size=2, max_relative_positions=12),
    "deberta-c2p": DEBERTA | dict(share_att_key=False, pos_att_type="c2p", position_biased_input=True),
    "deberta-absolute": DEBERTA | dict(relative_attention=False, pos_att_type=None, position_biased_input=True),
    "modernbert-bias": MODERNBERT | dict(
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True, classifier_activation="relu",
        global_attn_every_n_layers=2),
    "modernbert-yarn": MODERNBERT | dict(rope_parameters=dict(
        full_attention=YARN | dict(rope_theta=10000.0, attention_factor=1.3),
        sliding_attention=YARN | dict(rope_theta=1000.0, beta_fast=4.0, mscale=1.5, mscale_all_dim=0.7))),
}

# With transformers 4, which has other names for the modules of images.
LEGACY = {
    "vit": {
        # "output.dense" is the end of two names in each layer, "attention.output.dense" of one of them.
        "legacy": (7, "image", lora(
            3, 2, ["intermediate.dense", "key", "output.dense"], modules_to_save=["classifier"],
            rank_pattern={"layer.1.output.dense": 2},
            alpha_pattern={"attention.output.dense": 1, "output.dense": 5},
        )),
        "legacy-saved": (3, "image", lora(2, 2, ["query", "value"], modules_to_save=["classifier", "intermediate.dense"])),
        "legacy-dora": (3, "image", lora(2, 2, ["query", "output.dense"], use_dora=True, modules_to_save=["classifier"])),
    },
    "deit": {
        "legacy": (3, "image", lora(2, 3, ["query", "output.dense"], modules_to_save=["classifier"])),
    },
    "dinov2": {
        "legacy": (3, "image", lora(2, 3, ["query", "attention.output.dense", "fc1"], modules_to_save=["classifier"])),
    },
    "dinov2-swiglu": {
        # One Linear where transformers 5 has two.
        "legacy": (3, "image", lora(2, 3, ["weights_in", "weights_out"], modules_to_save=["classifier"])),
        "legacy-dora": (3, "image", lora(
            2, 3, ["weights_in"], use_dora=True, bias="lora_only", modules_to_save=["classifier"])),
        "legacy-saved": (3, "image", lora(2, 3, ["query"], modules_to_save=["classifier", "weights_in"])),
    },
}
