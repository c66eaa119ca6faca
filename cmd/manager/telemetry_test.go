package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// scrape reads the manager's metrics, each series by its name and labels as they are written.
func scrape(t *testing.T) map[string]float64 {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, metricsURL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	found := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "} "); ok {
			found[name+"}"], _ = strconv.ParseFloat(value, 64)
		} else if name, value, ok := strings.Cut(lines.Text(), " "); ok && name != "#" {
			found[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("metrics: status %d, %v", response.StatusCode, err)
	}
	return found
}

// Right after something has happened the manager's metrics say so.
func TestMetricsTellWhatHappened(t *testing.T) {
	s := newSpace(t)
	before := scrape(t)
	s.create(s.pool("digits").Obj(), s.lora("good", "parity"), s.lora("bad", "base"), s.lora("nowhere", "nowhere"))
	s.runPods("digits", 1)
	s.untilAdapter("good", "True Serving")
	s.untilAdapter("bad", "False SourceInvalid")
	s.untilAdapter("nowhere", "False SourceNotFound")
	s.untilPool("digits", "True Serving")
	for series, want := range map[string]string{
		`switchyard_artifacts_stored_total{kind="adapter"}`:                                  "1 more",
		`switchyard_artifacts_stored_total{kind="base"}`:                                     "1 more",
		`switchyard_refusals_total{kind="adapter",reason="SourceInvalid"}`:                   "1 more",
		`switchyard_refusals_total{kind="adapter",reason="SourceNotFound"}`:                  "1 more",
		`switchyard_adapter_ready_seconds_count`:                                             "1 more",
		`switchyard_adapter_ready_seconds_bucket{le="+Inf"}`:                                 "1 more",
		`switchyard_adapters{namespace="` + s.namespace + `",pool="digits",state="ready"}`:   "1 more",
		`switchyard_adapters{namespace="` + s.namespace + `",pool="digits",state="failed"}`:  "2 more",
		`switchyard_adapters{namespace="` + s.namespace + `",pool="digits",state="pending"}`: "0 more",
		`switchyard_attempts{kind="adapter",state="running"}`:                                "0 more",
	} {
		s.until(series, func() string { return fmt.Sprintf("%v more", scrape(t)[series]-before[series]) }, want)
	}
	now := scrape(t)
	if took := now["switchyard_adapter_ready_seconds_sum"] - before["switchyard_adapter_ready_seconds_sum"]; took <= 0 {
		t.Errorf("expected some time until it was Ready, found %v s", took)
	}
	if bytes := now[`switchyard_artifact_bytes_total{kind="adapter"}`] -
		before[`switchyard_artifact_bytes_total{kind="adapter"}`]; bytes < 50_000 {
		t.Errorf("expected the bytes of the sample, found %v", bytes)
	}
	if now[`controller_runtime_reconcile_total{controller="loraadapter",result="success"}`] == 0 {
		t.Error("expected controller-runtime's own metrics, found none of reconciles")
	}
}

// What `kubectl describe` shows of an adapter and its pool reads as their stories.
func TestEventsTellTheStory(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	s.runPods("digits", 1)
	digest := s.untilAdapter("parity", "True Serving").Status.TargetRevision.Digest
	for object, want := range map[string]map[string]string{
		"parity": {
			"Normal Resolved Resolve": "is stored as " + digest, "Normal Serving Serve": "every ready pod serves " + digest,
		},
		"digits": {
			"Normal Resolved Resolve": "ViTForImageClassification, stored as ", "Normal Serving Serve": "all 1 pods are ready",
		},
	} {
		for what, words := range want {
			s.until(object, func() string {
				var list corev1.EventList
				if err := admin.List(s.ctx, &list, client.InNamespace(s.namespace)); err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, e := range list.Items {
					if e.InvolvedObject.Name == object && e.Type+" "+e.Reason+" "+e.Action == what &&
						strings.Contains(e.Message, words) {
						n += max(1, int(e.Count))
					}
				}
				return fmt.Sprintf("%d times %s: %s", n, what, words)
			}, fmt.Sprintf("1 times %s: %s", what, words))
		}
	}
}
