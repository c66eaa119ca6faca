// Package kernels is the arithmetic: matrix multiplication with its epilogue, attention, LayerNorm and activations on
// float32 slices, a fixed pool of workers that runs them, and the gorgonia tensor.Engine over them.
//
// Invariant: each output element has one order of additions, fixed by the length of its reduction alone. Neither the
// number of rows, the tile, the worker nor the neighbours change it, so a row's result is bitwise the same alone and in
// any batch. Two habits keep it so: an accumulator runs over the whole reduction, and in Go every product that is added
// up is written float32(x*y), because it may otherwise be fused into one rounding in one loop and not in another.
// Assembly (hack/kernels) says which it is.
//
// Weights may be kept as bfloat16 (DType), in half the memory. They are widened where they are used, and computed with
// as float32: the result is that of float32 weights which had been rounded, to the bit. The variant avx512bf16 rounds
// what they are multiplied with, too, and adds up the products, which are exact, as float32; but not of Widened
// weights, whose results are those of float32 on every processor.
//
// The kernels trust their callers: shapes are checked where they come in (weights, peft, engine), not here, and a
// mistake panics. Panics are handed to the caller of the pool.
package kernels
