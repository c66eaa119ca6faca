package condition_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/controllers/condition"
)

func TestATransitionIsTimedAndNothingElse(t *testing.T) {
	early, late := metav1.NewTime(time.Unix(100, 0)), metav1.NewTime(time.Unix(200, 0))
	var list []metav1.Condition
	condition.Set(&list, 1, early, condition.New("Ready", false, "Loading", "one of two"))
	before := list[0]
	condition.Set(&list, 2, late, condition.New("Ready", false, "Loading", "two of three"))
	if c := list[0]; c.LastTransitionTime != early || c.ObservedGeneration != 2 || c.Message != "two of three" {
		t.Errorf("still False: expected its first time and the new message, found %+v", c)
	}
	condition.Set(&list, 2, late, condition.New("Ready", true, "Serving", ""))
	if c := list[0]; c.LastTransitionTime != late || c.Status != metav1.ConditionTrue {
		t.Errorf("now True: expected the time of now, found %+v", c)
	}
	again := condition.Since([]metav1.Condition{before}, condition.New("Ready", false, "Loading", ""))
	if again.LastTransitionTime != early {
		t.Errorf("taken out and put back: expected its former time, found %v", again.LastTransitionTime)
	}
	if fresh := condition.Since(nil, condition.New("Ready", true, "Serving", "")); !fresh.LastTransitionTime.IsZero() {
		t.Errorf("never there before: expected no time yet, found %v", fresh.LastTransitionTime)
	}
}

func TestMessagesAreCutBetweenRunes(t *testing.T) {
	var list []metav1.Condition
	condition.Set(&list, 1, metav1.Now(), condition.New("Ready", false, "Loading", strings.Repeat("é", 2000)))
	if m := list[0].Message; len(m) > 1024 || !utf8.ValidString(m) || !strings.HasSuffix(m, "é…") {
		t.Errorf("expected at most 1024 bytes of whole runes, found %d ending in %q", len(m), m[len(m)-8:])
	}
	if got := condition.Cut("short", 5); got != "short" {
		t.Errorf("expected it whole, found %q", got)
	}
}
