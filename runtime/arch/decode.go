package arch

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// numbers refuses null where a number is wanted, which would be read as 0, and may be one that is allowed. A field that
// may be null is a pointer.
var numbers = json.WithUnmarshalers(json.JoinUnmarshalers(
	json.UnmarshalFromFunc(noNull[int]), json.UnmarshalFromFunc(noNull[float64])))

func noNull[N int | float64](dec *jsontext.Decoder, _ *N) error {
	if dec.PeekKind() == 'n' {
		return errors.New("null is no number")
	}
	return errors.ErrUnsupported // by the usual way
}

// decode reads JSON of a config.json into a struct. Names are matched to the letter, as transformers does: Hidden_Act
// is not hidden_act. A value of the wrong type is an error that names its field.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into, numbers)
	var malformed *jsontext.SyntacticError
	var wrong *json.SemanticError
	switch {
	case errors.As(err, &malformed):
		return fmt.Errorf("%w at byte %d", malformed.Err, malformed.ByteOffset)
	case !errors.As(err, &wrong):
		return err
	case wrong.JSONPointer == "":
		return fmt.Errorf("expected an object, found %s", quote.Text(string(raw)))
	}
	field, _, _ := strings.Cut(string(wrong.JSONPointer[1:]), "/")
	var fields map[string]jsontext.Value
	_ = json.Unmarshal(raw, &fields) // valid, as far as the field at least
	return fmt.Errorf("%s: expected %s, found %s",
		quote.Text(strings.ReplaceAll(string(wrong.JSONPointer[1:]), "/", ".")), expected(wrong.GoType),
		quote.Text(string(fields[field])))
}

// expected is what a field of that type takes, in words.
func expected(t reflect.Type) string {
	if t == nil {
		return "another value"
	}
	if t == reflect.TypeFor[pair]() {
		return "a number or [height, width]"
	}
	if t == reflect.TypeFor[label]() {
		return "a string or an integer"
	}
	switch t.Kind() { //nolint:exhaustive // the kinds that configs have
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Int:
		return "an integer"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	default:
		return t.String()
	}
}

// isEmpty tells whether a field is missing or says nothing: null, false, {} or [].
func isEmpty(raw jsontext.Value) bool {
	switch strings.Join(strings.Fields(string(raw)), "") {
	case "", "null", "false", "{}", "[]":
		return true
	}
	return false
}
