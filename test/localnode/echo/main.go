// Command echo is what the tests of localnode run as a container: an HTTP server that tells how it was started.
//
//	echo --address 127.0.1.1:8080 --token-file /run/token/token
//	GET /        what it was given: its process id, arguments, environment, working folder and token
//	GET /healthz 200 until POST /sick
//	GET /ready   200 until POST /unready
//	POST /keep   keeps its body in --state, if that is given; GET returns it
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// Told is the answer of GET /.
type Told struct {
	PID   int      `json:"pid"`
	Args  []string `json:"args"`
	Env   []string `json:"env"`
	Token string   `json:"token"`
}

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	address := flag.String("address", "", "address to listen on")
	tokenFile := flag.String("token-file", "", "file of the token to tell")
	state := flag.String("state", "", "folder of what /keep keeps")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	var sick, unready atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health(&sick))
	mux.HandleFunc("GET /ready", health(&unready))
	mux.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	mux.HandleFunc("POST /keep", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
		if err == nil {
			err = os.WriteFile(*state+"/kept", body, 0o600)
		}
		answer(w, nil, err)
	})
	mux.HandleFunc("GET /keep", func(w http.ResponseWriter, _ *http.Request) {
		body, err := os.ReadFile(*state + "/kept")
		answer(w, body, err)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		told := Told{PID: os.Getpid(), Args: os.Args, Env: os.Environ()}
		if *tokenFile != "" {
			token, err := os.ReadFile(*tokenFile)
			if err != nil {
				answer(w, nil, err)
				return
			}
			told.Token = string(token)
		}
		body, err := json.Marshal(told)
		answer(w, body, err)
	})
	server := &http.Server{Addr: *address, Handler: mux}
	drained := make(chan error, 1)
	go func() {
		<-ctx.Done()
		drained <- server.Shutdown(context.WithoutCancel(ctx))
	}()
	fmt.Println("listening on", *address)
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return <-drained
}

func health(bad *atomic.Bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if bad.Load() {
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}
}

func answer(w http.ResponseWriter, body []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body) // the client may be gone
}
