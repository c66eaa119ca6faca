package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Addresses, of the range that RFC 2544 sets aside for the tests of networks. The link leads from the machine to the
// node; nothing is routed further.
const (
	machineAddress = "198.18.0.1"
	nodeAddress    = "198.18.0.2"
	linkBits       = "/30"
	podRange       = "198.18.64.0/18"
	serviceRange   = "198.18.128.0/18"
	dnsAddress     = "198.18.128.10"

	machineLink = "switchyard0" // the link's end on the machine
	nodeLink    = "eth0"

	// cgroup is the parent of all pods' cgroups, in each hierarchy.
	cgroup      = "switchyard"
	cgroupMount = "/sys/fs/cgroup"
)

// Command is a command that runs in namespaces of its own; it must call Init first.
func Command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:noctx // it goes on when this process ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET}
	return cmd
}

// mayIsolate tells whether this root may do what the machine's may, as in many containers it may not.
func mayIsolate() error {
	if out, err := Command("mount", "--make-rprivate", "/").CombinedOutput(); err != nil {
		return fmt.Errorf("root may not make namespaces and mount in them here: %w: %s", err, bytes.TrimSpace(out))
	}
	top := cgroupMount
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil { // version 1
		top = filepath.Join(top, "memory")
	}
	if err := unix.Access(top, unix.W_OK); err != nil {
		return fmt.Errorf("root may not make cgroups here: %s: %w", top, err)
	}
	return nil
}

// Link leads a network link from the machine to the network namespace of a process.
func Link(ctx context.Context, pid int) error {
	for _, args := range [][]string{
		{"link", "add", machineLink, "type", "veth", "peer", "name", nodeLink, "netns", strconv.Itoa(pid)},
		{"addr", "add", machineAddress + linkBits, "dev", machineLink},
		{"link", "set", machineLink, "up"},
	} {
		if err := command(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// Init is the first process of the namespaces. It runs another program with the descriptors given, reaps whatever
// becomes its child, hands on the signals to end, and returns the program's exit code when that has ended.
func Init(program string, args []string, files ...*os.File) (code int, err error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	child, err := os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Files: append([]*os.File{nil, os.Stdout, os.Stderr}, files...),
		Env:   os.Environ(),
	})
	if err != nil {
		return 0, err
	}
	for _, file := range files {
		_ = file.Close() // the child has its own, and its end is told by them
	}
	go func() {
		for s := range signals {
			_ = child.Signal(s) // gone already: seen below
		}
	}()
	for {
		var status unix.WaitStatus
		switch pid, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == child.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// Clean removes what the namespaces do not take with them, of a cluster that was in a folder. Nothing of it may run any
// more.
func Clean(ctx context.Context, dir string) error {
	err := filepath.WalkDir(cgroupMount, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || !entry.IsDir():
			return nil //nolint:nilerr // what goes meanwhile is not ours
		case entry.Name() == cgroup:
			if err := removeGroup(ctx, path); err != nil {
				return err
			}
			return fs.SkipDir
		case strings.Count(strings.TrimPrefix(path, cgroupMount), "/") > 1:
			return fs.SkipDir // ours are at the top of a hierarchy
		}
		return nil
	})
	if err != nil {
		return err // where a cluster of another folder runs the link is its
	}
	if _, missing := net.InterfaceByName(machineLink); missing == nil {
		// Its other end may live on with connections that nobody ended.
		err = command(ctx, "ip", "link", "delete", machineLink)
	}
	made, _ := os.ReadFile(filepath.Join(dir, madeFile)) // there is none where nothing was made
	for _, folder := range strings.Fields(string(made)) {
		_ = os.Remove(folder) // somebody may use it by now
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// goneWithin bounds what the kernel takes to end what was killed.
const goneWithin = 10 * time.Second

// removeGroup removes a cgroup and those within. The kernel takes a moment to empty them after their last process.
func removeGroup(ctx context.Context, top string) error {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(groups)
	var last error
	empty := func(context.Context) (bool, error) {
		for _, group := range groups {
			if live, _ := os.ReadFile(filepath.Join(group, "cgroup.procs")); len(live) > 0 {
				return false, nil
			}
		}
		return true, nil
	}
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, goneWithin, true, empty); err != nil {
		return fmt.Errorf("cgroup %s has processes: a machine has one cluster, and one of another folder runs", top)
	}
	for _, group := range groups {
		busy := func(context.Context) (bool, error) {
			last = unix.Rmdir(group)
			return last == nil || errors.Is(last, unix.ENOENT), nil
		}
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, goneWithin, true, busy)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", group, last)
		}
	}
	return nil
}

// tunables are the kernel's settings that kubelet expects. They are the machine's, so they stay as they are: kubelet is
// shown a file that has them.
var tunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// prepareMounts makes the view of the file system that the node's programs have: their own processes, and folders of
// their own where they insist on a path.
func prepareMounts(dir string) error {
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"", "/", "", unix.MS_REC | unix.MS_SHARED}, // among ourselves: kubelet expects it
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, target := range []string{"/var/lib/kubelet", "/var/lib/cni", "/var/log"} {
		own := filepath.Join(dir, target)
		if err := errors.Join(os.MkdirAll(own, 0o755), makeOnMachine(dir, target)); err != nil {
			return err
		}
		if err := unix.Mount(own, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	for name, value := range tunables {
		shown := filepath.Join(dir, "sys", strings.ReplaceAll(name, "/", "."))
		if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(shown, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		target := filepath.Join("/proc/sys", name)
		if err := unix.Mount(shown, target, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return nil
}

// madeFile lists the folders outside that had to be made to mount on.
const madeFile = "made"

// makeOnMachine makes a folder outside that is missing, and notes it for Clean.
func makeOnMachine(dir, target string) error {
	err := os.Mkdir(target, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	note, err := os.OpenFile(filepath.Join(dir, madeFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(note, target)
	return errors.Join(err, note.Close())
}

// prepareNetwork waits for the link, and makes this namespace route between it and the pods.
func prepareNetwork(ctx context.Context) error {
	linked := func(context.Context) (bool, error) {
		_, err := net.InterfaceByName(nodeLink)
		return err == nil, nil
	}
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, linked); err != nil {
		return fmt.Errorf("network link %s: %w", nodeLink, err)
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", nodeAddress + linkBits, "dev", nodeLink},
		{"link", "set", nodeLink, "up"},
	} {
		if err := command(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// prepareCgroups makes the parent of all pods' cgroups.
func prepareCgroups() error {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil { // version 2
		return os.MkdirAll(filepath.Join(cgroupMount, cgroup), 0o755)
	}
	hierarchies, err := os.ReadDir(cgroupMount)
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		top := filepath.Join(cgroupMount, h.Name())
		if _, err := os.Stat(filepath.Join(top, "tasks")); err != nil {
			continue // not one of version 1
		}
		if err := os.MkdirAll(filepath.Join(top, cgroup), 0o755); err != nil {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a new one is empty, and takes no process
			text, err := os.ReadFile(filepath.Join(top, file))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(top, cgroup, file), text, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
