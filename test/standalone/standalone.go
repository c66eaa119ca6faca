// Package standalone runs "runtime serve" as a process of its own, for tests and demonstrations.
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

	"github.com/switchyard-dev/switchyard/test/oip"
)

// Server is a running "runtime serve".
type Server struct {
	URL     string // of the inference protocol, "http://127.0.0.1:…"
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
		"--http-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0",
	}, args...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing stays if its parent dies
	output, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	listening := make(chan struct{})
	go s.read(output, listening)
	select {
	case <-listening:
	case <-s.ended:
		return nil, fmt.Errorf("%s ended before it listened (%w):\n%s", binary, s.err, s.Log())
	}
	if err := s.waitReady(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

var listens = regexp.MustCompile(`msg=listening for=(\w+) address=(\S+)`)

// read keeps the log, and closes listening when both addresses stood in it.
func (s *Server) read(output io.Reader, listening chan struct{}) {
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		s.mu.Lock()
		s.log.WriteString(lines.Text() + "\n")
		s.mu.Unlock()
		m := listens.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if m[1] == "http" {
			s.URL = "http://" + m[2]
		} else {
			s.Metrics = "http://" + m[2] + "/metrics"
		}
		if s.URL != "" && s.Metrics != "" {
			close(listening)
		}
	}
	s.err = s.cmd.Wait()
	close(s.ended)
}

// waitReady asks until the server is ready. It waits for the server's own answers, never for the clock.
func (s *Server) waitReady(ctx context.Context) error {
	for {
		_, err := oip.Do(ctx, "GET", s.URL+"/v2/health/ready", nil)
		var notYet *oip.StatusError
		if !errors.As(err, &notYet) {
			return err
		}
	}
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
