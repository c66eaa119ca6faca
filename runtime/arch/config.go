package arch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Bounds on what configs may ask for, so that a hostile one costs nothing.
const (
	maxHidden   = 1 << 14
	maxInner    = 1 << 16
	maxLayers   = 256
	maxHeads    = 256
	maxVocab    = 1 << 20
	maxTokens   = 1 << 16
	maxTypes    = 1 << 10
	maxImage    = 1 << 12
	maxPatch    = 1 << 10
	maxChannels = 16
)

// bound is a field of a config and what it may be.
type bound struct {
	name            string
	value, min, max int
}

func checkBounds(bounds ...bound) error {
	for _, b := range bounds {
		if b.value < b.min || b.value > b.max {
			return fmt.Errorf("%s: expected %d to %d, found %d", b.name, b.min, b.max, b.value)
		}
	}
	return nil
}

// activations are the values of hidden_act that runtime/kernels computes.
var activations = []string{"gelu", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "relu", "silu", "swish"}

func checkActivation(field, name string, more ...string) error {
	known := append(slices.Clone(activations), more...)
	if !slices.Contains(known, name) {
		return fmt.Errorf("%s: expected one of %s, found %s", field, strings.Join(known, ", "), quote.Name(name))
	}
	return nil
}

func checkEps(field string, eps float64) error {
	if !(eps >= 0 && eps < 1) {
		return fmt.Errorf("%s: expected 0 to 1, found %g", field, eps)
	}
	return nil
}

func checkHeads(hiddenField string, hidden int, headsField string, heads int) error {
	if hidden%heads != 0 {
		return fmt.Errorf("%s: expected a multiple of %s = %d, found %d", hiddenField, headsField, heads, hidden)
	}
	return nil
}

// pair is a size given as one number or as [height, width].
type pair [2]int

func (p *pair) UnmarshalJSON(raw []byte) error {
	var side int
	if err := json.Unmarshal(raw, &side, numbers); err == nil {
		*p = pair{side, side}
		return nil
	}
	var both []int
	if err := json.Unmarshal(raw, &both, numbers); err != nil || len(both) != 2 {
		return errors.New("not a size") // decode says of which field, and what it takes
	}
	*p = pair{both[0], both[1]}
	return nil
}

// encoder are the fields of the configs of text encoders that change the numbers in ways not computed here: each has to
// say what it says by default.
type encoder struct {
	PositionEmbeddingType *string        `json:"position_embedding_type"`
	IsDecoder             jsontext.Value `json:"is_decoder"`
	AddCrossAttention     jsontext.Value `json:"add_cross_attention"`
	EmbeddingSize         jsontext.Value `json:"embedding_size"`
}

func (e *encoder) check(hidden int) error {
	if p := e.PositionEmbeddingType; p != nil && *p != "absolute" {
		return fmt.Errorf("position_embedding_type: expected absolute, found %s, which is not supported", quote.Name(*p))
	}
	for _, f := range []struct {
		name  string
		value jsontext.Value
	}{{"is_decoder", e.IsDecoder}, {"add_cross_attention", e.AddCrossAttention}} {
		if !isEmpty(f.value) {
			return fmt.Errorf("%s: expected false, found %s", f.name, quote.Text(string(f.value)))
		}
	}
	if size := strings.TrimSpace(string(e.EmbeddingSize)); size != "" && size != "null" && size != strconv.Itoa(hidden) {
		return fmt.Errorf("embedding_size: expected hidden_size = %d, found %s", hidden, quote.Text(size))
	}
	return nil
}
