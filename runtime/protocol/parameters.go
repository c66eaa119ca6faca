package protocol

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Parameters are named values of a request, an input or an output, each as its JSON is. In JSON they are at most
// MaxMembers.
type Parameters map[string]jsontext.Value

// Only names a parameter that would be ignored.
func (p Parameters) Only(where string, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(p)) { // so that the same request names the same one
		if !slices.Contains(known, name) {
			return Errorf("%s: parameter %s is not supported", where, quote.Name(name))
		}
	}
	return nil
}

// Timeout reads a request's own; 0 is none.
func (p Parameters) Timeout() (time.Duration, error) {
	said, ok := p[Timeout]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(said), 10, 32)
	if err != nil {
		return 0, Errorf("%s: %s: expected a number of microseconds, found %s", TheRequest, Timeout, quote.Text(string(said)))
	}
	return time.Duration(n) * time.Microsecond, nil
}

// Size reads how many bytes of binary data are an input's, if it says so.
func (p Parameters) Size(where string) (size uint64, said bool, err error) {
	text, said := p[BinarySize]
	if !said {
		return 0, false, nil
	}
	if size, err = strconv.ParseUint(string(text), 10, 63); err != nil {
		err = Errorf("%s: %s: expected a number of bytes, found %s", where, BinarySize, quote.Text(string(text)))
	}
	return size, true, err
}

// flag reads a parameter that is true or false, or not there.
func (p Parameters) flag(where, name string, absent bool) (bool, error) {
	switch said := string(p[name]); said {
	case "":
		return absent, nil
	case "true", "false":
		return said == "true", nil
	default:
		return false, Errorf("%s: %s: expected true or false, found %s", where, name, quote.Text(said))
	}
}

// UnmarshalJSONFrom fails at the first parameter beyond the bound.
func (p *Parameters) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if err := open(dec, '{', "an object"); err != nil {
		return err
	}
	*p = make(Parameters)
	for dec.PeekKind() != '}' {
		if len(*p) == MaxMembers {
			return fmt.Errorf("expected at most %d members, found more", MaxMembers)
		}
		var name string
		if err := json.UnmarshalDecode(dec, &name); err != nil {
			return err
		}
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		(*p)[name] = value.Clone()
	}
	_, err := dec.ReadToken()
	return err
}
