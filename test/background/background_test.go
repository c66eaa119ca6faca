package background_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/background"
)

// role is, in the environment, what this binary plays where it is a program.
const role = "BACKGROUND_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "good": // comes up, and ends when it is told to
		background.Hold()
		told := make(chan os.Signal, 1)
		signal.Notify(told, syscall.SIGTERM)
		child := exec.Command("cat") // it outlives this process, and ends with the test
		child.Stdin = os.Stdin
		if err := child.Start(); err != nil {
			panic(err)
		}
		if err := background.Up(); err != nil {
			panic(err)
		}
		<-told
	case "bad": // ends before it is up
		_, _ = os.Stderr.WriteString("no room for what it needs")
		os.Exit(1)
	default:
		os.Exit(m.Run())
	}
}

func start(t *testing.T, p background.Program, as string) (fresh bool, err error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"="+as)
	stdin, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = stdin
	t.Cleanup(func() {
		_, _ = stdin.Close(), open.Close()
		if cmd.Process != nil {
			_ = cmd.Process.Kill() // gone as a rule
			_ = cmd.Wait()
		}
	})
	return p.Start(cmd, nil)
}

// A program is started once, known to run, ended, and leaves nothing.
func TestStartAndStop(t *testing.T) {
	p := background.Program{Dir: t.TempDir()}
	if fresh, err := start(t, p, "good"); err != nil || !fresh {
		t.Fatalf("started afresh: %v, %v", fresh, err)
	}
	pid, ok := p.Running()
	if !ok || unix.Kill(pid, 0) != nil {
		t.Fatalf("process %d runs: %v", pid, ok)
	}
	if fresh, err := start(t, p, "good"); err != nil || fresh {
		t.Errorf("a second one is started afresh: %v, %v", fresh, err)
	}
	if err := p.Remove(); err == nil {
		t.Error("what runs was removed")
	}
	if stopped, err := p.Stop(); err != nil || !stopped {
		t.Fatalf("stopped: %v, %v", stopped, err)
	}
	if pid, ok := p.Running(); ok {
		t.Errorf("process %d still runs", pid)
	}
	if stopped, err := p.Stop(); err != nil || stopped {
		t.Errorf("stopped again: %v, %v", stopped, err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// One that was killed is not taken for a living one by its note, though what it started lives.
func TestKilled(t *testing.T) {
	p := background.Program{Dir: t.TempDir()}
	if _, err := start(t, p, "good"); err != nil {
		t.Fatal(err)
	}
	pid, _ := p.Running()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone := func(context.Context) (bool, error) {
		_, runs := p.Running()
		return !runs, nil
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, gone); err != nil {
		t.Fatalf("it is still said to run: %v", err)
	}
	if fresh, err := start(t, p, "good"); err != nil || !fresh {
		t.Errorf("its successor is started afresh: %v, %v", fresh, err)
	}
	if _, err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// Who does not come up is said to have failed, with what it printed.
func TestNotUp(t *testing.T) {
	p := background.Program{Dir: t.TempDir()}
	if _, err := start(t, p, "bad"); err == nil || !strings.Contains(err.Error(), "no room for what it needs") {
		t.Errorf("expected what it printed, found %v", err)
	}
}
