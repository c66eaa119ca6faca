package warm

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
)

// Writes counts what the API server was asked to write since it started, by what was asked:
// "PATCH loraadapters/status".
type Writes map[string]int

// writing are the verbs of the API server's own counter.
var writing = map[string]bool{"POST": true, "PUT": true, "PATCH": true, "APPLY": true, "DELETE": true}

// CountWrites asks the API server.
func CountWrites(ctx context.Context, kube kubernetes.Interface) (Writes, error) {
	raw, err := kube.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics of the API server: %w", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("metrics of the API server: %w", err)
	}
	writes := Writes{}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		label := map[string]string{}
		for _, pair := range metric.GetLabel() {
			label[pair.GetName()] = pair.GetValue()
		}
		if !writing[label["verb"]] {
			continue
		}
		what := label["verb"] + " " + label["resource"]
		if label["subresource"] != "" {
			what += "/" + label["subresource"]
		}
		writes[what] += int(metric.GetCounter().GetValue())
	}
	return writes, nil
}

// Since are the writes that came after those.
func (w Writes) Since(before Writes) Writes {
	more := Writes{}
	for what, n := range w {
		if n > before[what] {
			more[what] = n - before[what]
		}
	}
	return more
}

// Total counts them all, those of leases apart: they are the components' heartbeats.
func (w Writes) Total() (all, leases int) {
	for what, n := range w {
		if strings.HasSuffix(what, " leases") {
			leases += n
			continue
		}
		all += n
	}
	return all, leases
}

// String lists them, the most frequent first.
func (w Writes) String() string {
	var words []string
	for _, what := range slices.SortedFunc(maps.Keys(w), func(a, b string) int {
		if w[a] != w[b] {
			return w[b] - w[a]
		}
		return strings.Compare(a, b)
	}) {
		words = append(words, fmt.Sprintf("%d %s", w[what], what))
	}
	return strings.Join(words, ", ")
}
