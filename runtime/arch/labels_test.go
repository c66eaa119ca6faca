package arch_test

import (
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

func TestClasses(t *testing.T) {
	for _, c := range []struct {
		raw     string
		labels  []string
		problem arch.Problem
		err     string
	}{
		{`{"id2label": {"1": "b", "0": "a"}}`, []string{"a", "b"}, "", ""},
		{`{"id2label": {"1": "b", "0": "a"}, "num_labels": 2}`, []string{"a", "b"}, "", ""},
		{`{"id2label": {"0": "only"}}`, []string{"only"}, "", ""},
		{`{"num_labels": 3}`, []string{"LABEL_0", "LABEL_1", "LABEL_2"}, "", ""},
		{`{"num_labels": null, "id2label": null, "problem_type": null}`, []string{"LABEL_0", "LABEL_1"}, "", ""},
		{`{}`, []string{"LABEL_0", "LABEL_1"}, "", ""},
		{`{"problem_type": "single_label_classification"}`, []string{"LABEL_0", "LABEL_1"}, arch.SingleLabel, ""},
		{`{"id2label": {"0": "a"}, "problem_type": "multi_label_classification"}`, []string{"a"}, arch.MultiLabel, ""},
		{`{"num_labels": 1, "problem_type": "regression"}`, []string{"LABEL_0"}, arch.Regression, ""},
		{
			`{"id2label": {"0": "a", "1": "b", "3": "c"}}`, nil, "",
			"config.json: id2label: expected the ids 0 to 2, found no 2",
		},
		{`{"id2label": {"1": "a"}}`, nil, "", "config.json: id2label: expected the ids 0 to 0, found no 0"},
		{`{"id2label": {"zero": "a"}}`, nil, "", "config.json: id2label: expected the ids 0 to 0, found no 0"},
		{`{"id2label": {"0": 0, "1": -1, "2": "b"}}`, []string{"0", "-1", "b"}, "", ""},
		{`{"id2label": {"0": 1.5}}`, nil, "", "config.json: id2label.0: expected a string or an integer, found {"},
		{`{"id2label": {"0": true}}`, nil, "", "config.json: id2label.0: expected a string or an integer, found {"},
		{`{"id2label": {"0": null}}`, nil, "", "config.json: id2label: expected a string for 0, found null"},
		{`{"id2label": ["a"]}`, nil, "", "config.json: id2label: expected an object, found ["},
		{
			`{"id2label": {"0": "a"}, "num_labels": 2}`, nil, "",
			"config.json: num_labels: expected 1, as id2label has, found 2",
		},
		{`{"num_labels": 0}`, nil, "", "config.json: num_labels: expected 1 to 65536, found 0"},
		{`{"num_labels": 65537}`, nil, "", "config.json: num_labels: expected 1 to 65536, found 65537"},
		{`{"num_labels": "2"}`, nil, "", "config.json: num_labels: expected an integer, found \"2\""},
		{
			`{"problem_type": "SingleLabel"}`, nil, "", "config.json: problem_type: expected single_label_classification, " +
				`multi_label_classification or regression, found "SingleLabel"`,
		},
		{`{"problem_type": ""}`, nil, "", `config.json: problem_type: expected single_label_classification, `},
		{`{"problem_type": 1}`, nil, "", "config.json: problem_type: expected a string, found 1"},
		{`labels`, nil, "", "config.json: invalid character"},
	} {
		classes, err := arch.ParseClasses([]byte(c.raw))
		if c.err != "" {
			expectError(t, err, c.err)
			continue
		}
		if err != nil || !slices.Equal(classes.Labels, c.labels) || classes.Problem != c.problem {
			t.Errorf("%s: expected %v, %q, found %+v, %v", c.raw, c.labels, c.problem, classes, err)
		}
	}
}

// What nobody has said is as transformers would train it.
func TestDefaultProblem(t *testing.T) {
	for outputs, problem := range map[int]arch.Problem{1: arch.Regression, 2: arch.SingleLabel, 1000: arch.SingleLabel} {
		if found := arch.DefaultProblem(outputs); found != problem {
			t.Errorf("%d outputs: expected %s, found %s", outputs, problem, found)
		}
	}
}
