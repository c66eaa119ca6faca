package kernels

// Rotary turns the pairs (i, i + Dim/2) of each head by angles that grow with the token's place in its row, in place
// (Su et al., RoFormer, arXiv:2104.09864, in the order of transformers' rotate_half).
type Rotary struct {
	X        []float32 // [tokens, Heads·Dim]
	Stride   int       // distance of two tokens in it
	Rows     []Span
	Heads    int
	Dim      int       // of one head
	Cos, Sin []float32 // [places, Dim/2]
}

// Rotary turns several matrices together.
func (p *Pool) Rotary(ops ...Rotary) {
	tasks := make([]int, len(ops))
	for i := range ops {
		tasks[i] = len(ops[i].Rows)
	}
	p.runEach(tasks, func(_ *worker, i, task int) {
		op := &ops[i]
		row, half := op.Rows[task], op.Dim/2
		for token := row.Start; token < row.End; token++ {
			place := token - row.Start
			cos, sin := op.Cos[place*half:(place+1)*half], op.Sin[place*half:(place+1)*half]
			for head := range op.Heads {
				at := token*op.Stride + head*op.Dim
				first, second := op.X[at:at+half], op.X[at+half:at+op.Dim]
				for i, a := range first {
					b := second[i]
					first[i] = float32(a*cos[i]) - float32(b*sin[i])
					second[i] = float32(b*cos[i]) + float32(a*sin[i])
				}
			}
		}
	})
}
