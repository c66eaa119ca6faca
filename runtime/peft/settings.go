package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// maxSettings is room for arch.MaxLabels names of some length.
const maxSettings = 4 << 20

// Settings are what else than its files changes an adapter's answers. They are part of its revision.
type Settings struct {
	// ClassNames of the head, in the order of its outputs; none leaves them to config.json beside the adapter.
	ClassNames []string `json:"classNames,omitempty"`
	// ProblemType is what the outputs mean; "" leaves it to config.json beside the adapter.
	ProblemType arch.Problem `json:"problemType,omitempty"`
}

// JSON is the settings in their canonical form, {"classNames":["even","odd"]}, or {} for none. Its bytes are part of
// identities: the same settings give the same bytes for ever.
func (s Settings) JSON() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a name as "a<b" stays readable in the registry
	if err := enc.Encode(s); err != nil {
		panic(err) // unreachable: strings always marshal
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// ParseSettings reads what JSON wrote, and nothing else: other bytes for the same settings would be another identity.
func ParseSettings(raw []byte) (Settings, error) {
	if len(raw) > maxSettings {
		return Settings{}, fmt.Errorf("settings: expected at most %d bytes, found %d", maxSettings, len(raw))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var s Settings
	if err := dec.Decode(&s); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Settings{}, fmt.Errorf("settings: expected a JSON object of known fields: %s", quote.Text(err.Error()))
	}
	if canonical := s.JSON(); !bytes.Equal(raw, canonical) {
		return Settings{}, fmt.Errorf("settings: expected the canonical form %s, found %s",
			quote.Name(string(canonical)), quote.Name(string(raw)))
	}
	return s, s.check()
}

// check refuses names that JSON would change, or that are too many.
func (s Settings) check() error {
	if n := len(s.ClassNames); n > arch.MaxLabels {
		return fmt.Errorf("classNames: expected at most %d, found %d", arch.MaxLabels, n)
	}
	for i, name := range s.ClassNames {
		if !utf8.ValidString(name) {
			return fmt.Errorf("classNames: expected UTF-8, found %s at %d", quote.Name(name), i)
		}
	}
	switch s.ProblemType {
	case "", arch.SingleLabel, arch.MultiLabel, arch.Regression:
		return nil
	}
	return fmt.Errorf("problemType: expected %s, %s or %s, found %s",
		arch.SingleLabel, arch.MultiLabel, arch.Regression, quote.Name(string(s.ProblemType)))
}
