package logging_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/cmd/logging"
)

func TestFlags(t *testing.T) {
	given := slog.Default()
	t.Cleanup(func() { slog.SetDefault(given) })
	for name, c := range map[string]struct {
		flags logging.Flags
		text  string // that the log holds; "" if it is the given one
		err   string
	}{
		"no flags":       {},
		"a level":        {flags: logging.Flags{Level: "warn"}, text: "level=WARN msg=two"},
		"json":           {flags: logging.Flags{Format: "json"}, text: `"msg":"two"`},
		"another format": {flags: logging.Flags{Format: "xml"}, err: `--log-format: expected text or json, found "xml"`},
		"an unknown level": {
			flags: logging.Flags{Level: "loud"}, err: `--log-level: expected debug, info, warn or error, found "loud"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log, err := c.flags.Open(given, &out)
			if err != nil || c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("expected %q, found %v", c.err, err)
				}
				return
			}
			if c.text == "" {
				if log != given {
					t.Error("expected the logger that was given")
				}
				return
			}
			log.Debug("one")
			log.Warn("two")
			if !strings.Contains(out.String(), c.text) || strings.Contains(out.String(), "one") {
				t.Errorf("expected %q alone, found %q", c.text, out.String())
			}
			if c.flags.Format == "json" && !json.Valid(out.Bytes()) {
				t.Errorf("expected JSON, found %q", out.String())
			}
		})
	}
}
