package local

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/switchyard-dev/switchyard/test/localnode"
)

// RegistryDir is the folder of the artifact registry.
func (p *Place) RegistryDir() string { return p.path("registry") }

// StartRegistry starts the artifact registry's process, where none runs, and waits until it answers. It ends with ctx.
// Its first start needs a manager, which makes its certificate.
func (p *Place) StartRegistry(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry != nil {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case <-p.mounted:
	case <-waiting.Done():
		return fmt.Errorf(
			"artifact registry: no manager has made Secret %s; see manager-1.log in %s",
			TLSSecret,
			p.options.Dir,
		)
	}
	registry, err := startProgram(ctx, p.path("registry.log"), p.options.Manager, "registry",
		"--kubeconfig", p.path("registry.kubeconfig"), "--metrics-address", "0",
		"--dir", p.RegistryDir(), "--address", p.address, "--tls-dir", p.path("registry-tls"),
		"--manager-account", System+"/"+managerAccount)
	if err != nil {
		return fmt.Errorf("artifact registry: %w", err)
	}
	p.registry = registry
	return p.awaitRegistry(ctx)
}

func (p *Place) awaitRegistry(ctx context.Context) error {
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, startWithin, true,
		func(ctx context.Context) (bool, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
			if err != nil {
				return false, nil // not yet
			}
			return true, conn.Close()
		})
	if err != nil {
		return fmt.Errorf("artifact registry: %w; see registry.log in %s", err, p.options.Dir)
	}
	return nil
}

// Serves tells whether the artifact registry shows this certificate to who connects.
func (p *Place) Serves(ctx context.Context, certificate []byte) error {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return errors.New("expected a certificate in PEM")
	}
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // it is looked at, not trusted
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	shown := conn.(*tls.Conn).ConnectionState().PeerCertificates //nolint:forcetypeassert // what a tls.Dialer gives
	if !bytes.Equal(shown[0].Raw, block.Bytes) {
		return fmt.Errorf("the artifact registry shows another certificate, of serial number %v", shown[0].SerialNumber)
	}
	return nil
}

// StopRegistry ends the artifact registry's process at once; what it keeps stays in RegistryDir.
func (p *Place) StopRegistry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.registry != nil {
		p.registry.kill()
		p.registry = nil
	}
}

// mountCertificate has the registry's process find its certificate as kubelet would give it to its pod.
func (p *Place) mountCertificate(ctx context.Context) {
	var once sync.Once
	p.parts.Go(func() {
		err := localnode.MountSecret(ctx, p.Kube, System, TLSSecret, p.path("registry-tls"), []string{"tls.crt", "tls.key"},
			func(err error) {
				if err != nil {
					p.options.Log.Error("the registry's certificate", "error", err)
					return
				}
				once.Do(func() { close(p.mounted) })
			})
		if err != nil {
			p.options.Log.Error("the registry's certificate", "error", err)
		}
	})
}
