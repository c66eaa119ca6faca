// Command kernels writes the assembly of runtime/kernels for amd64, by avo (github.com/mmcloughlin/avo):
//
//	go run . -out FILE avx512|avx2
//
// Each function takes one pointer, to a struct of runtime/kernels, whose fields it reads by their offsets; those are
// listed beside each. All follow the package's invariant: what becomes of one element is the same instructions in the
// same order wherever it stands, in a full vector or in a tail under a mask.
package main

import (
	"flag"
	"log"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
)

func main() {
	flag.Parse()
	var s set
	switch name := flag.Arg(0); name {
	case "avx512":
		s = avx512{}
	case "avx2":
		s = avx2{}
	default:
		log.Fatalf("expected avx512 or avx2, found %q", name)
	}
	ConstraintExpr("amd64")
	for vectors := 1; vectors <= 2; vectors++ {
		for rows := 1; rows <= s.rows(); rows++ {
			tile(s, rows, vectors)
			pairs(s, rows, vectors)
		}
	}
	for _, act := range activations {
		epilogue(s, act)
	}
	layerNorm(s)
	softmax(s)
	transpose(s)
	Generate()
}
