package rest

import (
	"errors"
	"net/http"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// Starting answers while there is no base model yet: alive, and nothing else.
func Starting() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, server.TryLater(http.StatusServiceUnavailable, errors.New("the base model is not loaded yet")))
	})
	return mux
}
