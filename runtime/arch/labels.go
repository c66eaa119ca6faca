package arch

import (
	"fmt"
	"strconv"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// MaxLabels bounds the classes of one head.
const MaxLabels = 1 << 16

// Labels reads the class names of a config.json, a base's or one saved beside an adapter: id2label, else num_labels
// names of the form LABEL_0, else transformers' default of two. A head whose outputs are not the classes of one choice
// (problem_type) is refused: its outputs would be turned into the wrong answers.
func Labels(raw []byte) ([]string, error) {
	var c struct {
		ID2Label    map[string]*string `json:"id2label"`
		NumLabels   *int               `json:"num_labels"`
		ProblemType *string            `json:"problem_type"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	if p := c.ProblemType; p != nil && *p != "single_label_classification" {
		return nil, fmt.Errorf("config.json: problem_type: expected null or single_label_classification, found %s, "+
			"which is not supported yet", quote.Name(*p))
	}
	if len(c.ID2Label) > MaxLabels {
		return nil, fmt.Errorf("config.json: id2label: expected 1 to %d, found %d", MaxLabels, len(c.ID2Label))
	}
	if len(c.ID2Label) > 0 {
		// transformers never writes both, so where they differ one of them is a mistake.
		if c.NumLabels != nil && *c.NumLabels != len(c.ID2Label) {
			return nil, fmt.Errorf("config.json: num_labels: expected %d, as id2label has, found %d",
				len(c.ID2Label), *c.NumLabels)
		}
		labels := make([]string, len(c.ID2Label))
		for i := range labels {
			label, ok := c.ID2Label[strconv.Itoa(i)]
			if !ok {
				return nil, fmt.Errorf("config.json: id2label: expected the ids 0 to %d, found no %d", len(labels)-1, i)
			}
			if label == nil {
				return nil, fmt.Errorf("config.json: id2label: expected a string for %d, found null", i)
			}
			labels[i] = *label
		}
		return labels, nil
	}
	n := 2
	if c.NumLabels != nil {
		n = *c.NumLabels
	}
	if n < 1 || n > MaxLabels {
		return nil, fmt.Errorf("config.json: num_labels: expected 1 to %d, found %d", MaxLabels, n)
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
