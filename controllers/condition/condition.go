// Package condition sets metav1 conditions as every status here does: with the generation they speak of, a bounded
// message, and the time of their last transition. It knows no kind and no clock; both come in by parameter.
package condition

import (
	"unicode/utf8"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxMessage bounds a message, in bytes: a status is read by people and kept by the API server.
const maxMessage = 1024

// New is a condition that is True or False.
func New(kind string, is bool, reason, message string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message}
	if is {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// Set puts conditions into a list, as of a generation. One that brings no time of its last transition keeps the time of
// the one before it while its status is the same.
func Set(list *[]metav1.Condition, generation int64, now metav1.Time, conditions ...metav1.Condition) {
	for _, c := range conditions {
		c.ObservedGeneration, c.Message = generation, Cut(c.Message, maxMessage)
		if c.LastTransitionTime.IsZero() {
			former := apimeta.FindStatusCondition(*list, c.Type)
			c.LastTransitionTime = now
			if former != nil && former.Status == c.Status {
				c.LastTransitionTime = former.LastTransitionTime
			}
		}
		apimeta.SetStatusCondition(list, c)
	}
}

// Since gives a condition that was taken out of a list the time of its last transition in the list before.
func Since(before []metav1.Condition, c metav1.Condition) metav1.Condition {
	if former := apimeta.FindStatusCondition(before, c.Type); former != nil {
		c.LastTransitionTime = former.LastTransitionTime
	}
	return c
}

// Cut shortens a text to at most n bytes, between runes.
func Cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	n -= len("…")
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
