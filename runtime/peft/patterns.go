package peft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// A rank is looked up by matching every pattern against every module with an update, so these bound the work that a
// small config can ask for.
const (
	maxPatterns      = 1 << 12 // EVA writes one a module: a few hundred
	maxPatternLength = 256     // the longest module path is about 60
	// maxPatternSize bounds the compiled size, in instructions, of the patterns of one field that need a regular
	// expression: x{1000} is seven bytes and a thousand instructions. Plain paths do not count.
	// Matching takes as many steps for each byte of a path: of the largest base it is some seconds.
	maxPatternSize = 1 << 11
)

// pattern is one entry of rank_pattern or alpha_pattern.
type pattern[V any] struct {
	key   string
	value V

	tail []byte         // a key without operators: what the path ends with, anyByte where any character will do
	re   *regexp.Regexp // any other key
}

// patterns are in the order of the JSON, which decides when several match.
type patterns[V any] []pattern[V]

// anyByte stands in a tail for ".". No path holds it.
const anyByte = 0

// find is the first entry that matches a module's path as PEFT matches it: re.match(rf"(.*\.)?({key})$", path).
func (ps patterns[V]) find(path string) (pattern[V], bool) {
	for i := range ps {
		if ps[i].matches(path) {
			return ps[i], true
		}
	}
	return pattern[V]{}, false
}

func (p *pattern[V]) matches(path string) bool {
	if p.re != nil {
		return p.re.MatchString(path)
	}
	start := len(path) - len(p.tail)
	if start < 0 || start > 0 && path[start-1] != '.' {
		return false
	}
	for i, b := range p.tail {
		if b != anyByte && b != path[start+i] {
			return false
		}
	}
	return true
}

// patternsOf reads an object of patterns with such values.
func patternsOf[V any](readValue reader[V]) reader[patterns[V]] {
	return func(field string, value json.RawMessage) (patterns[V], error) {
		return readPatterns(field, value, readValue)
	}
}

// readPatterns reads an object of patterns in its own order. Of a key that stands twice Python keeps the first place
// and the last value.
func readPatterns[V any](field string, raw json.RawMessage, readValue reader[V]) (patterns[V], error) {
	if string(raw) == "null" {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, mismatch(field, "an object of patterns", raw)
	}
	var ps patterns[V]
	places := map[string]int{}
	size := 0
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		key, _ := token.(string) // between the braces of valid JSON nothing else stands here
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		v, err := readValue(field+" "+quote.Name(key), value)
		if err != nil {
			return nil, err
		}
		if at, ok := places[key]; ok {
			ps[at].value = v
			continue
		}
		if len(ps) == maxPatterns {
			return nil, fmt.Errorf("%s: expected at most %d patterns, found more", field, maxPatterns)
		}
		p := pattern[V]{key: key, value: v}
		n, err := p.compile()
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", field, quote.Name(key), err)
		}
		if size += n; size > maxPatternSize {
			return nil, fmt.Errorf("%s %s: expected regular expressions of at most %d instructions in all, found more",
				field, quote.Name(key), maxPatternSize)
		}
		places[key] = len(ps)
		ps = append(ps, p)
	}
	return ps, nil
}

// compile prepares a pattern and returns the size of its regular expression, 0 for a plain path.
func (p *pattern[V]) compile() (size int, err error) {
	if len(p.key) > maxPatternLength {
		return 0, fmt.Errorf("expected at most %d bytes, found %d", maxPatternLength, len(p.key))
	}
	if tail, ok := plain(p.key); ok {
		p.tail = tail
		return 0, nil
	}
	if what := elsewhere.FindString(p.key); what != "" {
		return 0, fmt.Errorf("uses Python syntax that is not supported: %s", what)
	}
	// Parsed as PEFT writes it before it is anchored: a stray bracket must not close the anchor's group.
	expr := `(.*\.)?(` + p.key + `)$`
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("uses Python syntax that is not supported: %w", err)
	}
	if size = instructions(tree); size > maxPatternSize {
		return size, nil // the caller refuses it: compiling is what the bound is for
	}
	if p.re, err = regexp.Compile(`^(?:` + expr + `)`); err != nil {
		return 0, fmt.Errorf("uses Python syntax that is not supported: %w", err)
	}
	return size, nil
}

// elsewhere finds what Go compiles but Python takes for something else, or not at all: \pN, \Q…\E, octal \12 for a
// back-reference, \x{…}, [[:alpha:]], {,n}, look-behind and (?<name>), and flags in the middle.
var elsewhere = regexp.MustCompile(`\\[pPQEzC1-9]|\\x\{|\[:|\{,|\(\?<|\(\?[a-zA-Z-]+\)`)

// plain turns a key of names, dots and escaped dots into a tail: the usual keys, several hundred in one config, need
// no regular expression.
func plain(key string) (tail []byte, ok bool) {
	tail = make([]byte, 0, len(key))
	for i := 0; i < len(key); i++ {
		switch b := key[i]; {
		case b == '.':
			tail = append(tail, anyByte)
		case b == '\\' && strings.HasPrefix(key[i:], `\.`):
			tail = append(tail, '.')
			i++
		case b == '_' || b == '-' || '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z':
			tail = append(tail, b)
		default:
			return nil, false
		}
	}
	return tail, true
}

// instructions is an upper bound, near enough, of what a tree compiles to; it stops counting beyond maxPatternSize.
func instructions(tree *syntax.Regexp) int {
	n := 1 + len(tree.Rune)
	for _, sub := range tree.Sub {
		n += instructions(sub)
	}
	if tree.Op == syntax.OpRepeat {
		n *= max(tree.Min, tree.Max, 1)
	}
	return min(n, maxPatternSize+1)
}
