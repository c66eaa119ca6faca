package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/arch"
)

// The base is float32 where nothing else is asked, and a type that is not known is refused with those that are.
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
		const want = `invalid value "bf16" for flag -dtype: expected float32 or bfloat16, found "bf16"`
		var err error
		said := saidOf(t, func() { _, err = parse("--dtype=bf16") })
		if err == nil || !strings.Contains(said, want) {
			t.Errorf("%s: expected %s, found %q, error %v", command, want, said, err)
		}
		if !strings.Contains(said, "(default float32)") {
			t.Errorf("%s: expected the default in what is said of the flags, found %q", command, said)
		}
	}
}

// saidOf is what is written to the standard error while run runs.
func saidOf(t *testing.T, run func()) string {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = write
	said := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = io.Copy(&b, read)
		said <- b.String()
	}()
	run()
	os.Stderr = stderr
	_ = write.Close()
	return <-said
}
