package peft_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"gorgonia.org/tensor"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Small bases. Their hidden size is 8, but for DINOv2, whose SwiGLU is 24 wide.
const (
	tinyBERT = `{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "num_labels": 3,
		"architectures": ["BertForSequenceClassification"]}`
	bareBERT = `{"model_type": "bert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "architectures": ["BertModel"]}`
	tinyRoBERTa = `{"model_type": "roberta", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "num_labels": 3,
		"architectures": ["RobertaForSequenceClassification"]}`
	tinyDistilBERT = `{"model_type": "distilbert", "vocab_size": 10, "dim": 8, "n_layers": 1, "n_heads": 2,
		"hidden_dim": 16, "max_position_embeddings": 6, "num_labels": 3}`
	tinyDeBERTa = `{"model_type": "deberta-v2", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6, "relative_attention": true,
		"conv_kernel_size": 3, "num_labels": 3, "architectures": ["DebertaV2ForMaskedLM"]}`
	tinyModernBERT = `{"model_type": "modernbert", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
		"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 6,
		"architectures": ["ModernBertForMaskedLM"]}`
	tinyDeiT = `{"model_type": "deit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 4, "patch_size": 2, "num_labels": 3}`
	tinyDINOv2 = `{"model_type": "dinov2", "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
		"mlp_ratio": 3, "use_swiglu_ffn": true, "image_size": 8, "patch_size": 4, "num_labels": 2}`

	words      = "bert.embeddings.word_embeddings"
	places     = "bert.embeddings.position_embeddings"
	self       = "bert.encoder.layer.0.attention.self.query"
	projection = "vit.embeddings.patch_embeddings.projection"
	mlp        = "dinov2.encoder.layer.0.mlp."
)

func loadOn(t *testing.T, base *arch.Description, a *wrappers.AdapterFolder, s peft.Settings) (*peft.Adapter, error) {
	t.Helper()
	folder, err := weights.OpenFolder(a.Write())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = folder.Close() }()
	return peft.Load(folder, base, s)
}

func mustLoadOn(t *testing.T, base *arch.Description, a *wrappers.AdapterFolder) *peft.Adapter {
	t.Helper()
	adapter, err := loadOn(t, base, a, peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return adapter
}

// refusal is an adapter that is refused with an error that has err within.
type refusal struct {
	name string
	a    *wrappers.AdapterFolder
	err  string
}

func expectRefused(t *testing.T, base *arch.Description, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := loadOn(t, base, c.a, peft.Settings{})
			expectError(t, err, c.err)
		})
	}
}

// of is an adapter of updates alone with that task.
func of(t *testing.T, task any) *wrappers.AdapterFolder {
	t.Helper()
	return bare(t).Set("task_type", task)
}

// The head is the one of the task; without a task it is the base's own. What it needs and the base lacks has to come
// from the adapter.
func TestTheHeadOfAnAdapter(t *testing.T) {
	bert, headless := describe(t, tinyBERT), describe(t, bareBERT, "classifier")
	poolerless := describe(t, bareBERT, "classifier", "bert.pooler")
	roberta, distilbert := describe(t, tinyRoBERTa, "classifier.weight", "classifier.bias"), describe(t, tinyDistilBERT)
	deberta := describe(t, tinyDeBERTa, "pooler", "classifier")
	modernbert, deit := describe(t, tinyModernBERT, "classifier"), describe(t, tinyDeiT)
	const (
		robertas = "roberta.encoder.layer.0.attention.self.query"
		deits    = "deit.layers.0.attention.q_proj"
	)
	// classified saves a classifier that may be of several heads, trained on a model of some class.
	classified := func(class string) *wrappers.AdapterFolder {
		return bare(t).Set("auto_mapping", map[string]string{"base_model_class": class, "parent_library": "x"}).
			Set("modules_to_save", []string{"classifier"}).Saved("classifier", 4, 8)
	}
	lacks := func(head, module string) string {
		return "head: " + head + ` needs "` + module + `", which the adapter does not save, and the base `
	}
	for _, c := range []struct {
		name string
		base *arch.Description
		a    *wrappers.AdapterFolder
		head string
		err  string
	}{
		{
			"a sequence's", bert, of(t, "SEQ_CLS").Update(self, 8, 8).Saved("classifier", 4, 8),
			"BertForSequenceClassification", "",
		},
		{
			"the tokens'", bert, of(t, "TOKEN_CLS").Update(self, 8, 8).Saved("classifier", 4, 8),
			"BertForTokenClassification", "",
		},
		{"the base's own", bert, of(t, nil).Update(self, 8, 8), "BertForSequenceClassification", ""},
		{
			"the base's own, updated", bert, of(t, nil).Update("bert.pooler.dense", 8, 8).Update("classifier", 3, 8),
			"BertForSequenceClassification", "",
		},
		{
			"on a bare base", headless, of(t, "SEQ_CLS").Update(self, 8, 8).Saved("classifier", 4, 8),
			"BertForSequenceClassification", "",
		},
		{
			"no task on a bare base, but its class", headless, classified("BertForSequenceClassification"),
			"BertForSequenceClassification", "",
		},
		{
			"no task on a bare base, but the tokens' class", headless, classified("BertForTokenClassification"),
			"BertForTokenClassification", "",
		},
		{
			"no task on a base for sequences, but the tokens' class", bert, classified("BertForTokenClassification"),
			"BertForTokenClassification", "",
		},
		{
			"a class of one's own on a base with a head", bert, classified("MyClassifier"),
			"BertForSequenceClassification", "",
		},
		{
			"no task on a bare base, but what only one head has", headless,
			of(t, nil).Set("modules_to_save", []string{"pooler", "classifier"}).
				Saved("bert.pooler.dense", 8, 8).Saved("classifier", 4, 8),
			"BertForSequenceClassification", "",
		},
		{
			"a class whose pooler is nowhere", poolerless, classified("BertForSequenceClassification"), "",
			lacks("BertForSequenceClassification", "bert.pooler.dense") + "BertModel has none",
		},
		{
			"tokens on a base without a pooler", poolerless,
			of(t, "TOKEN_CLS").Update(self, 8, 8).Saved("classifier", 4, 8), "BertForTokenClassification", "",
		},
		{
			"a pooler brought along", poolerless, of(t, "SEQ_CLS").Set("modules_to_save", []string{"pooler"}).
				Saved("bert.pooler.dense", 8, 8).Saved("classifier", 4, 8),
			"BertForSequenceClassification", "",
		},
		{
			"a sequence's on a base without a pooler", poolerless, of(t, "SEQ_CLS").Saved("classifier", 4, 8), "",
			lacks("BertForSequenceClassification", "bert.pooler.dense") + "BertModel has none",
		},
		{
			"a pooler that is only updated", poolerless,
			of(t, "SEQ_CLS").Update("bert.pooler.dense", 8, 8).Saved("classifier", 4, 8), "",
			lacks("BertForSequenceClassification", "bert.pooler.dense") + "BertModel has none",
		},
		{
			"nothing said on a bare base", headless, of(t, nil).Update(self, 8, 8), "",
			lacks("BertForSequenceClassification", "classifier") + "BertModel is for another task, or has none",
		},
		{
			"the tokens' head of a base for sequences", bert,
			bare(t).Set("task_type", "TOKEN_CLS").Update(self, 8, 8), "",
			lacks("BertForTokenClassification", "classifier") + "BertForSequenceClassification is for another task",
		},
		{
			"a pooler for tokens", bert, of(t, "TOKEN_CLS").Update("bert.pooler.dense", 8, 8).Saved("classifier", 4, 8), "",
			`key "base_model.model.bert.pooler.dense.lora_A.weight": no module "bert.pooler.dense" in ` +
				`BertForTokenClassification`,
		},

		{
			"RoBERTa's for sequences", roberta,
			of(t, "SEQ_CLS").Saved("classifier.dense", 8, 8).Saved("classifier.out_proj", 4, 8),
			"RobertaForSequenceClassification", "",
		},
		{
			"RoBERTa's for tokens", roberta, of(t, "TOKEN_CLS").Saved("classifier", 4, 8), "RobertaForTokenClassification", "",
		},
		{"RoBERTa's own", roberta, of(t, nil).Update(robertas, 8, 8), "RobertaForSequenceClassification", ""},
		{
			"the tokens' head for a sequence", roberta, of(t, "SEQ_CLS").Saved("classifier", 4, 8), "",
			`key "base_model.model.classifier.bias": no module "classifier" in RobertaForSequenceClassification`,
		},
		{
			"the tokens' head for the base's own", roberta,
			bare(t).Set("modules_to_save", []string{"classifier"}).Saved("classifier", 4, 8), "",
			`no module "classifier" in RobertaForSequenceClassification`,
		},
		{
			"the sequence's head for tokens", roberta,
			of(t, "TOKEN_CLS").Saved("classifier.dense", 8, 8).Saved("classifier.out_proj", 4, 8), "",
			`no module "classifier.dense" in RobertaForTokenClassification`,
		},

		{
			"DistilBERT's for sequences", distilbert,
			of(t, "SEQ_CLS").Saved("pre_classifier", 8, 8).Saved("classifier", 4, 8),
			"DistilBertForSequenceClassification", "",
		},
		{
			"DistilBERT's for tokens", distilbert, of(t, "TOKEN_CLS").Saved("classifier", 4, 8),
			"DistilBertForTokenClassification", "",
		},
		{
			"DeBERTa's for sequences", deberta, of(t, "SEQ_CLS").Saved("classifier", 4, 8), "",
			lacks("DebertaV2ForSequenceClassification", "pooler.dense") + "DebertaV2ForMaskedLM has none",
		},
		{
			"DeBERTa's for tokens", deberta, of(t, "TOKEN_CLS").Saved("classifier", 4, 8),
			"DebertaV2ForTokenClassification", "",
		},
		{
			"ModernBERT's, whose head has a part that its own base brings", modernbert,
			of(t, "TOKEN_CLS").Saved("classifier", 4, 8), "ModernBertForTokenClassification", "",
		},
		{
			"ModernBERT's on a bare base", describe(t, tinyModernBERT, "head", "classifier"),
			of(t, "SEQ_CLS").Saved("classifier", 4, 8), "",
			lacks("ModernBertForSequenceClassification", "head.dense") + "ModernBertForMaskedLM has none",
		},

		{"DeiT's own", deit, of(t, nil).Update(deits, 8, 8), "DeiTForImageClassification", ""},
		{
			"DeiT's with a teacher", deit,
			of(t, "SEQ_CLS").Saved("cls_classifier", 4, 8).Saved("distillation_classifier", 4, 8),
			"DeiTForImageClassificationWithTeacher", "",
		},
		{
			"DeiT's with a teacher, not said to be", deit, bare(t).Set("modules_to_save", []string{"classifier"}).
				Saved("cls_classifier", 4, 8).Saved("distillation_classifier", 4, 8), "",
			`no module "cls_classifier" in DeiTForImageClassification`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := loadOn(t, c.base, c.a, peft.Settings{})
			if c.err != "" {
				var misfit *peft.MisfitError
				if expectError(t, err, c.err); !errors.As(err, &misfit) {
					t.Errorf("expected a misfit, found %v", err)
				}
				return
			}
			if err != nil || c.base.Heads[a.Head].Architecture != c.head {
				t.Errorf("expected %s, found %+v, %v", c.head, a, err)
			}
		})
	}
}

// What is wrong with a head whatever the base.
func TestHeadsRefused(t *testing.T) {
	expectRefused(t, describe(t, tinyDistilBERT), []refusal{
		{
			"half of what classifier means", of(t, "SEQ_CLS").Saved("classifier", 4, 8),
			`key "base_model.model.pre_classifier.weight": missing, though modules_to_save holds "classifier"`,
		},
		{
			"a task of another kind of model", of(t, "CAUSAL_LM").Saved("classifier", 4, 8),
			`task_type: expected null, "SEQ_CLS" or "TOKEN_CLS" for a base of the type distilbert, found "CAUSAL_LM"`,
		},
	})
	// The classifier alone could be a sequence's or the tokens', with its base's pooler or without: nothing is guessed.
	for _, without := range [][]string{{"classifier"}, {"classifier", "bert.pooler"}} {
		expectRefused(t, describe(t, bareBERT, without...), []refusal{{
			"no task, no head and no class that tells", bare(t).Set("auto_mapping", nil).
				Set("modules_to_save", []string{"classifier"}).Saved("classifier", 4, 8),
			"adapter_config.json: task_type: expected the task of one of BertForSequenceClassification, " +
				"BertForTokenClassification, which all fit what the file saves, as the base BertModel has no head of its own, " +
				"found null",
		}})
	}
	const teacher = `{"model_type": "deit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 4, "patch_size": 2, "num_labels": 3,
		"architectures": ["DeiTForImageClassificationWithTeacher"]}`
	one := bare(t).Set("modules_to_save", []string{"cls_classifier"})
	expectRefused(t, describe(t, teacher), []refusal{
		{
			"classifiers that do not agree", of(t, "SEQ_CLS").Saved("cls_classifier", 4, 8).
				Saved("distillation_classifier", 5, 8),
			`key "base_model.model.distillation_classifier.weight": shape: expected 4 outputs, as ` +
				`"base_model.model.cls_classifier.weight" has, found 5`,
		},
		{
			"one classifier that does not agree with the base's other", one.Saved("cls_classifier", 4, 8),
			`head: cls_classifier.weight has 4 outputs, and "distillation_classifier", which the adapter does not save, 3`,
		},
	})
	a := mustLoadOn(t, describe(t, teacher), bare(t).Set("modules_to_save", []string{"cls_classifier"}).
		Saved("cls_classifier", 3, 8))
	if len(a.Labels) != 3 || len(a.Saved) != 1 {
		t.Errorf("one classifier that agrees: expected 3 labels, found %v", a.Labels)
	}
}

// The tensors of an update follow the kind of its module, and what the config says it has beside A and B.
func TestUpdatesByKind(t *testing.T) {
	for _, c := range []struct {
		name            string
		base            string
		a               *wrappers.AdapterFolder
		module          string
		shapeA, shapeB  []int
		magnitude, bias []int // nil: none
		scale           float32
		bytes, maxRank  int
	}{
		{
			name: "DoRA", base: tinyBERT,
			a:      of(t, nil).Set("use_dora", true).Update(self, 8, 8).Zip(self+".lora_magnitude_vector", 8),
			module: self, shapeA: []int{4, 8}, shapeB: []int{8, 4}, magnitude: []int{8}, bytes: 4 * (32 + 32 + 8),
		},
		{
			name: "DoRA as it is in memory", base: tinyBERT,
			a:      of(t, nil).Set("use_dora", true).Update(self, 8, 8).Zip(self+".lora_magnitude_vector.weight", 8),
			module: self, shapeA: []int{4, 8}, shapeB: []int{8, 4}, magnitude: []int{8}, bytes: 4 * (32 + 32 + 8),
		},
		{
			name: "a bias in the update", base: tinyBERT,
			a:      of(t, nil).Set("lora_bias", true).Update(self, 8, 8).Zip(self+".lora_B.bias", 8),
			module: self, shapeA: []int{4, 8}, shapeB: []int{8, 4}, bias: []int{8}, bytes: 4 * (32 + 32 + 8),
		},
		{
			name: "an Embedding", base: tinyBERT, a: of(t, nil).UpdateEmbedding(words, 10, 8),
			module: words, shapeA: []int{4, 10}, shapeB: []int{8, 4}, bytes: 4 * (40 + 32),
		},
		{
			name: "an Embedding, which has no bias", base: tinyBERT,
			a:      of(t, nil).Set("lora_bias", true).UpdateEmbedding(places, 6, 8),
			module: places, shapeA: []int{4, 6}, shapeB: []int{8, 4}, bytes: 4 * (24 + 32),
		},
		{
			name: "an Embedding with DoRA", base: tinyBERT,
			a:      of(t, nil).Set("use_dora", true).UpdateEmbedding(words, 10, 8).Zip(words+".lora_magnitude_vector", 8),
			module: words, shapeA: []int{4, 10}, shapeB: []int{8, 4}, magnitude: []int{8}, bytes: 4 * (40 + 32 + 8),
		},
		{
			name: "an Embedding of another rank", base: tinyBERT,
			a: of(t, nil).Rank(2).UpdateEmbedding(words, 10, 8).Rank(4).
				Set("rank_pattern", raw(`{"word_embeddings": 2}`)).Set("alpha_pattern", raw(`{"words": 1, ".*words?_.*": 3}`)),
			module: words, shapeA: []int{2, 10}, shapeB: []int{8, 2}, bytes: 4 * (20 + 16), scale: 1.5, maxRank: 2,
		},
		{
			name: "a Conv2d", a: bare(t).UpdateConv(projection, 8, 3, 2, 2),
			module: projection, shapeA: []int{4, 3, 2, 2}, shapeB: []int{8, 4, 1, 1}, bytes: 4 * (48 + 32),
		},
		{
			name: "a Conv2d with DoRA", a: bare(t).Set("use_dora", true).UpdateConv(projection, 8, 3, 2, 2).
				Zip(projection+".lora_magnitude_vector", 1, 8, 1, 1),
			module: projection, shapeA: []int{4, 3, 2, 2}, shapeB: []int{8, 4, 1, 1}, magnitude: []int{1, 8, 1, 1},
			bytes: 4 * (48 + 32 + 8),
		},
		{
			name: "a Conv2d with a bias in the update", a: bare(t).Set("lora_bias", true).
				UpdateConv(projection, 8, 3, 2, 2).Zip(projection+".lora_B.bias", 8),
			module: projection, shapeA: []int{4, 3, 2, 2}, shapeB: []int{8, 4, 1, 1}, bias: []int{8}, bytes: 4 * (48 + 32 + 8),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := tinyViT(t)
			if c.base != "" {
				base = describe(t, c.base)
			}
			if c.scale == 0 {
				c.scale, c.maxRank = 2, 4
			}
			a := mustLoadOn(t, base, c.a)
			if len(a.Updates) != 1 || len(a.Saved) > 0 || len(a.Rows) > 0 {
				t.Fatalf("expected one update, found %+v", a)
			}
			u := a.Updates[0]
			if u.Module != c.module || u.Scale != c.scale || a.MaxRank != c.maxRank || a.Bytes(base) != int64(c.bytes) {
				t.Errorf("expected %s by %g of rank %d, %d bytes, found %s by %g of %d, %d",
					c.module, c.scale, c.maxRank, c.bytes, u.Module, u.Scale, a.MaxRank, a.Bytes(base))
			}
			if !slices.Equal(u.A.Shape(), c.shapeA) || !slices.Equal(u.B.Shape(), c.shapeB) {
				t.Errorf("expected %v and %v, found %v and %v", c.shapeA, c.shapeB, u.A.Shape(), u.B.Shape())
			}
			if !slices.Equal(shapeOf(u.Magnitude), c.magnitude) || !slices.Equal(shapeOf(u.Bias), c.bias) {
				t.Errorf("beside: expected %v and %v, found %v and %v",
					c.magnitude, c.bias, shapeOf(u.Magnitude), shapeOf(u.Bias))
			}
		})
	}
}

// shapeOf is a tensor's shape; nil where there is none.
func shapeOf(t *tensor.Dense) []int {
	if t == nil {
		return nil
	}
	return t.Shape()
}

func TestUpdatesOfTextsRefused(t *testing.T) {
	const key, in = `key "base_model.model.` + words, " (base BertForSequenceClassification, rank 4 by r)"
	dora := func() *wrappers.AdapterFolder { return of(t, nil).Set("use_dora", true) }
	expectRefused(t, describe(t, tinyBERT), []refusal{
		{
			"an Embedding's A transposed", of(t, nil).Zip(words+".lora_embedding_A", 10, 4).Zip(words+".lora_embedding_B", 8, 4),
			key + `.lora_embedding_A": shape: expected [4, 10], found [10, 4]` + in,
		},
		{
			"an Embedding of another vocabulary", of(t, nil).UpdateEmbedding(words, 12, 8),
			key + `.lora_embedding_A": shape: expected [4, 10], found [4, 12]` + in,
		},
		{
			"an Embedding of another width", of(t, nil).UpdateEmbedding(words, 10, 9),
			key + `.lora_embedding_B": shape: expected [8, 4], found [9, 4]` + in,
		},
		{
			"half of an Embedding's", of(t, nil).Zip(words+".lora_embedding_B", 8, 4),
			key + `.lora_embedding_B": expected base_model.model.` + words + `.lora_embedding_A beside it, found none`,
		},
		{
			"the other half", of(t, nil).Zip(words+".lora_embedding_A", 4, 10),
			key + `.lora_embedding_A": expected base_model.model.` + words + `.lora_embedding_B beside it, found none`,
		},
		{
			"an Embedding as a Linear", of(t, nil).Update(words, 10, 8),
			key + `.lora_A.weight": expected lora_embedding_A and lora_embedding_B after the Embedding "` + words + `"`,
		},
		{
			"a bias in an Embedding's update", of(t, nil).Set("lora_bias", true).UpdateEmbedding(words, 10, 8).
				Zip(words+".lora_B.bias", 8),
			key + `.lora_B.bias": expected lora_embedding_A and lora_embedding_B after the Embedding`,
		},
		{
			"a Linear as an Embedding", of(t, nil).UpdateEmbedding(self, 8, 8),
			`.lora_embedding_A": expected an Embedding's update, found one of the Linear "` + self + `"`,
		},
		{
			"DoRA of an Embedding by its words", dora().UpdateEmbedding(words, 10, 8).Zip(words+".lora_magnitude_vector", 10),
			key + `.lora_magnitude_vector": shape: expected [8], found [10] (base BertForSequenceClassification)`,
		},
		{
			"DoRA of an Embedding without its magnitude", dora().UpdateEmbedding(words, 10, 8),
			key + `.lora_magnitude_vector": missing, though use_dora is true`,
		},
		{
			"DoRA with a bias in the update", dora().Set("lora_bias", true).Update(self, 8, 8),
			"adapter_config.json: use_dora: expected false with lora_bias, found true: PEFT refuses the two together",
		},
		{
			"a resized vocabulary", of(t, nil).Update(self, 8, 8).Zip(words+".weight", 12, 8),
			key + `.weight": a whole parameter of "` + words + `", which modules_to_save does not hold`,
		},
		{
			"a resized vocabulary, updated", of(t, nil).UpdateEmbedding(words, 10, 8).Zip(words+".base_layer.weight", 12, 8),
			key + `.base_layer.weight": the base's own weights in the adapter are not supported`,
		},
		{
			"a resized vocabulary, saved", of(t, nil).Set("modules_to_save", []string{"word_embeddings"}).
				Zip(words+".weight", 12, 8),
			key + `.weight": shape: expected [10, 8], found [12, 8] (base BertForSequenceClassification)`,
		},
		{
			"a LayerNorm", of(t, nil).Update("bert.embeddings.LayerNorm", 8, 8),
			`LoRA on the LayerNorm "bert.embeddings.LayerNorm" is not supported, only on Linear, Conv2d and Embedding`,
		},
		{
			"DoRA of a LayerNorm", dora().Zip("bert.embeddings.LayerNorm.lora_magnitude_vector", 8),
			`lora_magnitude_vector": expected base_model.model.bert.embeddings.LayerNorm.lora_A.weight beside it`,
		},
	})
	expectRefused(t, describe(t, tinyDeBERTa), []refusal{
		{
			"a Conv1d", of(t, nil).Zip("deberta.encoder.conv.conv.lora_A.weight", 4, 8, 3),
			`LoRA on the Conv1d "deberta.encoder.conv.conv" is not supported, only on Linear, Conv2d and Embedding`,
		},
		{
			"relative embeddings", of(t, nil).UpdateEmbedding("deberta.encoder.rel_embeddings", 12, 8),
			`lora_embedding_A": expected an Embedding's update, found one of the Parameters "deberta.encoder.rel_embeddings"`,
		},
	})
}

func TestUpdatesOfConvolutionsRefused(t *testing.T) {
	const key, in = `key "base_model.model.` + projection, " (base ViTForImageClassification, rank 4 by r)"
	expectRefused(t, tinyViT(t), []refusal{
		{
			"another kernel", bare(t).UpdateConv(projection, 8, 3, 2, 3),
			key + `.lora_A.weight": shape: expected [4, 3, 2, 2], found [4, 3, 2, 3]` + in,
		},
		{
			"another height", bare(t).UpdateConv(projection, 9, 3, 2, 2),
			key + `.lora_B.weight": shape: expected [8, 4, 1, 1], found [9, 4, 1, 1]` + in,
		},
		{
			"B as a Linear's", bare(t).Zip(projection+".lora_A.weight", 4, 3, 2, 2).Zip(projection+".lora_B.weight", 8, 4),
			key + `.lora_B.weight": shape: expected [8, 4, 1, 1], found [8, 4]` + in,
		},
		{
			"DoRA as a Linear's", bare(t).Set("use_dora", true).UpdateConv(projection, 8, 3, 2, 2).
				Zip(projection+".lora_magnitude_vector", 8),
			key + `.lora_magnitude_vector": shape: expected [1, 8, 1, 1], found [8] (base ViTForImageClassification)`,
		},
		{
			"another bias", bare(t).Set("lora_bias", true).UpdateConv(projection, 8, 3, 2, 2).Zip(projection+".lora_B.bias", 4),
			key + `.lora_B.bias": shape: expected [8], found [4] (base ViTForImageClassification)`,
		},
	})
}

func TestReplacedRows(t *testing.T) {
	base := describe(t, tinyBERT)
	const delta = ".token_adapter.trainable_tokens_delta"
	for _, c := range []struct {
		name    string
		indices string
		paths   []string
		ids     [][]int
	}{
		{"a list is of the words", `[9, 2]`, []string{words}, [][]int{{9, 2}}},
		{"by the end of the name", `{"word_embeddings": [9, 2]}`, []string{words}, [][]int{{9, 2}}},
		{
			"of several", `{"position_embeddings": [5, 0], "embeddings.word_embeddings": [0, 1]}`,
			[]string{words, places},
			[][]int{{0, 1}, {5, 0}},
		},
	} {
		a := of(t, nil).Set("trainable_token_indices", raw(c.indices)).Update(self, 8, 8)
		for _, path := range c.paths {
			a.Zip(path+delta, 2, 8)
		}
		loaded, err := loadOn(t, base, a, peft.Settings{})
		if err != nil || len(loaded.Rows) != len(c.paths) {
			t.Errorf("%s: expected rows of %v, found %+v, %v", c.name, c.paths, loaded, err)
			continue
		}
		for i, r := range loaded.Rows {
			if r.Module != c.paths[i] || !slices.Equal(r.IDs, c.ids[i]) || !slices.Equal(r.Values.Shape(), []int{2, 8}) {
				t.Errorf("%s: expected %v of %s, found %+v", c.name, c.ids[i], c.paths[i], r)
			}
		}
		if expected := int64(4 * (64 + 16*len(c.paths))); loaded.Bytes(base) != expected {
			t.Errorf("%s: expected %d bytes, found %d", c.name, expected, loaded.Bytes(base))
		}
	}

	rows := func(indices string, shape ...int) *wrappers.AdapterFolder {
		return of(t, nil).Set("trainable_token_indices", raw(indices)).Zip(words+delta, shape...)
	}
	const key = `key "base_model.model.` + words + delta + `": `
	expectRefused(t, base, []refusal{
		{
			"another number", rows(`[1, 2]`, 3, 8), key +
				"shape: expected [2, 8], found [3, 8] (base BertForSequenceClassification, 2 ids in trainable_token_indices)",
		},
		{"another width", rows(`[1, 2]`, 2, 9), key + "shape: expected [2, 8], found [2, 9]"},
		{
			"an id beyond the vocabulary", rows(`[1, 10]`, 2, 8),
			key + "trainable_token_indices: expected ids from 0 to 9, found 10 (base BertForSequenceClassification)",
		},
		{"an id below", rows(`[-1]`, 1, 8), key + "trainable_token_indices: expected ids from 0 to 9, found -1"},
		{
			"null, which is no id", rows(`[null]`, 1, 8),
			"adapter_config.json: trainable_token_indices: expected null, a list of ids, or an object of such lists by " +
				"module, found [null]",
		},
		{
			"an id twice", rows(`[3, 1, 3]`, 3, 8),
			`trainable_token_indices: "` + words + `": expected every id once, found one twice`,
		},
		{
			"an update too", rows(`[1]`, 1, 8).UpdateEmbedding(words, 10, 8),
			key + `rows of an Embedding that has an update too, "base_model.model.` + words +
				`.lora_embedding_A": PEFT cannot compute the two together`,
		},
		{
			"saved too", rows(`[1]`, 1, 8).Set("modules_to_save", []string{"word_embeddings"}),
			key + `an update of "` + words + `", which modules_to_save holds as "word_embeddings"`,
		},
		{
			"not named", rows(`null`, 1, 8),
			key + `rows of "` + words + `", which trainable_token_indices does not name`,
		},
		{
			"of another name", rows(`{"position_embeddings": [1]}`, 1, 8),
			key + `rows of "` + words + `", which trainable_token_indices does not name`,
		},
		{
			"none in the file", of(t, nil).Update(self, 8, 8).Set("trainable_token_indices", raw(`[1]`)),
			`adapter_config.json: trainable_token_indices: "` + words + `": the file has no rows for it`,
		},
		{
			"one of two in the file", rows(`{"word_embeddings": [1], "position_embeddings": [1]}`, 1, 8),
			`adapter_config.json: trainable_token_indices: "position_embeddings": the file has no rows for it`,
		},
		{
			"of a Linear", of(t, nil).Set("trainable_token_indices", raw(`{"query": [1]}`)).Zip(self+delta, 1, 8),
			`rows of "` + self + `", which trainable_token_indices does not name`,
		},
		{
			"under another name", of(t, nil).Zip(words+".token_adapter.delta", 1, 8),
			"expected token_adapter.trainable_tokens_delta after the module's path",
		},
	})
}

// A bias that was trained replaces the base's, whichever way it is named. With bias "all" PEFT also writes the biases
// of its own wrappers of a saved module, which say nothing.
func TestTrainedBiases(t *testing.T) {
	for _, c := range []struct {
		name  string
		base  string
		a     *wrappers.AdapterFolder
		saved map[string]int // number of parameters
	}{
		{
			"all", tinyBERT, of(t, "SEQ_CLS").Set("bias", "all").Update(self, 8, 8).
				Zip(self+".base_layer.bias", 8).Zip("bert.embeddings.LayerNorm.bias", 8).Saved("classifier", 3, 8).
				Zip("classifier.original_module.bias", 3).Zip("classifier.modules_to_save.bias", 3),
			map[string]int{"bert.embeddings.LayerNorm": 1, self: 1, "classifier": 2},
		},
		{
			"all of a head of several", tinyRoBERTa, of(t, "SEQ_CLS").Set("bias", "all").
				Saved("classifier.dense", 8, 8).Saved("classifier.out_proj", 3, 8).
				Zip("classifier.original_module.dense.bias", 8).Zip("classifier.modules_to_save.out_proj.bias", 3),
			map[string]int{"classifier.dense": 2, "classifier.out_proj": 2},
		},
		{
			"lora_only", tinyBERT, of(t, nil).Set("bias", "lora_only").Update(self, 8, 8).Zip(self+".bias", 8),
			map[string]int{self: 1},
		},
		{
			"of the base's head", tinyBERT, of(t, nil).Set("bias", "all").Zip("classifier.bias", 3),
			map[string]int{"classifier": 1},
		},
		{
			"of what joins two", tinyDINOv2, bare(t).Rank(1).Set("bias", "lora_only").
				Update(mlp+"weights_in", 48, 12).Zip(mlp+"weights_in.base_layer.bias", 48),
			map[string]int{mlp + "gate_proj": 1, mlp + "up_proj": 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := describe(t, c.base)
			a := mustLoadOn(t, base, c.a)
			if len(a.Saved) != len(c.saved) {
				t.Errorf("expected %v, found %+v", c.saved, a.Saved)
			}
			for _, s := range a.Saved {
				bias, _ := base.Lookup(s.Module)[0].Param("bias")
				if found := s.Params["bias"]; len(s.Params) != c.saved[s.Module] || !slices.Equal(found.Shape(), bias.Shape) {
					t.Errorf("%s: expected %d parameters and the bias %v, found %v", s.Module, c.saved[s.Module], bias.Shape, s.Params)
				}
			}
		})
	}
	expectRefused(t, describe(t, tinyBERT), []refusal{
		{
			"none by its plain name", of(t, nil).Update(self, 8, 8).Zip(self+".bias", 8),
			`.bias": a whole parameter of "` + self + `", which modules_to_save does not hold`,
		},
		{
			"none by the layer's name", of(t, nil).Update(self, 8, 8).Zip(self+".base_layer.bias", 8),
			`.base_layer.bias": a trained bias, though bias is "none"`,
		},
		{
			"under two names", of(t, nil).Set("bias", "all").Zip(self+".bias", 8).Zip(self+".base_layer.bias", 8),
			`key "base_model.model.` + self + `.bias": the same as "base_model.model.` + self + `.base_layer.bias"`,
		},
		{
			"of a module without one", of(t, nil).Set("bias", "all").Zip(words+".bias", 8),
			`no parameter bias of "` + words + `" in the base BertForSequenceClassification`,
		},
		{
			"a wrapper's with lora_only", of(t, "SEQ_CLS").Set("bias", "lora_only").Saved("classifier", 3, 8).
				Zip("classifier.original_module.bias", 3),
			`.original_module.bias": expected the module's plain name`,
		},
		{
			"a wrapper's weight", of(t, "SEQ_CLS").Set("bias", "all").Saved("classifier", 3, 8).
				Zip("classifier.original_module.weight", 3, 8),
			`.original_module.weight": expected the module's plain name`,
		},
		{
			"a weight", of(t, nil).Set("bias", "all").Zip(self+".weight", 8, 8),
			`.weight": a whole parameter of "` + self + `", which modules_to_save does not hold`,
		},
		{
			"a layer's weight", of(t, nil).Set("bias", "all").Zip(self+".base_layer.weight", 8, 8),
			"the base's own weights in the adapter are not supported",
		},
	})
}

// What one generation of names joins and the other has in parts is updated and saved by part: A is shared, all that has
// the outputs for a dimension is cut.
func TestFusedModules(t *testing.T) {
	base := describe(t, tinyDINOv2)
	in := mlp + "weights_in"
	a := mustLoadOn(t, base, bare(t).Rank(1).Set("use_dora", true).
		Set("alpha_pattern", raw(`{"weights_in": 5, "up_proj": 7}`)).
		Zip(in+".lora_A.weight", 1, 12).Zip(in+".lora_magnitude_vector", 48).
		Tensor(wrappers.F32("base_model.model."+in+".lora_B.weight", counting(48), 48, 1)))
	if len(a.Updates) != 2 || a.Updates[0].Module != mlp+"gate_proj" || a.Updates[1].Module != mlp+"up_proj" {
		t.Fatalf("expected gate_proj and up_proj, found %+v", a.Updates)
	}
	for i, u := range a.Updates {
		if !slices.Equal(u.B.Float32s(), counting(48)[24*i:24*i+24]) || !slices.Equal(u.B.Shape(), []int{24, 1}) {
			t.Errorf("%s: B: expected its own half, found %v", u.Module, u.B)
		}
		if !slices.Equal(u.A.Float32s(), a.Updates[0].A.Float32s()) || u.Magnitude.Shape()[0] != 24 || u.Scale != 5 {
			t.Errorf("%s: expected the same A, half of DoRA's m and the scale of weights_in, found %+v", u.Module, u)
		}
	}

	a = mustLoadOn(t, base, bare(t).Rank(1).Set("lora_bias", true).Update(in, 48, 12).Zip(in+".lora_B.bias", 48))
	for _, u := range a.Updates {
		if !slices.Equal(u.Bias.Shape(), []int{24}) {
			t.Errorf("%s: expected half of the bias, found %v", u.Module, u.Bias.Shape())
		}
	}

	saved := bare(t).Set("modules_to_save", []string{"weights_in"})
	a = mustLoadOn(t, base, saved.Zip(in+".bias", 48).
		Tensor(wrappers.F32("base_model.model."+in+".weight", counting(48*12), 48, 12)))
	for i, s := range a.Saved {
		if !slices.Equal(s.Params["weight"].Float32s(), counting(48 * 12)[288*i:288*i+288]) || len(s.Params) != 2 {
			t.Errorf("saved %s: expected its own half, found %v", s.Module, s.Params)
		}
	}
	if len(a.Saved) != 2 {
		t.Errorf("saved: expected both parts, found %+v", a.Saved)
	}

	a = mustLoadOn(t, base, bare(t).Rank(1).Update(mlp+"gate_proj", 24, 12).Update(mlp+"down_proj", 12, 24))
	if len(a.Updates) != 2 || a.Updates[0].Module != mlp+"gate_proj" || a.Updates[1].Module != mlp+"weights_out" {
		t.Errorf("in parts: expected gate_proj and weights_out, found %+v", a.Updates)
	}

	expectRefused(t, base, []refusal{
		{
			"whole and in parts", bare(t).Rank(1).Update(in, 48, 12).Update(mlp+"gate_proj", 24, 12),
			`key "base_model.model.` + in + `.lora_A.weight": one module under two names, "` + mlp + `gate_proj" and "` +
				in + `"`,
		},
		{
			"half as high", bare(t).Rank(1).Update(in, 24, 12),
			`key "base_model.model.` + in + `.lora_B.weight": shape: expected [48, 1], found [24, 1]`,
		},
		{
			"a part as high as the whole", bare(t).Rank(1).Update(mlp+"up_proj", 48, 12),
			`key "base_model.model.` + mlp + `up_proj.lora_B.weight": shape: expected [24, 1], found [48, 1]`,
		},
		{
			"half of DoRA's magnitude", bare(t).Rank(1).Set("use_dora", true).Update(in, 48, 12).
				Zip(in+".lora_magnitude_vector", 24),
			`.lora_magnitude_vector": shape: expected [48], found [24]`,
		},
		{
			"half of a trained bias", bare(t).Rank(1).Set("bias", "all").Zip(in+".bias", 24),
			`.bias": shape: expected [48], found [24]`,
		},
		{
			"a part saved and not there", bare(t).Set("modules_to_save", []string{"mlp"}).Saved(mlp+"gate_proj", 24, 12).
				Saved(mlp+"down_proj", 12, 24),
			`key "base_model.model.` + mlp + `up_proj.weight": missing, though modules_to_save holds "mlp"`,
		},
	})
	// Nothing in the file tells which of the two namings this one is of.
	mustLoadOn(t, base, bare(t).Rank(1).Set("modules_to_save", []string{"up_proj"}).Update(mlp+"weights_out", 12, 24))
}

// Values of 16 bits are those of 32.
func TestHalves(t *testing.T) {
	values := []uint16{0x3c00, 0xc000, 0x0001, 0x7bff} // 1, -2, 2⁻²⁴ and 65504 in F16
	var data []byte
	for i := range 32 {
		data = binary.LittleEndian.AppendUint16(data, values[i%4])
	}
	for dtype, want := range map[string][]float32{
		"F16": {1, -2, 0x1p-24, 65504}, "BF16": {0x1p-7, -2, 0x1p-133, 0xffp+113},
	} {
		a := mustLoad(t, bare(t).Zip(query5+".lora_B.weight", 8, 4).Tensor(wrappers.Tensor{
			Name: "base_model.model." + query5 + ".lora_A.weight", DType: dtype, Shape: []int{4, 8}, Data: data,
		}))
		if found := a.Updates[0].A.Float32s()[:4]; !slices.Equal(found, want) {
			t.Errorf("%s: expected %v, found %v", dtype, want, found)
		}
	}
}

// A matrix whose values all are bfloat16, once they are scaled, is said to take half the memory, but no bias, norm or
// bare tensor, and no A beside one that has more digits.
func TestBytesOfBFloat16(t *testing.T) {
	const key, embeddings = "vit.layers.0.attention.k_proj", "vit.embeddings"
	query := func() *wrappers.AdapterFolder { return bare(t).Update(query5, 8, 8) }
	saving := func(module string) *wrappers.AdapterFolder { return bare(t).Set("modules_to_save", []string{module}) }
	for name, c := range map[string]struct {
		a              *wrappers.AdapterFolder
		halves, floats int64 // values
	}{
		"an update":                 {query().BFloat16(), 64, 0},
		"scaled by a power of two":  {query().Set("lora_alpha", 1).BFloat16(), 64, 0},
		"scaled by another number":  {query().Set("lora_alpha", 28).BFloat16(), 32, 32},
		"with a bias":               {query().Set("lora_bias", true).Zip(query5+".lora_B.bias", 8).BFloat16(), 64, 8},
		"beside one of more digits": {query().BFloat16().Update(key, 8, 8), 32, 32 + 64},
		"a classifier":              {saving("classifier").Saved("classifier", 3, 8).BFloat16(), 24, 3},
		"a norm": {
			saving("vit.layernorm").Zip("vit.layernorm.weight", 8).Zip("vit.layernorm.bias", 8).BFloat16(), 0, 16,
		},
		"bare tensors": {
			saving("embeddings").Zip(embeddings+".cls_token", 1, 1, 8).Zip(embeddings+".position_embeddings", 1, 5, 8).
				Zip(projection+".weight", 8, 3, 2, 2).Zip(projection+".bias", 8).BFloat16(), 96, 8 + 40 + 8,
		},
	} {
		if found := mustLoad(t, c.a).Bytes(tinyViT(t)); found != 2*c.halves+4*c.floats {
			t.Errorf("%s: expected %d bytes, found %d", name, 2*c.halves+4*c.floats, found)
		}
	}
}

// What the outputs mean: by the settings, else by config.json beside the adapter, else by the base's, else as
// transformers would train them.
func TestProblemTypes(t *testing.T) {
	with := func(outputs int, config string) *wrappers.AdapterFolder {
		a := wrappers.Adapter(t).Rank(4).Update(query5, 8, 8).Saved("classifier", outputs, 8)
		if config != "" {
			a.File("config.json", []byte(config))
		}
		return a
	}
	problem := func(problem string, labels int) string {
		return fmt.Sprintf(`{"problem_type": %s, "num_labels": %d}`, problem, labels)
	}
	const multi = `"multi_label_classification"`
	vit, bert := tinyViT(t), describe(t, tinyBERT)
	several := describe(t, `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 4, "patch_size": 2, "problem_type": "multi_label_classification"}`)
	single := describe(t, `{"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"intermediate_size": 16, "image_size": 4, "patch_size": 2, "problem_type": "single_label_classification"}`)
	tokens := of(t, "TOKEN_CLS").Update(self, 8, 8).Saved("classifier", 1, 8)
	for _, c := range []struct {
		name string
		base *arch.Description
		a    *wrappers.AdapterFolder
		set  arch.Problem
		want arch.Problem
		err  string
	}{
		{"several", vit, with(4, ""), "", arch.SingleLabel, ""},
		{"one", vit, with(1, ""), "", arch.Regression, ""},
		{"by config.json", vit, with(4, problem(multi, 4)), "", arch.MultiLabel, ""},
		{"by config.json, which does not say", vit, with(1, problem("null", 1)), "", arch.Regression, ""},
		{"by the base's, where config.json is silent", several, with(4, `{"num_labels": 4}`), "", arch.MultiLabel, ""},
		{"by config.json, which says that it is not known", several, with(4, problem("null", 4)), "", arch.SingleLabel, ""},
		{"by config.json, before the base's", several, with(2, problem(`"regression"`, 2)), "", arch.Regression, ""},
		{"by the base's, for a head of the adapter's own", several, with(4, ""), "", arch.MultiLabel, ""},
		{
			"one class of one by the base's", single, with(1, ""), "", "",
			"config.json of the base: problem_type: expected a head of at least 2 outputs for SingleLabel, found 1",
		},
		{"regression of several", vit, with(2, problem(`"regression"`, 2)), "", arch.Regression, ""},
		{"the settings before config.json", vit, with(4, problem(multi, 4)), arch.Regression, arch.Regression, ""},
		{"one label or not", vit, with(1, ""), arch.MultiLabel, arch.MultiLabel, ""},
		{"the base's head", several, bare(t).Update(query5, 8, 8), "", arch.MultiLabel, ""},
		{"the base's head by the settings", several, bare(t).Update(query5, 8, 8), arch.SingleLabel, arch.SingleLabel, ""},
		{"tokens, which have one class each", bert, tokens, "", arch.SingleLabel, ""},
		{"tokens, as the settings say", bert, tokens, arch.SingleLabel, arch.SingleLabel, ""},
		{
			"tokens of several", bert, tokens, arch.MultiLabel, "",
			"problemType: expected SingleLabel for a classifier of tokens, found MultiLabel",
		},
		{
			"one class of one", vit, with(1, ""), arch.SingleLabel, "",
			"problemType: expected a head of at least 2 outputs for SingleLabel, found 1",
		},
		{
			"one class of one by config.json", vit, with(1, problem(`"single_label_classification"`, 1)), "", "",
			"config.json: problem_type: expected a head of at least 2 outputs for SingleLabel, found 1",
		},
		{
			"another word", vit, with(4, ""), "Ranking", "",
			`problemType: expected SingleLabel, MultiLabel or Regression, found "Ranking"`,
		},
		{
			"another word in config.json", vit, with(4, problem(`"ranking"`, 4)), "", "",
			`config.json: problem_type: expected single_label_classification, multi_label_classification or regression, ` +
				`found "ranking"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := loadOn(t, c.base, c.a, peft.Settings{ProblemType: c.set})
			if c.err != "" {
				expectError(t, err, c.err)
				return
			}
			if err != nil || a.Problem != c.want {
				t.Errorf("expected %s, found %+v, %v", c.want, a, err)
			}
		})
	}
}
