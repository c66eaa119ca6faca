package loraadapter

import (
	"testing"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// What the spec says of the classes goes into the revision, in the words of the runtime.
func TestSettings(t *testing.T) {
	for problem, want := range map[v1alpha1.ProblemType]arch.Problem{
		"": "", v1alpha1.ProblemSingleLabel: arch.SingleLabel, v1alpha1.ProblemMultiLabel: arch.MultiLabel,
		v1alpha1.ProblemRegression: arch.Regression,
	} {
		got := settingsOf(wrappers.LoRAAdapter("demo", "parity").ClassNames("even", "odd").ProblemType(problem).Obj())
		if got.ProblemType != want || len(got.ClassNames) != 2 || got.ClassNames[1] != "odd" {
			t.Errorf("%q: expected %q with the names even and odd, found %+v", problem, want, got)
		}
		if _, err := peft.ParseSettings(got.JSON()); err != nil {
			t.Errorf("%q: what the pods are to read: %v", problem, err)
		}
	}
}

// Another of what an outcome depends on is another errand; the same is the same.
func TestTheInputOfAnErrand(t *testing.T) {
	adapter := wrappers.LoRAAdapter("demo", "parity").Obj()
	adapter.UID = "one"
	of := func(change func(*errand)) string {
		e := errand{from: source.Spec{}, repo: "demo/digits", base: "sha256:base", maxRank: 64}
		e.settings = peft.Settings{ClassNames: []string{"even", "odd"}}
		change(&e)
		return e.input(adapter)
	}
	same := of(func(*errand) {})
	if again := of(func(*errand) {}); again != same {
		t.Errorf("the same: expected %s, found %s", same, again)
	}
	if known := of(func(e *errand) { e.known = &v1alpha1.Revision{} }); known != same {
		t.Errorf("what is known of it: expected no difference, found %s for %s", known, same)
	}
	for name, change := range map[string]func(*errand){
		"class names":  func(e *errand) { e.settings.ClassNames = []string{"odd", "even"} },
		"problem type": func(e *errand) { e.settings.ProblemType = arch.MultiLabel },
		"repository":   func(e *errand) { e.repo = "demo/other" },
		"base":         func(e *errand) { e.base = "sha256:other" },
		"rank":         func(e *errand) { e.maxRank = 8 },
	} {
		if other := of(change); other == same {
			t.Errorf("another %s: expected another input, found %s", name, other)
		}
	}
	adapter.UID = "two"
	if other := of(func(*errand) {}); other == same {
		t.Errorf("another object of the name: expected another input, found %s", other)
	}
}
