// Command kernels writes the assembly of runtime/kernels for amd64, by avo (github.com/mmcloughlin/avo):
//
//	go run . -out FILE avx2|avx512|avx512bf16
//
// Each function takes one pointer, to a struct of runtime/kernels, whose fields it reads by their offsets; those are
// listed beside each. All follow the package's invariant: what becomes of one element is the same instructions in the
// same order wherever it stands, in a full vector or in a tail under a mask.
package main

import (
	"flag"
	"log"

	. "github.com/mmcloughlin/avo/build" //nolint:revive,stylecheck // as avo's programs are written
	"github.com/mmcloughlin/avo/pass"
)

func main() {
	flag.Parse()
	ConstraintExpr("amd64")
	switch name := flag.Arg(0); name {
	case "avx2":
		all(avx2{})
	case "avx512":
		all(avx512{})
	case "avx512bf16": // the rest is avx512's
		everySize(bfloat16{}, tile)
		roundBFloat16()
	default:
		log.Fatalf("expected avx2, avx512 or avx512bf16, found %q", name)
	}
	pass.Compile = pass.Concat(pass.Compile, pass.FunctionPass(encode))
	Generate()
}

// all are the functions of a variant.
func all(s set) {
	everySize(s, tile, pairs)
	for _, act := range activations {
		epilogue(s, act)
	}
	layerNorm(s)
	softmax(s)
	transpose(s)
}

// everySize has the kinds of tile, each of every size.
func everySize(s set, kinds ...func(s set, rows, vectors int)) {
	for vectors := 1; vectors <= 2; vectors++ {
		for rows := 1; rows <= s.rows(); rows++ {
			for _, kind := range kinds {
				kind(s, rows, vectors)
			}
		}
	}
}
