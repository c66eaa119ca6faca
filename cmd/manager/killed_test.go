package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/peft"
	"github.com/switchyard-dev/switchyard/runtime/weights"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// registryProcess is manager registry as a process of its own, over a folder of its own.
type registryProcess struct {
	t       *testing.T
	dir     string // with everything in it
	address string
	storage []string // its flags; nil: a folder
	store   *artifact.Store
	running *exec.Cmd
}

func newRegistryProcess(t *testing.T) *registryProcess {
	t.Helper()
	p := &registryProcess{t: t, dir: t.TempDir()}
	if err := plane.ServiceAccountKubeconfig(t.Context(), system, registryAccount, p.path("kubeconfig")); err != nil {
		t.Fatal(err)
	}
	var certificate corev1.Secret
	key := client.ObjectKey{Namespace: system, Name: certificatesSecret}
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, within, true,
		func(ctx context.Context) (bool, error) { return admin.Get(ctx, key, &certificate) == nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.WriteFile(p.path(name), certificate.Data[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p.address, err = freeAddress(t.Context()); err != nil {
		t.Fatal(err)
	}
	trusted, token := x509.NewCertPool(), tokenOf(t, system, managerAccount, nil, v1alpha1.RegistryAudience)
	trusted.AppendCertsFromPEM(certificate.Data["ca.crt"])
	p.store, err = artifact.NewStore(artifact.StoreOptions{
		Host: p.address, Token: func() (string, error) { return token, nil },
		Roots: func(context.Context) (*x509.CertPool, error) { return trusted, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *registryProcess) path(name string) string { return filepath.Join(p.dir, name) }

// start runs it until it listens.
func (p *registryProcess) start(flags ...string) {
	p.t.Helper()
	binary, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.storage == nil {
		p.storage = []string{"--dir", p.path("artifacts")}
	}
	flags = append(flags, p.storage...)
	p.running = exec.CommandContext(p.t.Context(), binary, append([]string{
		"registry", "--kubeconfig", p.path("kubeconfig"), "--address", p.address,
		"--tls-dir", p.dir, "--manager-account", system + "/" + managerAccount, "--metrics-address", "0",
		"--log-level", "warn",
	}, flags...)...)
	p.running.Env = append(os.Environ(), asProgram+"=1")
	p.running.Stderr = p.t.Output()
	if err := p.running.Start(); err != nil {
		p.t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(p.t.Context(), 10*time.Millisecond, within, true,
		func(ctx context.Context) (bool, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.address)
			if err != nil {
				return false, nil //nolint:nilerr // not yet
			}
			return true, conn.Close()
		})
	if err != nil {
		p.t.Fatalf("it never listens: %v", err)
	}
}

// kill ends it as a node does that loses its power, but for what the kernel still writes.
func (p *registryProcess) kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill()
	_ = p.running.Wait() // it says that it was killed
	p.running = nil
}

// blobs counts what it keeps.
func (p *registryProcess) blobs() int {
	p.t.Helper()
	found, err := filepath.Glob(p.path("artifacts/docker/registry/v2/blobs/sha256/*/*/data"))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(found)
}

func (p *registryProcess) expectWhole(when, repository string, artifacts ...*artifact.Packed) {
	p.t.Helper()
	for _, a := range artifacts {
		if ok, err := p.store.Exists(p.t.Context(), repository, a.Digest); err != nil || !ok {
			p.t.Errorf("%s: expected %s whole, found %v, %v", when, a.Digest, ok, err)
		}
	}
}

// packed is an artifact over a folder.
func packed(t *testing.T, kind artifact.Kind, dir string) *artifact.Packed {
	t.Helper()
	folder, err := weights.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	p, err := artifact.Pack(kind, folder, peft.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// noise is an artifact of so many bytes that are like no other's.
func noise(t *testing.T, size int) *artifact.Packed {
	t.Helper()
	return packed(t, artifact.Adapter, wrappers.Noise(t, size))
}

// Killed in the middle of pushes, it has all that it ever acknowledged when it is back, and takes the rest.
func TestTheRegistryIsKilledWhileItIsPushedTo(t *testing.T) {
	t.Parallel()
	p := newRegistryProcess(t)
	const repository = "demo/digits"
	var all, stored []*artifact.Packed
	for range 24 {
		all = append(all, noise(t, 1<<20))
	}
	for round := range 3 {
		p.start("--gc-interval", "0", "--scrub-interval", "0")
		p.expectWhole("back", repository, stored...)
		var pushing sync.WaitGroup
		var mu sync.Mutex
		var acknowledged atomic.Int32
		enough := make(chan struct{})
		for n := range 4 {
			pushing.Go(func() {
				for i := n; i < 8; i += 4 {
					a := all[round*8+i]
					if p.store.Push(t.Context(), repository, a) != nil {
						return // it was killed
					}
					mu.Lock()
					stored = append(stored, a)
					mu.Unlock()
					if acknowledged.Add(1) == 3 {
						close(enough)
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() {
			pushing.Wait()
			close(ended)
		}()
		select {
		case <-enough: // so others are under way
		case <-ended:
			t.Fatalf("round %d: expected three pushes acknowledged, found %d", round, acknowledged.Load())
		}
		p.kill()
		pushing.Wait()
	}
	if len(stored) == len(all) {
		t.Error("expected some of it not pushed")
	}
	p.start("--gc-interval", "0", "--scrub-interval", "0")
	p.expectWhole("back for the last time", repository, stored...)
	for _, a := range all {
		if err := p.store.Push(t.Context(), repository, a); err != nil {
			t.Errorf("pushed again: %v", err)
		}
	}
	p.expectWhole("pushed again", repository, all...)
}

// Killed in the middle of a sweep, it has all that is needed when it is back, takes again what is not whole any more,
// and sweeps on.
func TestTheRegistryIsKilledWhileItSweeps(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	s.runPods("digits", 1)
	s.untilServed("parity", 1)
	repository := artifact.Repository(s.namespace, "digits")
	rooted := []*artifact.Packed{
		packed(t, artifact.Base, digits.Base(sample)),
		packed(t, artifact.Adapter, filepath.Join(digits.Adapters(sample), "parity")),
	}
	p := newRegistryProcess(t)
	p.start("--gc-interval", "0", "--scrub-interval", "0")
	push := func(repository string, artifacts ...*artifact.Packed) {
		t.Helper()
		for _, a := range artifacts {
			if err := p.store.Push(t.Context(), repository, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	push(repository, rooted...)
	needed := p.blobs()
	var garbage []*artifact.Packed
	for range 60 {
		garbage = append(garbage, noise(t, 100))
	}
	push(repository, garbage[:30]...)
	push("demo/gone", garbage[30:]...)
	full := p.blobs()
	sweep := []string{"--gc-interval", "10ms", "--gc-grace", "100ms", "--scrub-interval", "0"}
	for range 2 {
		p.kill()
		p.start(sweep...)
		s.until("a sweep", func() string { return strconv.FormatBool(p.blobs() < full) }, "true")
		p.kill()
		p.start("--gc-interval", "0", "--scrub-interval", "0")
		p.expectWhole("killed in a sweep", repository, rooted...)
		push(repository, garbage[:30]...)
		push("demo/gone", garbage[30:]...)
		if n := p.blobs(); n != full {
			t.Errorf("pushed again: expected %d blobs, found %d", full, n)
		}
	}
	p.kill()
	p.start(sweep...)
	s.until("all garbage gone", func() string { return strconv.Itoa(p.blobs()) }, strconv.Itoa(needed))
	p.expectWhole("all garbage gone", repository, rooted...)
	s.until("the repository of no pool", func() string {
		_, err := os.Stat(p.path("artifacts/docker/registry/v2/repositories/demo/gone"))
		return strconv.FormatBool(os.IsNotExist(err))
	}, "true")
}

// Over a bucket it is the same: what it has acknowledged is there when it is back.
func TestTheRegistryOverABucket(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("artifacts"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	defer server.Close()
	p := newRegistryProcess(t)
	p.storage = []string{"--s3-bucket", "artifacts", "--s3-endpoint", server.URL, "--s3-path-style", "--s3-prefix", "x"}
	p.start("--gc-interval", "10ms")
	small, parts := noise(t, 1<<20), noise(t, 21<<20) // of one part, and of three
	for _, a := range []*artifact.Packed{small, parts} {
		if err := p.store.Push(t.Context(), "demo/digits", a); err != nil {
			t.Fatal(err)
		}
	}
	p.kill()
	p.start()
	p.expectWhole("back", "demo/digits", small, parts)
}

// A bit of the disk changes: the pod refuses what it pulls, the registry has noticed, and what is pushed again is
// pulled.
func TestAPodMeetsADamagedBlob(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	pod := s.runPods("digits", 1)[0]
	p := newRegistryProcess(t)
	p.start("--gc-interval", "0", "--scrub-interval", "0")
	repository := artifact.Repository(s.namespace, "digits")
	parity := packed(t, artifact.Adapter, filepath.Join(digits.Adapters(sample), "parity"))
	push := func() {
		t.Helper()
		if err := p.store.Push(t.Context(), repository, parity); err != nil {
			t.Fatal(err)
		}
	}
	token := tokenOf(t, s.namespace, "digits-runtime", &pod, v1alpha1.RegistryAudience)
	if err := os.WriteFile(p.path("token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	pull := func() error {
		t.Helper()
		from, err := artifacts.NewRegistry(artifacts.RegistryOptions{
			Address: "https://" + p.address, Repository: repository, TokenFile: p.path("token"), CAFile: p.path("ca.crt"),
		})
		if err != nil {
			t.Fatal(err)
		}
		store, err := artifacts.NewStore(t.TempDir(), from)
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Fetch(t.Context(), parity.Digest, 1<<30)
		return err
	}
	push()
	if err := pull(); err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", parity.Files[len(parity.Files)-1].SHA256)
	at := p.path("artifacts/docker/registry/v2/blobs/sha256/" + hex[:2] + "/" + hex + "/data")
	raw, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(at, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.expectWhole("nobody has read it", repository, parity) // its size is the same
	if err := pull(); err == nil || !strings.Contains(err.Error(), "sha256") {
		t.Errorf("expected another digest refused, found %v", err)
	}
	s.until("the manager's look", func() string {
		ok, err := p.store.Exists(t.Context(), repository, parity.Digest)
		return fmt.Sprint(ok, err)
	}, "false <nil>")
	push()
	if err := pull(); err != nil {
		t.Errorf("pushed again: %v", err)
	}
}
