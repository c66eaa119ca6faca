package protocol

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// A shape is a stranger's word: it cannot stand for more than the data beside it.
func TestShapesBeyondTheirData(t *testing.T) {
	for _, c := range []struct {
		shape []int
		data  string
		ok    bool
	}{
		{[]int{2, 2}, "[1,2,3,4]", true},
		{[]int{2, 2}, "[[1,2],[3,4]]", true},
		{[]int{2}, `["",""]`, true},
		{[]int{2, 3}, "[1,2,3,4]", false},
		{[]int{1, 3, math.MaxInt32, math.MaxInt32}, "[1]", false},
		{[]int{16, 3, 1 << 30, 1 << 30}, "[]", false}, // whose product is 0 in 64 bits
	} {
		err := (&Tensor{Name: "x", Data: JSON(c.data)}).Holds(c.shape)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "data: expected ") {
			t.Errorf("%v of %s: expected it to be taken: %t, found %v", c.shape, c.data, c.ok, err)
		}
	}
}

// Objects of very many members are refused before they are read: text is none.
func TestObjectsOfManyMembers(t *testing.T) {
	var names strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&names, `"a%d":0,`, i)
	}
	for _, data := range []string{"[{" + names.String() + `"b":1}]`, `[{"` + `\\":0,` + names.String() + `"b":1}]`} {
		_, err := Decode([]byte(`{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":`+data+`}]}`), AllJSON)
		if err == nil || !strings.Contains(err.Error(), "thousands of them") {
			t.Errorf("expected it to be refused, found %v", err)
		}
	}
	text := strings.Repeat(`a: \"b\": `, 5000) + `\\`
	_, err := Decode([]byte(
		`{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["`+text+`"]}]}`), AllJSON)
	if err != nil {
		t.Errorf("a text: %v", err)
	}
	for _, unfinished := range []string{`"`, `"\"`, `{"a`, `:"`} {
		if tooManyMembers([]byte(unfinished)) {
			t.Errorf("%s: expected few members", unfinished)
		}
	}
}
