package main

import (
	"flag"
	"io"
	"testing"
	"time"
)

func TestQueueFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want *queueFlags // nil: refused
	}{
		{nil, &queueFlags{100 * time.Millisecond, 2 * time.Second, 0}},
		{
			[]string{"--max-batch-milliseconds=1", "--max-queue-milliseconds=5000", "--max-delay-milliseconds=5"},
			&queueFlags{time.Millisecond, 5 * time.Second, 5 * time.Millisecond},
		},
		{[]string{"--max-batch-milliseconds=0"}, nil},
		{[]string{"--max-queue-milliseconds=0"}, nil},
		{[]string{"--max-delay-milliseconds=-1"}, nil},
		{[]string{"--max-queue-milliseconds=2s"}, nil},
		{[]string{"--max-queue-milliseconds=86400001"}, nil},
	} {
		var f queueFlags
		set := flag.NewFlagSet("", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		f.define(set)
		switch err := set.Parse(c.args); {
		case c.want == nil && err == nil:
			t.Errorf("%v: expected an error, found %+v", c.args, f)
		case c.want != nil && (err != nil || f != *c.want):
			t.Errorf("%v: expected %+v, found %+v, error %v", c.args, *c.want, f, err)
		}
	}
}
