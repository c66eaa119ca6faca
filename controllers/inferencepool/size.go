package inferencepool

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
)

const (
	// processBytes is what a runtime takes that serves nothing: 40 MiB, and some to spare.
	processBytes = 64 << 20
	// tokenizerCode is what the tokenizer takes whatever its vocabulary: it is compiled when the pod starts.
	tokenizerCode = 64 << 20
	// heapPercent of a pod's memory limit is what the runtime may take, weights and Go's heap together (GOMEMLIMIT): near
	// it garbage is collected more often. The rest is for what nobody counts.
	heapPercent = 90
)

// memoryLimit is that of the pods' container; 0 is none.
func memoryLimit(pool *v1alpha1.InferencePool) int64 {
	return pool.Spec.Template.Resources.Limits.Memory().Value()
}

// goMemoryLimit is how much of a pod's memory limit the runtime may use.
func goMemoryLimit(limit int64) int64 { return limit / 100 * heapPercent }

// tooSmall says why the pods' memory limit cannot hold what they may be asked to hold at once; "" if it can, or there
// is none. As long as the model is not known, as after a restart of the manager, what was said before holds.
func (s *scope) tooSmall() string {
	base, _, _ := s.base()
	limit := memoryLimit(s.pool)
	if limit == 0 || base.Digest == "" {
		return ""
	}
	if s.model == nil {
		ready := apimeta.FindStatusCondition(s.pool.Status.Conditions, v1alpha1.ConditionReady)
		if ready != nil && ready.Reason == v1alpha1.ReasonResourcesTooSmall {
			return ready.Message
		}
		return ""
	}
	adapters := placement.LimitsOf(s.pool).Bytes
	batch := s.model.BatchBytes(arch.MaxBatchRows, int(maxRank(s.pool)))
	texts := s.tokenizers()
	requests := s.requests()
	sum := base.SizeBytes + adapters + batch + texts + requests + processBytes
	if goMemoryLimit(limit) >= sum {
		return ""
	}
	instances := ""
	if texts > 0 {
		instances = fmt.Sprintf(", %d instances of its tokenizer %s", arch.MaxTokenizers, mebibytes(texts))
	}
	return fmt.Sprintf("spec.template.resources.limits.memory: expected at least %s, found %s: the base model takes %s, "+
		"adapters may take %s (spec.adapters.memory), a batch of %d rows %s%s, "+
		"requests %s and the process itself %s, and a tenth stays free",
		mebibytes(least(sum)), mebibytes(limit), mebibytes(base.SizeBytes), mebibytes(adapters),
		arch.MaxBatchRows, mebibytes(batch), instances, mebibytes(requests), mebibytes(processBytes))
}

// requests is what requests may take beside the batch that is computed, with the images that are decoded.
func (s *scope) requests() int64 {
	if s.model.Image == nil {
		return arch.RequestBytes
	}
	return arch.RequestBytes + arch.DecodingBytes
}

// tokenizers is what the instances of the base's tokenizer may take, with the file that they are made of; 0 where it
// has none. Their number does not depend on CPUs: Go counts on two at least.
func (s *scope) tokenizers() int64 {
	if s.model.Tokenizer == nil {
		return 0
	}
	text := tokenfiles.MaxText(s.model.Text.MaxTokens)
	return arch.MaxTokenizers*s.model.Tokenizer.Memory(text) + s.model.Tokenizer.File + tokenizerCode
}

// unjudged tells whether the memory limit may be too small for all that is known: the pods have another, or keep the
// model in another way, and it is not known yet, as after a restart of the manager.
func (s *scope) unjudged() bool {
	limit := memoryLimit(s.pool)
	if s.model != nil || limit == 0 {
		return false
	}
	return s.deployment == nil || !slices.ContainsFunc(s.deployment.Spec.Template.Spec.Containers,
		func(c corev1.Container) bool {
			return c.Resources.Limits.Memory().Value() == limit && slices.Contains(c.Args, flagDType+string(dtype(s.pool)))
		})
}

// least is the smallest limit, in whole mebibytes, that leaves Go so much.
func least(bytes int64) int64 {
	const mebibyte = 1 << 20
	limit := (bytes/heapPercent*100 + mebibyte - 1) / mebibyte * mebibyte
	for goMemoryLimit(limit) < bytes {
		limit += mebibyte
	}
	return limit
}

// mebibytes is a size as a quantity that a spec takes, rounded up.
func mebibytes(n int64) string {
	const mebibyte = 1 << 20
	return resource.NewQuantity((n+mebibyte-1)/mebibyte*mebibyte, resource.BinarySI).String()
}

func maxRank(pool *v1alpha1.InferencePool) int32 {
	if n := pool.Spec.Adapters.MaxRank; n != nil {
		return *n
	}
	return 64 // as the API server fills it in
}
