// Package quote is how a message repeats what a stranger gave: short, printable, and in the same form everywhere.
// Messages end in logs, in answers and in the status of objects.
package quote

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// most is how much of a text, in bytes, and of a shape, in dimensions, is repeated.
const (
	most     = 200
	mostDims = 8
)

// Text is a text, cut.
func Text(s string) string {
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// Name is a name, cut and in quotes.
func Name(s string) string { return strconv.Quote(Text(s)) }

// Shape is a shape as PyTorch writes it: [8, 96].
func Shape[D int | int64](shape []D) string {
	dims := make([]string, 0, mostDims)
	for i, d := range shape {
		if i == mostDims {
			dims = append(dims, "…")
			break
		}
		dims = append(dims, fmt.Sprint(d))
	}
	return "[" + strings.Join(dims, ", ") + "]"
}
