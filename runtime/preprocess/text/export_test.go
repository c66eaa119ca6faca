package text

import "time"

// Wait has calls end after a time.
func (t *Tokenizer) Wait(patience time.Duration) { t.patience = patience }

// Replace has instances to come read another tokenizer.json, and forgets those that are there.
func (t *Tokenizer) Replace(tokenizer []byte) {
	t.resolved.Tokenizer = tokenizer
	for range len(t.idle) {
		<-t.idle
	}
}

// MemoryInUse is the memory that the instances that nobody uses have asked for.
func (t *Tokenizer) MemoryInUse() (bytes []int64) {
	var all []*instance
	for range len(t.idle) {
		i := <-t.idle
		all = append(all, i)
		bytes = append(bytes, int64(i.module.Memory().Size()))
	}
	for _, i := range all {
		t.idle <- i
	}
	return bytes
}
