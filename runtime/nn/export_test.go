package nn

// Held is how many values the arena's blocks have.
func (a *Arena) Held() (n int) {
	for _, block := range a.blocks {
		n += len(block.values)
	}
	return n
}
