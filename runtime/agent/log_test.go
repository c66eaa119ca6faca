package agent_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"github.com/switchyard-dev/switchyard/runtime/agent"
)

// What client-go has to say is of one form with the rest, and there are no lines of its own making.
func TestClientGoWritesToTheProcesssLog(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	var log bytes.Buffer
	agent.LogTo(slog.New(slog.NewJSONHandler(&log, nil)))
	klog.Background().Info("structured", "key", "value")
	klog.Warningf("printed by %s", "old code")
	text := log.String()
	if !strings.Contains(text, `"msg":"structured","key":"value"`) ||
		!strings.Contains(text, `"msg":"printed by old code`) || strings.Count(text, "\n") != 2 {
		t.Errorf("expected two lines of JSON, found %s", text)
	}
}
