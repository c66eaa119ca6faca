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
        "saved-pooler": (6, "sequence", lora(2, 3, [q], task_type=SEQ, modules_to_save=[*pooler])),  # PEFT adds to it
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
YARN_512 = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=512)
MMBERT = MODERNBERT | dict(
    max_position_embeddings=64, norm_bias=True, classifier_bias=True, classifier_pooling="mean",
    rope_parameters=dict(full_attention=YARN | dict(rope_theta=160000.0), sliding_attention=dict(
        rope_type="default", rope_theta=160000.0)),
)
DEBERTA_V2 = DEBERTA | dict(  # as DeBERTa v2 xlarge
    share_att_key=False, conv_kernel_size=3, conv_act="gelu", position_buckets=-1, norm_rel_ebd="none",
    type_vocab_size=2, max_relative_positions=12,
)

BERT_NAMES = dict(
    q="query", k="key", v="value", o="attention.output.dense", up="intermediate.dense", down="output.dense",
    word="word_embeddings", layers="encoder.layer", norm="attention.output.LayerNorm",
)
MODERNBERT_NAMES = (
    "Wqkv", "Wqkv", "Wqkv", "attn.Wo", "Wi", "mlp.Wo", "tok_embeddings", "layers", ["head.dense"], "mlp_norm",
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
    "modernbert": (MODERNBERT, text_cases(*MODERNBERT_NAMES)),
    "mmbert": (MMBERT, {
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


def regex(targets):
    """A case whose target_modules is a regular expression over whole names."""
    return (3, "sequence", lora(2, 3, targets, task_type=SEQ))


# More of what the suites above have, on bases of their own: a new case beside old ones would change their files.
SUITES |= {
    "deit-more": (VIT | dict(model_type="deit"), image_cases(
        "q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "deit.embeddings", "layers", "layernorm_before")),
    "bert-more": (BERT, {
        "regex-target": regex(r".*layer\.1\.(attention\.self\.(query|key)|output\.dense)"),
        # For layers like GPT-2's. PEFT takes it for false at a Linear, and asks nothing of it at an Embedding.
        "fan-in-fan-out": (3, "sequence", lora(2, 3, ["query", "output.dense"], task_type=SEQ, fan_in_fan_out=True)),
        "fan-in-fan-out-dora": (3, "sequence", lora(
            2, 3, ["word_embeddings", "query", "intermediate.dense"], task_type=SEQ, use_dora=True, fan_in_fan_out=True)),
        "fan-in-fan-out-embedding": (3, "sequence", lora(
            2, 3, ["word_embeddings"], task_type=SEQ, use_dora=True, fan_in_fan_out=True)),
    }),
    "roberta-more": (ROBERTA, {"regex-target": regex(r".*layer\.\d\.(attention\.self\.value|attention\.output\.dense)")}),
    "xlm-roberta-more": (ROBERTA | dict(model_type="xlm-roberta", num_attention_heads=2), text_cases(
        pooler=["classifier.dense"], **BERT_NAMES) | {
        "saved-pooler": (3, "sequence", lora(2, 3, ["query"], modules_to_save=["classifier.dense"])),  # as RoBERTa's
        "regex-target": regex(r"roberta\.encoder\.layer\.0\..*dense"),
    }),
    "distilbert-more": (DISTILBERT, {"regex-target": regex(r".*layer\.0\.(attention\.[qv]_lin|ffn\.lin1)")}),
    "deberta-conv": (DEBERTA_V2, {
        "positions": (3, "sequence", lora(2, 3, ["pos_key_proj", "pos_query_proj"], task_type=SEQ)),
        "positions-dora": (3, "sequence", lora(
            2, 3, ["pos_key_proj", "pos_query_proj", "query_proj"], task_type=SEQ, use_dora=True)),
        "positions-patterns": (5, "token", lora(
            4, 3, ["pos_key_proj", "pos_query_proj"], task_type=TOKEN, use_rslora=True,
            rank_pattern={"layer.0.attention.self.pos_key_proj": 1}, alpha_pattern={"pos_query_proj": 5})),
        "all-linear": (4, "sequence", lora(2, 3, "all-linear", task_type=SEQ)),
        "one-layer": (3, "sequence", lora(2, 3, ["pos_query_proj"], task_type=SEQ, layers_to_transform=[1])),
        "types": (3, "sequence", lora(2, 3, ["token_type_embeddings", "pos_key_proj"], task_type=SEQ)),
        "types-dora": (3, "sequence", lora(2, 3, ["token_type_embeddings"], task_type=SEQ, use_dora=True)),
        "saved-conv": (3, "sequence", lora(2, 3, ["pos_key_proj"], task_type=SEQ, modules_to_save=["encoder.conv"])),
        "saved-conv-alone": (5, "token", lora(2, 3, ["value_proj"], task_type=TOKEN, modules_to_save=["conv.conv"])),
        "saved-conv-norm": (3, "sequence", lora(2, 3, ["query_proj"], task_type=SEQ, modules_to_save=["conv.LayerNorm"])),
        # "key_proj" is the end of pos_key_proj, too.
        "saved-keys": (3, "sequence", lora(2, 3, ["pos_query_proj"], task_type=SEQ, modules_to_save=["key_proj"])),
        "saved-relative": (3, "sequence", lora(2, 3, ["query_proj"], task_type=SEQ, modules_to_save=["rel_embeddings"])),
        "bias-all": (3, "sequence", lora(2, 3, ["pos_key_proj", "intermediate.dense"], task_type=SEQ, bias="all")),
        "bias-lora-only": (3, "sequence", lora(2, 3, ["pos_key_proj", "pos_query_proj"], task_type=SEQ, bias="lora_only")),
        "lora-bias": (3, "sequence", lora(2, 3, ["pos_key_proj", "pos_query_proj"], task_type=SEQ, lora_bias=True)),
        "regex-target": regex(r".*layer\.\d\.attention\.self\.(pos_)?key_proj"),
    }),
    # Of one of the two relative terms each.
    "deberta-c2p-alone": (DEBERTA | dict(share_att_key=False, pos_att_type=["c2p"], position_biased_input=True), {
        "positions": (3, "sequence", lora(2, 3, ["pos_key_proj", "position_embeddings"], task_type=SEQ)),
        "positions-dora": (3, "sequence", lora(2, 3, ["pos_key_proj"], task_type=SEQ, use_dora=True)),
        "saved-relative": (3, "sequence", lora(
            2, 3, ["key_proj"], task_type=SEQ, modules_to_save=["rel_embeddings", "encoder.LayerNorm"])),
    }),
    "deberta-p2c-alone": (DEBERTA | dict(share_att_key=False, pos_att_type=["p2c"]), {
        "positions": (3, "sequence", lora(2, 3, ["pos_query_proj"], task_type=SEQ)),
        "positions-dora": (5, "token", lora(2, 3, ["pos_query_proj", "query_proj"], task_type=TOKEN, use_dora=True)),
    }),
    # With every bias that there can be: without them the two ways to train biases have only the classifier's.
    "modernbert-biased": (MODERNBERT | dict(attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True), {
        "bias-lora-only": (3, "sequence", lora(2, 3, ["Wqkv", "mlp.Wo"], task_type=SEQ, bias="lora_only")),
        "bias-all": (3, "sequence", lora(2, 3, ["Wqkv", "Wi"], task_type=SEQ, bias="all")),
        "tokens-bias-all": (5, "token", lora(2, 3, ["attn.Wo"], task_type=TOKEN, bias="all")),
        "dora": (3, "sequence", lora(2, 3, ["Wqkv", "Wo", "Wi"], task_type=SEQ, use_dora=True)),
        "dora-bias-lora-only": (5, "token", lora(
            2, 3, ["Wqkv", "Wi"], task_type=TOKEN, use_dora=True, bias="lora_only")),
        "lora-bias": (3, "sequence", lora(2, 3, ["Wqkv", "Wo", "Wi"], task_type=SEQ, lora_bias=True)),
        "lora-bias-bias-all": (3, "sequence", lora(2, 3, ["Wqkv", "Wo"], task_type=SEQ, lora_bias=True, bias="all")),
        "head-lora": (3, "sequence", lora(2, 3, ["head.dense", "Wqkv"], bias="lora_only")),
        "saved-trunk": (3, "token", lora(2, 3, ["Wqkv"], task_type=TOKEN, modules_to_save=["mlp.Wo", "attn_norm"])),
    }),
    "mmbert-more": (MMBERT, {
        name: case for name, case in text_cases(*MODERNBERT_NAMES).items()
        if name not in ("plain", "tokens", "bias-all", "bias-lora-only")  # those of mmbert; and its Linears have no biases
    } | {"regex-target": regex(r".*layers\.[02]\.(attn\.Wqkv|mlp\.W[io])")}),
    # A head of a real size: of its 32 pairs some turn as they were trained, some slower by the factor, and others lie
    # on the ramp between, which ends at other pairs in either kind of layer. One row is longer than they were trained for.
    "modernbert-yarn-wide": (MODERNBERT | dict(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=16, max_position_embeddings=2048,
        local_attention=64, global_attn_every_n_layers=2,
        rope_parameters=dict(full_attention=YARN_512, sliding_attention=YARN_512 | dict(beta_fast=16.0, beta_slow=2.0)),
    ), {
        "plain": (3, "sequence", lora(2, 3, ["Wqkv"], task_type=SEQ)),
        # A small one: of a stronger one PEFT's own float32, over 600 tokens, is more than 1e-5 off its float64.
        "tokens": (5, "token", lora(4, 1, ["Wqkv", "Wi"], task_type=TOKEN)),
        "dora": (3, "sequence", lora(2, 3, ["Wqkv", "Wo"], task_type=SEQ, use_dora=True)),
        "embedding": (3, "sequence", lora(2, 3, ["tok_embeddings"], task_type=SEQ)),
    }),
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
    "deberta-v2": DEBERTA_V2,
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
