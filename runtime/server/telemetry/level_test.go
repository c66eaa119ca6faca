package telemetry

import (
	"log/slog"
	"testing"
)

// What the server could not do is a warning or an error; that it is not ready is what a probe asks.
func TestTheLevelOfARequestsLine(t *testing.T) {
	for _, c := range []struct {
		pattern string
		code    int
		want    slog.Level
	}{
		{"POST /v2/models/{model}/infer", 200, slog.LevelDebug},
		{"POST /v2/models/{model}/infer", 400, slog.LevelDebug},
		{"POST /v2/models/{model}/infer", 429, slog.LevelDebug},
		{"POST /v2/models/{model}/infer", 500, slog.LevelError},
		{"POST /v2/models/{model}/infer", 503, slog.LevelWarn},
		{"POST /v2/models/{model}/infer", 504, slog.LevelWarn},
		{"GET /v2/health/ready", 503, slog.LevelDebug},
		{"GET /v2/health/ready", 500, slog.LevelError},
	} {
		r := &Request{route: HTTP(c.pattern)}
		if found := r.level(c.code); found != c.want {
			t.Errorf("%s, %d: expected %v, found %v", c.pattern, c.code, c.want, found)
		}
	}
}
