package engine

import (
	"slices"
	"testing"
)

// Each adapter is one segment in every layer, so a batch costs what its rows cost, not what their order does.
func TestAnAdaptersRowsStandTogether(t *testing.T) {
	a, b := &Adapter{}, &Adapter{}
	for _, c := range []struct {
		rows []Row
		want []int
	}{
		{[]Row{{0, a}}, []int{0}},
		{[]Row{{0, a}, {1, nil}, {2, a}, {3, b}, {4, nil}, {5, a}}, []int{0, 2, 5, 1, 4, 3}},
		{[]Row{{0, nil}, {0, b}, {0, a}, {0, b}}, []int{0, 1, 3, 2}},
	} {
		if got := sortByAdapter(c.rows); !slices.Equal(got, c.want) {
			t.Errorf("%v: expected the order %v, found %v", c.rows, c.want, got)
		}
	}
}
