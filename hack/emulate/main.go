// Command emulate is the first process of the machine that hack/emulate/run emulates: it runs the tests that lie beside
// it, and ends the machine. What it prints goes to the serial port.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("emulate: failed:", err)
	} else {
		fmt.Println("emulate: passed")
	}
	// The serial port has what was printed, before the machine ends.
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, os.Stdout.Fd(), tcsbrk, 1); errno != 0 {
		fmt.Println("emulate: the serial port:", errno)
	}
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART); err != nil {
		fmt.Println("emulate: to end the machine:", err)
	}
}

// tcsbrk is the request to wait until a terminal's output is written, where its argument is not 0.
const tcsbrk = 0x5409

// run runs /tests with the arguments that /arguments has, one a line.
func run() error {
	for folder, kind := range map[string]string{"/dev": "devtmpfs", "/proc": "proc", "/sys": "sysfs", "/tmp": "tmpfs"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(kind, folder, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", folder, err)
		}
	}
	arguments, err := os.ReadFile("/arguments")
	if err != nil {
		return err
	}
	tests := exec.CommandContext(context.Background(), "/tests", strings.Fields(string(arguments))...)
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	return tests.Run()
}
