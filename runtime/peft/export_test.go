package peft

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// Parse is Load without a disk, for the fuzzer.
func Parse(config, model, labels []byte, base *arch.Description) (*Adapter, error) {
	c, err := parseConfig(config, base)
	if err != nil {
		return nil, err
	}
	return parse(files{config, model, labels}, c, base, Settings{})
}

// RefusedFields lists the fields of a config that are refused if they ask for anything.
func RefusedFields() []string { return slices.Sorted(maps.Keys(refused)) }

// Differs says in what a tokenizer is another than the base's.
func (t *Tokenizer) Differs(base *Tokenizer) string { return t.differs(base) }

// Match tells whether a pattern key matches a path, and by way of a regular expression even for a plain key.
func Match(key, path string) (short, long bool, err error) {
	raw, err := json.Marshal(map[string]int{key: 1})
	if err != nil {
		return false, false, err
	}
	ps, err := readPatterns("rank_pattern", raw, readRank)
	if err != nil {
		return false, false, err
	}
	_, short = ps.find(path)
	// An empty group keeps the key's meaning, and keeps it from being plain.
	raw, err = json.Marshal(map[string]int{"(?:)" + key: 1})
	if err != nil {
		return false, false, err
	}
	ps, err = readPatterns("rank_pattern", raw, readRank)
	if err != nil {
		return false, false, err
	}
	_, long = ps.find(path)
	return short, long, nil
}
