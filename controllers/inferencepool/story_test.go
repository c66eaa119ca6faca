package inferencepool

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/condition"
)

// The story of a pool, told by its conditions: "resolved, ready" as they become, and what is told then.
func TestStory(t *testing.T) {
	is := func(base, ready string) *v1alpha1.InferencePool {
		p := &v1alpha1.InferencePool{}
		for kind, reason := range map[string]string{
			v1alpha1.ConditionBaseModelResolved: base, v1alpha1.ConditionReady: ready,
		} {
			holds := reason == v1alpha1.ReasonResolved || reason == v1alpha1.ReasonServing
			condition.Set(&p.Status.Conditions, 1, metav1.Now(), condition.New(kind, holds, reason, "because"))
		}
		return p
	}
	before := &v1alpha1.InferencePool{}
	for _, c := range []struct{ base, ready, want string }{
		{"Resolving", "Resolving", ""},
		{"SourceNotFound", "SourceNotFound", "!SourceNotFound"},
		{"SourceNotFound", "SourceNotFound", ""},
		{"Resolved", "RollingOut", "Resolved"},
		{"Resolved", "NoPods", ""},
		{"Resolved", "Serving", "Serving"},
		{"Resolved", "RollingOut", ""},
		{"Resolved", "Serving", "Serving"},
		{"Resolved", "NameTaken", "!NameTaken"},
		{"Resolved", "ResourcesTooSmall", "!ResourcesTooSmall"},
		{"SourceInvalid", "ResourcesTooSmall", "!SourceInvalid"},
	} {
		after := is(c.base, c.ready)
		var found []string
		for _, e := range story(before, after) {
			mark := ""
			if e.Warning {
				mark = "!"
			}
			found = append(found, mark+e.Reason)
		}
		if got := strings.Join(found, " "); got != c.want {
			t.Errorf("%s, %s: expected %q, found %q", c.base, c.ready, c.want, got)
		}
		before = after
	}
}
