package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// decode reads JSON of a config.json into a struct. A value of the wrong type is an error that names its field.
func decode(raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	expected := wrong.Type.String()
	switch {
	case wrong.Type == reflect.TypeFor[pair]():
		expected = "a number or [height, width]"
	case wrong.Type.Kind() == reflect.Int:
		expected = "an integer"
	case wrong.Type.Kind() == reflect.Float64:
		expected = "a number"
	case wrong.Type.Kind() == reflect.String:
		expected = "a string"
	case wrong.Type.Kind() == reflect.Bool:
		expected = "true or false"
	case wrong.Type.Kind() == reflect.Slice:
		expected = "a list"
	case wrong.Type.Kind() == reflect.Map, wrong.Type.Kind() == reflect.Struct:
		expected = "an object"
	}
	if wrong.Field == "" {
		return fmt.Errorf("expected %s, found %s", expected, quote.Text(wrong.Value))
	}
	return fmt.Errorf("%s: expected %s, found %s", quote.Text(wrong.Field), expected, quote.Text(wrong.Value))
}

// isEmpty tells whether a field is missing or says nothing: null, false, {} or [].
func isEmpty(raw json.RawMessage) bool {
	switch strings.Join(strings.Fields(string(raw)), "") {
	case "", "null", "false", "{}", "[]":
		return true
	}
	return false
}
