package arch

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// MaxLabels bounds the classes of one head.
const MaxLabels = 1 << 16

// Problem is what a head's outputs mean, in the words of the API's problemType.
type Problem string

// The problems.
const (
	SingleLabel Problem = "SingleLabel" // one class of several: softmax
	MultiLabel  Problem = "MultiLabel"  // each class or not: sigmoid
	Regression  Problem = "Regression"  // numbers
)

// problems are transformers' names (problem_type of a config).
var problems = map[string]Problem{
	"single_label_classification": SingleLabel,
	"multi_label_classification":  MultiLabel,
	"regression":                  Regression,
}

// Classes are what a head's outputs are called, and what they mean.
type Classes struct {
	Labels  []string
	Problem Problem // "" where the config does not say
}

// label is the name of a class: a string, or a number, which is called as Python writes it.
type label string

func (l *label) UnmarshalJSON(raw []byte) error {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		*l = label(name)
		return nil
	}
	var n int64
	if json.Unmarshal(raw, &n, numbers) != nil {
		return errors.New("not a label") // decode says of which class, and what it may be
	}
	*l = label(strconv.FormatInt(n, 10))
	return nil
}

// ParseClasses reads what a config.json, a base's or one saved beside an adapter, says of the classes: id2label, else
// num_labels names of the form LABEL_0, else transformers' default of two; and problem_type.
func ParseClasses(raw []byte) (Classes, error) {
	var c struct {
		ID2Label    map[string]*label `json:"id2label"`
		NumLabels   *int              `json:"num_labels"`
		ProblemType *string           `json:"problem_type"`
	}
	if err := decode(raw, &c); err != nil {
		return Classes{}, fmt.Errorf("config.json: %w", err)
	}
	labels, err := labelsOf(c.ID2Label, c.NumLabels)
	if err != nil {
		return Classes{}, fmt.Errorf("config.json: %w", err)
	}
	classes := Classes{Labels: labels}
	if p := c.ProblemType; p != nil {
		var ok bool
		if classes.Problem, ok = problems[*p]; !ok {
			return Classes{}, fmt.Errorf("config.json: problem_type: expected single_label_classification, "+
				"multi_label_classification or regression, found %s", quote.Name(*p))
		}
	}
	return classes, nil
}

func labelsOf(id2label map[string]*label, numLabels *int) ([]string, error) {
	if len(id2label) > MaxLabels {
		return nil, fmt.Errorf("id2label: expected 1 to %d, found %d", MaxLabels, len(id2label))
	}
	if len(id2label) > 0 {
		// transformers never writes both, so where they differ one of them is a mistake.
		if numLabels != nil && *numLabels != len(id2label) {
			return nil, fmt.Errorf("num_labels: expected %d, as id2label has, found %d", len(id2label), *numLabels)
		}
		labels := make([]string, len(id2label))
		for i := range labels {
			name, ok := id2label[strconv.Itoa(i)]
			if !ok {
				return nil, fmt.Errorf("id2label: expected the ids 0 to %d, found no %d", len(labels)-1, i)
			}
			if name == nil {
				return nil, fmt.Errorf("id2label: expected a string for %d, found null", i)
			}
			labels[i] = string(*name)
		}
		return labels, nil
	}
	n := 2
	if numLabels != nil {
		n = *numLabels
	}
	if n < 1 || n > MaxLabels {
		return nil, fmt.Errorf("num_labels: expected 1 to %d, found %d", MaxLabels, n)
	}
	return DefaultLabels(n), nil
}

// DefaultLabels are the names of n classes nobody has named: LABEL_0, LABEL_1 and so on.
func DefaultLabels(n int) []string {
	labels := make([]string, n)
	for i := range labels {
		labels[i] = "LABEL_" + strconv.Itoa(i)
	}
	return labels
}

// DefaultProblem is what n outputs mean of which nobody has said it: a single one is a regression's, as transformers
// trains it.
func DefaultProblem(n int) Problem {
	if n == 1 {
		return Regression
	}
	return SingleLabel
}
