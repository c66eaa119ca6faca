package loraadapter

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What was applied while no manager ran is timed from then, not from when a manager came.
func TestApplied(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	wrote := func(after time.Duration, fields string) metav1.ManagedFieldsEntry {
		at := metav1.NewTime(noon.Add(after))
		return metav1.ManagedFieldsEntry{Time: &at, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	for _, c := range []struct {
		name      string
		writes    []metav1.ManagedFieldsEntry
		now, want time.Duration
	}{
		{"created a moment ago", nil, 700 * time.Millisecond, 700 * time.Millisecond},
		{"created a second ago", nil, time.Second, 0},
		{"nobody told when", []metav1.ManagedFieldsEntry{{}}, time.Hour, 0},
		{
			"changed by two", []metav1.ManagedFieldsEntry{
				wrote(0, `{"f:spec":{}}`), wrote(9*time.Minute, `{"f:spec":{}}`), wrote(4*time.Minute, `{"f:spec":{}}`),
			}, time.Hour, 9 * time.Minute,
		},
		{
			"labelled and reported since", []metav1.ManagedFieldsEntry{
				wrote(0, `{"f:spec":{}}`), wrote(5*time.Minute, `{"f:metadata":{}}`), wrote(6*time.Minute, `{"f:status":{}}`),
			}, time.Hour, 0,
		},
		{
			"by a clock that is ahead",
			[]metav1.ManagedFieldsEntry{wrote(time.Minute, `{"f:spec":{}}`)},
			time.Second, time.Second,
		},
	} {
		adapter := wrappers.LoRAAdapter("demo", "parity").Obj()
		adapter.CreationTimestamp, adapter.ManagedFields = metav1.NewTime(noon), c.writes
		if got := applied(adapter, noon.Add(c.now)).Sub(noon); got != c.want {
			t.Errorf("%s: expected %v after noon, found %v", c.name, c.want, got)
		}
	}
}
