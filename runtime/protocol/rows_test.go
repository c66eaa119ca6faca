package protocol

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func rows(values ...string) (d Rows) {
	for _, v := range values {
		if v == "" {
			d = append(d, nil)
		} else {
			d = append(d, JSON(v))
		}
	}
	return d
}

// Rows are read as the one list of them is.
func TestRowsAreReadAsTheirList(t *testing.T) {
	pixels := Tensor{Name: "x", Datatype: FP32, Data: rows("[[1, 2],[3,4]]", " [5,6,7,8]")}
	if found, err := pixels.Floats([]int{2, 2, 2}); err != nil || fmt.Sprint(found) != "[1 2 3 4 5 6 7 8]" {
		t.Errorf("floats: found %v, error %v", found, err)
	}
	ids := Tensor{Name: "x", Datatype: INT64, Data: rows("[1,2,3]", "[]", "[ 4 ]")}
	if found, err := ids.Integers([]int{3, 3}); err != nil || fmt.Sprint(found) != "[1 2 3 0 0 0 4 0 0]" {
		t.Errorf("integers: expected short rows to be filled up with zeros, found %v, error %v", found, err)
	}
	texts := Tensor{Name: "x", Datatype: BYTES, Data: rows(`"a\n"`, `"é"`)}
	if found, err := texts.Texts([]int{2}); err != nil || !slices.Equal(found, []string{"a\n", "é"}) {
		t.Errorf("texts: found %q, error %v", found, err)
	}
	names := Tensor{Name: "x", Datatype: BYTES, Data: rows(`["a", "b"]`, `["c", ""]`)}
	if found, err := names.Texts([]int{2, 2}); err != nil || !slices.Equal(found, []string{"a", "b", "c", ""}) {
		t.Errorf("lists of texts: found %q, error %v", found, err)
	}
	blobs := Tensor{Name: "x", Datatype: BYTES, Data: rows(`"AQI="`)}
	if found, err := blobs.Blobs([]int{1}); err != nil || len(found) != 1 || string(found[0]) != "\x01\x02" {
		t.Errorf("blobs: found %q, error %v", found, err)
	}
}

// A text may be missing of a row, and only of one of Rows.
func TestRowsWithoutAText(t *testing.T) {
	some := Tensor{Name: "x", Datatype: BYTES, Data: rows("", `"a"`)}
	found, err := some.OptionalTexts([]int{2})
	if err != nil || len(found) != 2 || found[0] != nil || found[1] == nil || *found[1] != "a" {
		t.Errorf("found %v, error %v", found, err)
	}
	whole := Tensor{Name: "x", Datatype: BYTES, Data: JSON(`["a", "b"]`)}
	if found, err := whole.OptionalTexts([]int{2}); err != nil || *found[0] != "a" || *found[1] != "b" {
		t.Errorf("found %v, error %v", found, err)
	}
	if _, err := (&Tensor{Name: "x", Datatype: BYTES, Data: JSON(`["a", null]`)}).OptionalTexts([]int{2}); err == nil {
		t.Error("null in a list: expected it to be refused")
	}
}

// The row of an error is named, whether an element is wrong or the row as a whole.
func TestBadRows(t *testing.T) {
	read := map[string]func(*Tensor) error{
		FP32:  func(x *Tensor) error { _, err := x.Floats([]int{2, 2, 2}); return err },
		INT64: func(x *Tensor) error { _, err := x.Integers([]int{2, 2}); return err },
		BYTES: func(x *Tensor) error { _, err := x.Texts([]int{2}); return err },
	}
	for _, c := range []struct {
		datatype, bad, message string
	}{
		{FP32, "[1,2,3]", "data: expected 4 elements, flat or in lists nested as the shape [2, 2]"},
		{FP32, "[[1,2],[3]]", "a list of 2 at depth 1, found 1"},
		{FP32, "[[1,2],[3,1e400]]", "expected a finite FP32, found 1e400"},
		{FP32, "3", "data: expected a list, found 3"},
		{INT64, "[1,2,3]", "expected at most 2 elements, found 3"},
		{INT64, "[[1],2]", "data: expected 2 elements, flat"},
		{INT64, "[1.5]", "expected an integer from -2147483648 to 2147483647, found 1.5"},
		{INT64, "{}", "data: expected a list, found {}"},
		{BYTES, "[]", "expected a string, found []"},
		{BYTES, "", "expected a string, found "},
	} {
		good := map[string]string{FP32: "[1,2,3,4]", INT64: "[1]", BYTES: `"a"`}[c.datatype]
		err := read[c.datatype](&Tensor{Name: "x", Datatype: c.datatype, Data: rows(good, c.bad)})
		if err == nil || !strings.HasPrefix(err.Error(), `input "x": row 1: `) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s %s: expected row 1 and %q, found %v", c.datatype, c.bad, c.message, err)
		}
	}
	short := Tensor{Name: "x", Datatype: FP32, Data: rows("[1]", "[2]")}
	for _, shape := range [][]int{{2, 1 << 20}, {3, 1}} {
		if err := short.Holds(shape); err == nil {
			t.Errorf("%v of two rows of one element: expected it to be refused", shape)
		}
	}
}

// nested is so many lists, one in the other.
func nested(depth int) string { return strings.Repeat("[", depth) + "1" + strings.Repeat("]", depth) }

// As deep as the decoder lets lists be, with as much in them as half a megabyte of text: nobody waits for their shape.
func BenchmarkShapeOfDeepLists(b *testing.B) {
	deep := JSON(strings.Replace(nested(9_990), "1", "1"+strings.Repeat(",1", 1<<18), 1))
	for b.Loop() {
		deep.Shape()
	}
}

func TestShapesOfLists(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "[]",
		"3":                                 "[]",
		`"[1]"`:                             "[]",
		" [ ] ":                             "[0]",
		"[1, 2]":                            "[2]",
		`["[,", "\"],"]`:                    "[2]",
		`[{"a": [1, 2], "b]": "}"}, 3]`:     "[2]",
		"[[[1],[2],[3]], [[4],[5],[6]]]":    "[2 3 1]",
		"[[[1],[2,2],[3]], [4], 5, [[[]]]]": "[4 3 1]",
		nested(MaxMembers + 1):              "[1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1]",
	} {
		d := JSON(text)
		if found := fmt.Sprint(d.Shape()); found != want {
			t.Errorf("%s: expected %s, found %s", text, want, found)
		}
		length := 0
		if shape := d.Shape(); len(shape) > 0 {
			length = int(shape[0])
		}
		if found := d.Length(); found != length {
			t.Errorf("%s: expected %d elements, found %d", text, length, found)
		}
	}
}

func TestListsAreTakenApart(t *testing.T) {
	list := jsontext.Value(` [ 1 , "a,b", [2,[3]], {"c": 4} ] `)
	found, err := Split(list, 4)
	if err != nil || fmt.Sprintf("%s", found) != `[1 "a,b" [2,[3]] {"c": 4}]` {
		t.Errorf("found %s, error %v", found, err)
	}
	if _, err := Split(list, 3); err == nil || err.Error() != "expected at most 3 members, found more" {
		t.Errorf("expected its length to be refused, found %v", err)
	}
	for _, bad := range []string{"3", "", "[1", "[1,]"} {
		if _, err := Split(jsontext.Value(bad), 3); err == nil {
			t.Errorf("%s: expected an error", bad)
		}
	}
}
