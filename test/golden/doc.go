// Package golden holds the engine to PEFT's own numbers, each adapter alone and all of a base in one mixed batch, and
// to the promise that a row's answer does not depend on its neighbours, to the bit.
package golden
