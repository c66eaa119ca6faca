package localnode

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// mostAddresses is how many pods, and how many Services, one node holds.
const mostAddresses = 254

// lane is the second number of a node's addresses. It is held by a socket of an abstract name, which the kernel gives
// back however the process ends, and which is shared by exactly those who share the loopback device.
type lane struct {
	number int
	hold   net.Listener
}

// takeLane takes the preferred lane, or else the first that is free.
func takeLane(preferred int) (lane, error) {
	for i := range mostAddresses + 1 {
		number := i - 1
		if i == 0 {
			number = preferred
		}
		if number < 0 {
			continue
		}
		//nolint:noctx // nothing waits
		hold, err := net.Listen("unix", fmt.Sprintf("@switchyard-localnode-%d", number))
		if err == nil {
			return lane{number, hold}, nil
		}
	}
	return lane{}, fmt.Errorf("all %d ranges of loopback addresses are held by other localnodes", mostAddresses)
}

func (l lane) pod(n int) string     { return fmt.Sprintf("127.%d.1.%d", l.number, n) }
func (l lane) service(n int) string { return fmt.Sprintf("127.%d.2.%d", l.number, n) }
func (l lane) host() string         { return fmt.Sprintf("127.%d.0.1", l.number) }

// numbers hands out 1…254, each again only after all others, so that what still calls a gone pod's address does not
// soon find another there. Safe for concurrent use.
type numbers struct {
	mu   sync.Mutex
	used [mostAddresses + 1]bool
	last int
	free chan struct{} // closed and replaced when a number comes back
}

var errNoAddress = errors.New("all addresses are in use")

func newNumbers() *numbers { return &numbers{free: make(chan struct{})} }

// take takes the preferred number if it is free, else the next. Where none is free it returns what is closed when one
// is.
func (n *numbers) take(preferred int) (int, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if preferred >= 1 && preferred <= mostAddresses && !n.used[preferred] {
		n.used[preferred] = true
		return preferred, nil, nil
	}
	for range mostAddresses {
		n.last = n.last%mostAddresses + 1
		if !n.used[n.last] {
			n.used[n.last] = true
			return n.last, nil, nil
		}
	}
	return 0, n.free, errNoAddress
}

func (n *numbers) release(number int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used[number] = false
	close(n.free)
	n.free = make(chan struct{})
}
