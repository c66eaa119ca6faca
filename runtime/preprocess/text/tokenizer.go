package text

import (
	"context"
	_ "embed" // tokenizer.wasm
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"golang.org/x/sync/semaphore"

	"github.com/switchyard-dev/switchyard/runtime/preprocess/tokenfiles"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// module is what hack/tokenizer/build makes; tokenizer.wasm.sha256 is its digest.
//
//go:embed tokenizer.wasm
var module []byte

const (
	// page is WebAssembly's unit of memory.
	page = 64 << 10
	// maxPages is what 32 bits can address.
	maxPages = 1 << 16
	// patience bounds one call: a regular expression may go astray.
	patience = 10 * time.Second
)

// Tokenizer is a tokenizer.json with as many instances of the module as are used at once. Safe for concurrent use.
type Tokenizer struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	resolved tokenfiles.Resolved
	room     *semaphore.Weighted
	idle     chan *instance
	patience time.Duration
}

// Options of a Tokenizer.
type Options struct {
	Instances int    // at most, and so calls at once
	Memory    int64  // bytes that an instance has room for
	CacheDir  string // where the compiled module is kept for the next process; "" is nowhere
}

// Encoding is the tokens of a text, or of a pair of texts.
type Encoding struct {
	IDs     []int32
	Types   []int32
	Special []bool   // tokens of no text
	Offsets [][2]int // the characters of its text that a token begins and ends at; only where they are asked for
}

// InputError says that a text cannot be encoded, and nothing of the tokenizer.
type InputError struct{ reason string }

func (e *InputError) Error() string { return e.reason }

// Open compiles the module and reads a tokenizer.json, whose words on padding and truncation do not count.
func Open(ctx context.Context, resolved tokenfiles.Resolved, o Options) (*Tokenizer, error) {
	// Reserved whole, and used as far as it is touched: memory that grows is copied, and what it was is garbage.
	config := wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryCapacityFromMax(true).
		WithMemoryLimitPages(uint32(min(o.Memory/page, maxPages))) //nolint:gosec // not negative
	if o.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("the tokenizer's compilation cache: %w", err)
		}
		config = config.WithCompilationCache(cache)
	}
	t := &Tokenizer{
		runtime: wazero.NewRuntimeWithConfig(ctx, config), resolved: resolved,
		room: semaphore.NewWeighted(int64(o.Instances)), idle: make(chan *instance, o.Instances),
		patience: patience,
	}
	var err error
	if t.compiled, err = t.runtime.CompileModule(ctx, module); err != nil {
		return nil, errors.Join(fmt.Errorf("tokenizer.wasm: %w", err), t.Close(ctx))
	}
	// A template that names an unknown token is not noticed before the first text, or the first pair.
	for _, pair := range []*string{nil, new("b")} {
		if _, err := t.Encode(ctx, "a", pair, false); err != nil {
			return nil, errors.Join(fmt.Errorf("tokenizer.json: %w", err), t.Close(ctx))
		}
	}
	return t, nil
}

// Close frees all instances. No call may be under way or follow.
func (t *Tokenizer) Close(ctx context.Context) error { return t.runtime.Close(ctx) }

// Encode encodes a text, or a pair. Its error is a InputError where the text is at fault.
func (t *Tokenizer) Encode(ctx context.Context, text string, pair *string, offsets bool) (*Encoding, error) {
	second := ""
	if pair != nil {
		second = *pair
	}
	if n, most := len(text)+len(second), tokenfiles.MaxText(t.resolved.MaxTokens); n > most {
		return nil, &InputError{fmt.Sprintf("expected a text of at most %d bytes, found %d", most, n)}
	}
	if !utf8.ValidString(text) || !utf8.ValidString(second) {
		return nil, &InputError{"expected UTF-8"}
	}
	var encoded *Encoding
	err := t.with(ctx, func(ctx context.Context, i *instance) (err error) {
		if encoded, err = i.encode(ctx, text, second, pair != nil, offsets); err == nil && t.resolved.NoTypes {
			clear(encoded.Types)
		}
		return err
	})
	return encoded, err
}

// Words are the texts that runs of the tokens of one text, which is no pair's, stand for, each as transformers'
// convert_tokens_to_string makes it; an unknown token stands for what it is in the text.
func (t *Tokenizer) Words(ctx context.Context, text string, e *Encoding, runs [][]int) (words []string, err error) {
	if len(runs) == 0 {
		return nil, nil
	}
	characters := []rune(text)
	err = t.with(ctx, func(ctx context.Context, i *instance) error {
		for _, run := range runs {
			word, err := i.word(ctx, characters, e, run)
			if err != nil {
				return err
			}
			words = append(words, word)
		}
		return nil
	})
	return words, err
}

// with lends an instance to a call, and throws it away if it is of no use any more.
func (t *Tokenizer) with(ctx context.Context, call func(context.Context, *instance) error) (err error) {
	if err = t.room.Acquire(ctx, 1); err != nil {
		return err
	}
	defer t.room.Release(1)
	// Not the caller's: one that goes away would cost an instance.
	calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.patience)
	defer cancel()
	var i *instance
	select {
	case i = <-t.idle:
	default:
		if i, err = t.instantiate(calling); err != nil {
			return t.late(calling, err)
		}
	}
	isWhole := false
	defer func() { // after a panic of the call's, too
		if isWhole {
			t.idle <- i
			return
		}
		err = errors.Join(err, i.module.Close(calling))
	}()
	err = t.late(calling, call(calling, i))
	isWhole = !i.broken
	return err
}

// late is the error of what has had its time, which is no caller's deadline.
func (t *Tokenizer) late(calling context.Context, err error) error {
	if err != nil && calling.Err() != nil {
		return fmt.Errorf("the tokenizer did not end within %s", t.patience)
	}
	return err
}

func (t *Tokenizer) instantiate(ctx context.Context) (*instance, error) {
	m, err := t.runtime.InstantiateModule(ctx, t.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("tokenizer.wasm: %w", err)
	}
	i := &instance{module: m}
	if err := i.load(ctx, t.resolved); err != nil {
		return nil, errors.Join(err, m.Close(ctx))
	}
	return i, nil
}

// instance is one of the module's, with its tokenizer.
type instance struct {
	module  api.Module
	unknown int32 // the id of the token for what is in no vocabulary; -1 if there is none
	broken  bool  // it trapped
}

func (i *instance) load(ctx context.Context, r tokenfiles.Resolved) error {
	if _, err := i.call(ctx, "begin", rand.Uint64()); err != nil { //nolint:gosec // for hash tables
		return err
	}
	err := i.lend(ctx, r.Tokenizer, func(at uint64) error {
		known, err := i.call(ctx, "load", at, uint64(len(r.Tokenizer)))
		if err == nil && known == 0 {
			err = i.failure(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	done, err := i.call(ctx, "truncate", uint64(r.MaxTokens), flag(r.TruncateLeft)) //nolint:gosec // positive
	if err != nil || done == 0 {
		return errors.Join(err, i.failure(ctx))
	}
	return i.lend(ctx, []byte(r.Unknown), func(at uint64) error {
		id, err := i.call(ctx, "token", at, uint64(len(r.Unknown)))
		i.unknown = int32(id) - 1 //nolint:gosec // an id
		return err
	})
}

func (i *instance) encode(ctx context.Context, text, pair string, isPair, offsets bool) (encoded *Encoding, err error) {
	err = i.lend(ctx, []byte(text+pair), func(at uint64) error {
		n := uint64(len(text))
		list, err := i.call(ctx, "encode", at, n, at+n, uint64(len(pair)), flag(isPair), flag(offsets))
		if err != nil {
			return err
		}
		const fields = 5
		words, err := i.list(ctx, list, fields*4)
		if err != nil {
			return err
		}
		encoded = decode(words, fields, offsets)
		return nil
	})
	return encoded, err
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// decode reads a list of tokens: id, type, whether it is special, begin and end.
func decode(words []byte, fields int, offsets bool) *Encoding {
	n := len(words) / (4 * fields)
	e := &Encoding{IDs: make([]int32, n), Types: make([]int32, n), Special: make([]bool, n)}
	if offsets {
		e.Offsets = make([][2]int, n)
	}
	for token := range n {
		word := func(field int) uint32 { return binary.LittleEndian.Uint32(words[4*(token*fields+field):]) }
		e.IDs[token], e.Types[token], e.Special[token] = int32(word(0)), int32(word(1)), word(2) == 1 //nolint:gosec // ids
		if offsets {
			e.Offsets[token] = [2]int{int(word(3)), int(word(4))}
		}
	}
	return e
}

// word is the text that a run of tokens stands for.
func (i *instance) word(ctx context.Context, text []rune, e *Encoding, run []int) (word string, err error) {
	var records []byte
	for _, token := range run {
		records = binary.LittleEndian.AppendUint32(records, uint32(e.IDs[token])) //nolint:gosec // an id
		if e.IDs[token] != i.unknown {
			records = binary.LittleEndian.AppendUint32(records, math.MaxUint32)
			continue
		}
		from, to := e.Offsets[token][0], e.Offsets[token][1]
		if from > to || to > len(text) {
			return "", fmt.Errorf("token %d: expected offsets within a text of %d characters, found %d and %d",
				token, len(text), from, to)
		}
		own := string(text[from:to])
		records = binary.LittleEndian.AppendUint32(records, uint32(len(own))) //nolint:gosec // of a text
		records = append(records, own...)
	}
	err = i.lend(ctx, records, func(at uint64) error {
		found, err := i.call(ctx, "text", at, uint64(len(records)))
		if err != nil {
			return err
		}
		data, err := i.list(ctx, found, 1)
		word = string(data)
		return err
	})
	return word, err
}

// lend copies bytes into the instance for the time of a call.
func (i *instance) lend(ctx context.Context, data []byte, call func(at uint64) error) error {
	length := uint64(max(len(data), 1))
	at, err := i.call(ctx, "allocate", length)
	if err != nil {
		return err
	}
	if at == 0 || !i.module.Memory().Write(uint32(at), data) { //nolint:gosec // a pointer of 32 bits
		return fmt.Errorf("no room for %d bytes", len(data))
	}
	err = call(at)
	if i.broken {
		return err
	}
	_, freed := i.call(ctx, "release", at, length)
	return errors.Join(err, freed)
}

// list is what a function returned: so many items of some size.
func (i *instance) list(ctx context.Context, packed uint64, size int) ([]byte, error) {
	if packed == 0 {
		return nil, i.failure(ctx)
	}
	at, n := uint32(packed>>32), uint32(packed)            //nolint:gosec // the two halves
	data, ok := i.module.Memory().Read(at, n*uint32(size)) //nolint:gosec // small
	if !ok {
		return nil, errors.New("a list beyond the instance's memory")
	}
	return data, nil
}

// failure is what the instance says of its last failed call. Most of the time the text is not at fault.
func (i *instance) failure(ctx context.Context) error {
	found, err := i.module.ExportedFunction("error").Call(ctx)
	if err != nil {
		return err
	}
	message, _ := i.module.Memory().Read(uint32(found[0]>>32), uint32(found[0])) //nolint:gosec // the two halves
	return errors.New(quote.Text(string(message)))
}

// call calls an exported function. One that traps, or takes too long, leaves the instance broken.
func (i *instance) call(ctx context.Context, name string, args ...uint64) (uint64, error) {
	results, err := i.module.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		i.broken = true
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("the tokenizer gave up: %w", i.failure(ctx))
	}
	if len(results) == 0 {
		return 0, nil
	}
	return results[0], nil
}
