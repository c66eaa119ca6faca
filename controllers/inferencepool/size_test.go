package inferencepool

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/condition"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// vitBase is google/vit-base-patch16-224.
func vitBase(t *testing.T) *arch.Description {
	t.Helper()
	return describe(t, `{"model_type": "vit", "num_labels": 1000}`)
}

// describe is a base with all that its config.json lets it have.
func describe(t *testing.T, config string) *arch.Description {
	t.Helper()
	names, err := arch.Tensors([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	d, err := arch.Parse([]byte(config), names)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// As long as the model is not known, pods keep the memory limit that they have.
func TestALimitWaitsUntilTheModelIsKnown(t *testing.T) {
	pods := rollout(2, 2)
	pods.Spec.Template.Spec.Containers = []corev1.Container{{
		Name: "runtime", Args: []string{"agent", "--dtype=float32"},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}},
	}}
	for _, c := range []struct {
		what       string
		limit      string
		model      *artifact.BaseModel
		deployment *appsv1.Deployment
		waits      bool
	}{
		{"another limit, the model unknown", "1Gi", nil, pods, true},
		{"no pods yet, the model unknown", "1Gi", nil, nil, true},
		{"the same limit, the model unknown", "2Gi", nil, pods, false},
		{"the same limit in other words", "2048Mi", nil, pods, false},
		{"no limit", "", nil, pods, false},
		{"another limit, the model known", "1Gi", &artifact.BaseModel{Description: vitBase(t)}, pods, false},
	} {
		s := &scope{
			pool:  wrappers.Pool("demo", "digits").Limits(512, "1Gi").MemoryLimit(c.limit).Obj(),
			model: c.model, deployment: c.deployment,
		}
		if waits := s.unjudged(); waits != c.waits {
			t.Errorf("%s: expected %t, found %t", c.what, c.waits, waits)
		}
	}
	other := wrappers.Pool("demo", "digits").DType(v1alpha1.DTypeBFloat16).MemoryLimit("2Gi").Obj()
	if s := (&scope{pool: other, deployment: pods}); !s.unjudged() {
		t.Error("the same limit for a model kept in another way: expected to wait, found that it does not")
	}
}

// What pods keep as bfloat16 takes half the memory, but for norms and biases: the status and the least limit follow the
// spec.
func TestTheSizeFollowsTheDType(t *testing.T) {
	texts := describe(t, `{"model_type": "modernbert", "vocab_size": 256000}`) // mmBERT's vocabulary
	sizes := map[v1alpha1.DType]int64{}
	for dtype, said := range map[v1alpha1.DType]string{
		v1alpha1.DTypeFloat32:  "the base model takes 1174Mi, ",
		v1alpha1.DTypeBFloat16: "the base model takes 587Mi, ",
	} {
		s := &scope{
			pool:  wrappers.Pool("demo", "texts").DType(dtype).Limits(512, "1Gi").MemoryLimit("1Gi").Obj(),
			model: &artifact.BaseModel{Description: texts}, now: now,
			outcome: &attempt.Outcome[v1alpha1.ResolvedBaseModel]{
				Result: v1alpha1.ResolvedBaseModel{Digest: "sha256:base"},
			},
		}
		if why := s.tooSmall(); !strings.Contains(why, said) {
			t.Errorf("%s: expected %q, found %q", dtype, said, why)
		}
		sizes[dtype] = s.status().BaseModel.SizeBytes
		s.pool.Status, s.model = s.status(), nil
		if again := s.status().BaseModel.SizeBytes; again != sizes[dtype] {
			t.Errorf("%s: the model unknown: expected %d as before, found %d", dtype, sizes[dtype], again)
		}
	}
	whole, half := sizes[v1alpha1.DTypeFloat32], sizes[v1alpha1.DTypeBFloat16]
	if half < whole/2 || half > whole/2+whole/1000 {
		t.Errorf("expected half of %d and little more, found %d", whole, half)
	}
}

// What is said to be the least limit is enough, and a mebibyte less is not; each number of the sum is named.
func TestTooSmall(t *testing.T) {
	for _, c := range []struct {
		name, config string
		base         string // its size
		batch        [2]int // mebibytes, from and to
		requests     string // mebibytes
	}{
		{"google/vit-base-patch16-224", `{"model_type": "vit", "num_labels": 1000}`, "331Mi", [2]int{240, 280}, "576"},
		// 32 rows of 512 tokens.
		{"google-bert/bert-base-uncased", `{"model_type": "bert"}`, "418Mi", [2]int{520, 590}, "384"},
		// 32 rows of 8192 tokens would be 16 GiB: a batch has two of them.
		{"answerdotai/ModernBERT-base", `{"model_type": "modernbert"}`, "571Mi", [2]int{550, 620}, "384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			model := describe(t, c.config)
			outcome := &attempt.Outcome[v1alpha1.ResolvedBaseModel]{
				Result: v1alpha1.ResolvedBaseModel{Digest: "sha256:base"},
			}
			of := func(limit, adapters string) *scope {
				pool := wrappers.Pool("demo", "digits").Limits(512, adapters).MemoryLimit(limit).Obj()
				return &scope{pool: pool, outcome: outcome, model: &artifact.BaseModel{Description: model}}
			}
			if why := of("", "100Gi").tooSmall(); why != "" {
				t.Errorf("no limit: expected nothing, found %q", why)
			}
			expected := regexp.MustCompile(`expected at least (\d+)Mi, found 1Gi: the base model takes ` + c.base + `, ` +
				`adapters may take 2Gi \(spec.adapters.memory\), a batch of 32 rows (\d+)Mi, ` +
				`requests ` + c.requests + `Mi and the process itself 64Mi, and a tenth stays free$`)
			why := of("1Gi", "2Gi").tooSmall()
			found := expected.FindStringSubmatch(why)
			if found == nil {
				t.Fatalf("expected %s, found %q", expected, why)
			}
			t.Log(why)
			enough, batch := number(t, found[1]), number(t, found[2])
			if batch < c.batch[0] || batch > c.batch[1] {
				t.Errorf("a batch: expected %d to %d MiB, found %d", c.batch[0], c.batch[1], batch)
			}
			if why := of(found[1]+"Mi", "2Gi").tooSmall(); why != "" {
				t.Errorf("the least limit: expected nothing, found %q", why)
			}
			if why := of(strconv.Itoa(enough-1)+"Mi", "2Gi").tooSmall(); !strings.Contains(why, "at least "+found[1]+"Mi") {
				t.Errorf("a mebibyte less: expected that %sMi is needed, found %q", found[1], why)
			}
			if why := of("1Gi", "256Mi").tooSmall(); !strings.Contains(why, "adapters may take 256Mi") {
				t.Errorf("less for adapters: found %q", why)
			}
			if why := of("2560Mi", "256Mi").tooSmall(); why != "" {
				t.Errorf("less for adapters and a larger limit: expected nothing, found %q", why)
			}
		})
	}
}

// Each instance of the base's tokenizer has a vocabulary of its own.
func TestTheTokenizersOfAPodAreCounted(t *testing.T) {
	vocab := strings.Repeat("word\n", 10) // which are one
	tokenizer, err := peft.ReadVocabulary(strings.NewReader(vocab))
	if err != nil {
		t.Fatal(err)
	}
	texts := describe(t, `{"model_type": "bert"}`)
	of := func(model *artifact.BaseModel) *scope {
		pool := wrappers.Pool("demo", "texts").Limits(512, "1Gi").MemoryLimit("1Gi").Obj()
		return &scope{pool: pool, model: model, outcome: &attempt.Outcome[v1alpha1.ResolvedBaseModel]{
			Result: v1alpha1.ResolvedBaseModel{Digest: "sha256:base"},
		}}
	}
	with := of(&artifact.BaseModel{Description: texts, Tokenizer: tokenizer})
	without := of(&artifact.BaseModel{Description: texts})
	if want := 2*tokenizer.Memory(64<<10) + 5 + tokenizerCode; with.tokenizers() != want || without.tokenizers() != 0 {
		t.Errorf("expected %d bytes and none, found %d and %d", want, with.tokenizers(), without.tokenizers())
	}
	const said = ", 2 instances of its tokenizer 161Mi, requests 384Mi and the process itself 64Mi"
	if why := with.tooSmall(); !strings.Contains(why, said) {
		t.Errorf("expected %q, found %q", said, why)
	}
	if why := without.tooSmall(); why == "" || strings.Contains(why, "tokenizer") {
		t.Errorf("a base without one: found %q", why)
	}
}

func number(t *testing.T, digits string) int {
	t.Helper()
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// As long as the manager has not read the base again it neither takes back nor makes up what it said.
func TestTooSmallAfterARestartOfTheManager(t *testing.T) {
	s := scope{pool: wrappers.Pool("demo", "digits").Base("sha256:base", "ViT").MemoryLimit("1Mi").Obj(), now: now}
	if why := s.tooSmall(); why != "" {
		t.Errorf("expected nothing, found %q", why)
	}
	s.set(&s.pool.Status, condition.New(v1alpha1.ConditionReady, false, v1alpha1.ReasonResourcesTooSmall, "as before"))
	if why := s.tooSmall(); why != "as before" {
		t.Errorf("expected what was said before, found %q", why)
	}
	s.model = &artifact.BaseModel{Description: vitBase(t)}
	if why := s.tooSmall(); !strings.Contains(why, "found 1Mi") {
		t.Errorf("expected what is so, found %q", why)
	}
}
