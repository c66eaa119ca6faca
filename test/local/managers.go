package local

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/localnode/process"
)

// StartManager starts one more manager, which leads if no other does, with more flags than all have. It ends with ctx.
func (p *Place) StartManager(ctx context.Context, more ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started++
	flags := []string{
		"run",
		"--kubeconfig", p.path("manager.kubeconfig"), "--namespace", System,
		"--metrics-address", "0", "--health-address", "0",
		"--leader-elect", "--leader-elect-lease-duration", lease.String(),
		"--runtime-image", RuntimeImage, "--registry-url", "https://" + p.address,
		"--registry-token-file", p.path("registry-token"), "--work-dir", p.path(fmt.Sprintf("manager-%d", p.started)),
		"--source-allow-cidr", "127.0.0.0/8", "--source-allow-cidr", "::1/128",
	}
	flags = append(append(flags, p.options.ManagerFlags...), more...)
	manager, err := startProgram(ctx, p.managerLog(p.started), p.options.Manager, flags...)
	if err != nil {
		return fmt.Errorf("manager: %w", err)
	}
	p.managers = append(p.managers, manager)
	return nil
}

// KillManager waits until a manager leads and ends its process at once, as kill -9 does. It stays away; another takes
// over when the lease is over.
func (p *Place) KillManager(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	leader, err := p.leading(ctx)
	if err != nil {
		return err
	}
	p.managers[leader].kill()
	p.managers = slices.Delete(p.managers, leader, leader+1)
	return nil
}

// PauseManager waits until a manager leads and stops its process, as a machine that hangs does. wake has it go on: if
// it has lost the lease meanwhile it ends by itself and is started again, which wake waits for.
func (p *Place) PauseManager(ctx context.Context) (wake func(ctx context.Context, lost bool) error, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, err := p.leading(ctx)
	if err != nil {
		return nil, err
	}
	leader := p.managers[i]
	paused, err := process.Of(int(leader.pid.Load()))
	if err != nil {
		return nil, fmt.Errorf("the leading manager: %w", err)
	}
	if err := syscall.Kill(paused.PID, syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("the leading manager: %w", err)
	}
	leader.paused.Store(true)
	return func(ctx context.Context, lost bool) error {
		defer leader.paused.Store(false)
		if err := syscall.Kill(paused.PID, syscall.SIGCONT); err != nil || !lost {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		if err := paused.Wait(ctx); err != nil {
			return fmt.Errorf("a manager that has lost its lease still runs: %w", err)
		}
		return nil
	}, nil
}

// leading waits until a manager leads, and is which.
func (p *Place) leading(ctx context.Context) (leader int, err error) {
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, startWithin, true, func(context.Context) (bool, error) {
		leader = slices.IndexFunc(p.managers, func(m *program) bool {
			return !m.paused.Load() && m.says("this manager leads")
		})
		return leader >= 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("none of %d managers leads: %w", len(p.managers), err)
	}
	return leader, nil
}

// Lease tells who leads of the managers, and when that was last renewed.
func (p *Place) Lease(ctx context.Context) (holder string, renewed time.Time, err error) {
	lease, err := p.Kube.CoordinationV1().Leases(System).Get(ctx, "manager.switchyard.dev", metav1.GetOptions{})
	if err != nil {
		return "", time.Time{}, err
	}
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if lease.Spec.RenewTime != nil {
		renewed = lease.Spec.RenewTime.Time
	}
	return holder, renewed, nil
}

func (p *Place) managerLog(number int) string {
	return p.path(fmt.Sprintf("manager-%d.log", number))
}

// ManagerLog is what all managers have logged, one after the other.
func (p *Place) ManagerLog() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []byte
	for n := 1; n <= p.started; n++ {
		text, _ := readLog(p.managerLog(n), 0) // what can be read
		all = append(all, text...)
	}
	return string(all)
}
