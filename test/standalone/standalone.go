// Package standalone runs "runtime serve" as a process of its own, for tests and demonstrations. It is for Linux, where
// a process can be made to die with its parent.
package standalone

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// Server is a running "runtime serve".
type Server struct {
	URL     string // of the inference protocol, "http://127.0.0.1:…"
	GRPC    string // the protocol's address over gRPC, "127.0.0.1:…"
	Metrics string // of /metrics

	cmd   *exec.Cmd
	ended chan struct{} // closed once the process is gone
	err   error         // of the process, once ended

	mu  sync.Mutex
	log strings.Builder
}

// Start runs the binary on free ports of loopback and returns once it is ready. When ctx ends the process is killed.
func Start(ctx context.Context, binary, baseModel, adapters, name string, args ...string) (*Server, error) {
	s := &Server{ended: make(chan struct{})}
	s.cmd = exec.CommandContext(ctx, binary, append([]string{
		"serve", "--base-model", baseModel, "--adapters", adapters, "--name", name,
		"--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0",
	}, args...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing stays if its parent dies
	output, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go s.read(output, ready)
	select {
	case <-ready:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("%s ended before it was ready (%w):\n%s", binary, s.err, s.Log())
	}
}

var (
	listens = regexp.MustCompile(`msg=listening for=(\w+) address=(\S+)`)
	isReady = regexp.MustCompile(`msg=ready$`)
)

// read keeps the log, and closes ready when all addresses and the server's word that it is ready stood in it.
func (s *Server) read(output io.Reader, ready chan struct{}) {
	lines := bufio.NewScanner(output)
	loaded, told := false, false
	for lines.Scan() {
		s.mu.Lock()
		s.log.WriteString(lines.Text() + "\n")
		s.mu.Unlock()
		if m := listens.FindStringSubmatch(lines.Text()); m != nil {
			switch what, address := m[1], m[2]; what {
			case "http":
				s.URL = "http://" + address
			case "grpc":
				s.GRPC = address
			case "metrics":
				s.Metrics = "http://" + address + "/metrics"
			}
		}
		loaded = loaded || isReady.MatchString(lines.Text())
		if loaded && !told && s.URL != "" && s.GRPC != "" && s.Metrics != "" {
			told = true
			close(ready)
		}
	}
	s.err = s.cmd.Wait()
	close(s.ended)
}

// Log is what the process has logged so far.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// Signal sends the process a signal.
func (s *Server) Signal(signal os.Signal) error { return s.cmd.Process.Signal(signal) }

// Wait waits for the process to end, and returns its error unless it ended with 0.
func (s *Server) Wait() error {
	<-s.ended
	return s.err
}

// Stop asks the process to end and waits for it.
func (s *Server) Stop() error {
	if err := s.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return s.Wait()
}

// Kill ends the process at once.
func (s *Server) Kill() {
	_ = s.Signal(syscall.SIGKILL) // an error says that it has ended already
	<-s.ended
}
