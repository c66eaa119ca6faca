package main

import (
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// The base is float32 where nothing else is asked.
func TestDTypeFlag(t *testing.T) {
	commands := map[string]func(args ...string) (arch.DType, error){
		"serve": func(args ...string) (arch.DType, error) {
			f, err := parseServeFlags(append(args, "--base-model=base", "--adapters=adapters"))
			if err != nil {
				return "", err
			}
			return f.dtype, nil
		},
		"agent": func(args ...string) (arch.DType, error) {
			f, err := parseAgentFlags(append(args, "--pool=p", "--pod-name=p-1", "--base-digest=d", "--registry=r",
				"--repository=n/p", "--registry-token-file=t", "--registry-ca-file=c", "--cache-dir=d"))
			if err != nil {
				return "", err
			}
			return f.dtype, nil
		},
	}
	for command, parse := range commands {
		for _, c := range []struct {
			args []string
			want arch.DType
		}{
			{nil, arch.Float32},
			{[]string{"--dtype=float32"}, arch.Float32},
			{[]string{"--dtype", "bfloat16"}, arch.BFloat16},
		} {
			if got, err := parse(c.args...); err != nil || got != c.want {
				t.Errorf("%s %v: expected %s, found %s, error %v", command, c.args, c.want, got, err)
			}
		}
	}
}
