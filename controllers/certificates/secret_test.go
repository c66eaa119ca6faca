package certificates

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	t0    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	names = []string{"switchyard-registry.switchyard-system.svc", "127.0.0.1"}
)

const day = 24 * time.Hour

// after is what the Secret holds at a time, and what was done.
func after(t *testing.T, data map[string][]byte, now time.Time) (map[string][]byte, step, time.Time) {
	t.Helper()
	made, did, again, err := next(data, names, now)
	if err != nil {
		t.Fatal(err)
	}
	if !again.After(now) {
		t.Errorf("at %v: to look again at %v is never to rest", now, again)
	}
	if _, more, _, err := next(made, names, now); more != none || err != nil {
		t.Errorf("at %v: what was just done asks for more: %q, %v", now, more, err)
	}
	return made, did, again
}

// The life of three certificates, each step when the one before said that it would be.
func TestALifeOfCertificates(t *testing.T) {
	data, did, again := after(t, nil, t0)
	if did != made {
		t.Fatalf("expected %q, found %q", made, did)
	}
	first := data
	for _, c := range []struct {
		did step
		at  time.Duration // since the first was made; skew moves the two thirds by a third of an hour
		cas int
	}{
		{announced, 60 * day, 2},
		{took, 61 * day, 2},
		{mended, 90 * day, 1}, // the predecessor is out of date
		{announced, 120 * day, 2},
		{took, 121 * day, 2},
	} {
		if off := again.Sub(t0.Add(c.at)).Abs(); off > time.Hour {
			t.Errorf("%s: expected after %v, found %v", c.did, c.at, again.Sub(t0))
		}
		if _, early, _ := after(t, data, again.Add(-time.Second)); early != none {
			t.Errorf("expected nothing to do before %v, found %q", again, early)
		}
		now := again
		if data, did, again = after(t, data, now); did != c.did {
			t.Fatalf("after %v: expected %q, found %q", now.Sub(t0), c.did, did)
		}
		if n := bytes.Count(data[KeyCA], []byte("BEGIN")); n != c.cas {
			t.Errorf("after %v: expected %d CAs, found %d", now.Sub(t0), c.cas, n)
		}
	}
	if bytes.Equal(data[KeyCertificate], first[KeyCertificate]) || bytes.Contains(data[KeyCA], first[KeyCA]) {
		t.Error("expected nothing left of the first")
	}
}

// What is damaged, foreign or out of date is made anew, and what can still be used is.
func TestWhateverTheSecretHolds(t *testing.T) {
	fresh, _, _ := after(t, nil, t0)
	rotating, _, _ := after(t, fresh, t0.Add(60*day))
	took2, _, _ := after(t, rotating, t0.Add(61*day))
	stranger, _, _ := after(t, nil, t0)
	with := func(data map[string][]byte, changes ...string) map[string][]byte {
		changed := maps.Clone(data)
		for i := 0; i < len(changes); i += 2 {
			changed[changes[i]] = []byte(changes[i+1])
		}
		return changed
	}
	for name, c := range map[string]struct {
		data  map[string][]byte
		at    time.Duration
		did   step
		stays bool // the certificate that was used
	}{
		"nothing":            {map[string][]byte{}, 0, made, false},
		"whole":              {fresh, 30 * day, none, true},
		"no certificate":     {with(fresh, KeyCertificate, ""), day, made, false},
		"garbage":            {with(fresh, KeyCertificate, "garbage"), day, made, false},
		"another's key":      {with(fresh, KeyPrivate, string(stranger[KeyPrivate])), day, made, false},
		"no CA":              {with(fresh, KeyCA, ""), day, made, false},
		"another's CA":       {with(fresh, KeyCA, string(stranger[KeyCA])), day, made, false},
		"one CA too many":    {with(fresh, KeyCA, string(fresh[KeyCA])+string(stranger[KeyCA])), day, none, true},
		"text around the CA": {with(fresh, KeyCA, "note\n"+string(fresh[KeyCA])), day, mended, true},
		"two CAs too many": {
			with(fresh, KeyCA, string(fresh[KeyCA])+string(stranger[KeyCA])+string(rotating[KeyCA])), day, mended, true,
		},
		"a key more":              {with(fresh, "note", "x"), day, mended, true},
		"half a successor":        {with(fresh, keyNextCertificate, string(rotating[keyNextCertificate])), day, mended, true},
		"a successor of nobody":   {with(rotating, keyNextPrivate, ""), 60*day + time.Hour, announced, true},
		"late":                    {fresh, 80 * day, announced, true},
		"too late":                {fresh, 91 * day, made, false},
		"too late, announced":     {rotating, 91 * day, took, false},
		"announced, key lost":     {with(rotating, KeyPrivate, ""), 60*day + time.Hour, took, false},
		"announced long ago":      {rotating, 75 * day, took, false},
		"the clock went back":     {took2, 0, made, false},
		"taken, the next is lost": {took2, 70 * day, none, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := maps.Clone(c.data)
			got, did, _ := after(t, c.data, t0.Add(c.at))
			if did != c.did {
				t.Errorf("expected %q, found %q", c.did, did)
			}
			if !maps.EqualFunc(before, c.data, bytes.Equal) {
				t.Error("what was given has been changed")
			}
			if same := bytes.Equal(got[KeyCertificate], c.data[KeyCertificate]); same != c.stays {
				t.Errorf("expected the certificate to stay: %v, found %v", c.stays, same)
			}
			served, err := tls.X509KeyPair(got[KeyCertificate], got[KeyPrivate])
			if err != nil {
				t.Fatal(err)
			}
			for _, serverName := range names {
				if err := handshake(t, served, got[KeyCA], serverName, t0.Add(c.at)); err != nil {
					t.Errorf("%s: %v", serverName, err)
				}
			}
			if err := handshake(t, served, got[KeyCA], "registry.example", t0.Add(c.at)); err == nil {
				t.Error("expected the certificate good for no other name")
			}
			for key := range got {
				if !slices.Contains([]string{KeyCertificate, KeyPrivate, KeyCA, keyNextCertificate, keyNextPrivate}, key) {
					t.Errorf("found the key %s", key)
				}
			}
		})
	}
}

// Other names are another certificate; those who know the old one's CA are not forgotten.
func TestOtherNames(t *testing.T) {
	data, _, _ := after(t, nil, t0)
	others, did, _, err := next(data, []string{"127.0.0.1", "::1", "another.svc"}, t0.Add(day))
	if err != nil || did != made || !bytes.Contains(others[KeyCA], data[KeyCA]) {
		t.Errorf("expected %q with both CAs, found %q, %v", made, did, err)
	}
	if fewer, did, _, err := next(data, names[:1], t0.Add(day)); did != none || err != nil {
		t.Errorf("a name more hurts nobody: found %q, %v: %v", did, err, fewer)
	}
	for _, bad := range [][]string{nil, {""}, {"a b"}, {"https://x"}, {"ä.example"}} {
		if _, _, _, err := next(data, bad, t0); err == nil {
			t.Errorf("%q: expected a refusal", bad)
		}
	}
}

// No CA can sign again: its key is in no Secret.
func TestNoKeyOfACAIsKept(t *testing.T) {
	data, _, _ := after(t, nil, t0)
	data, _, _ = after(t, data, t0.Add(60*day))
	for _, ca := range readCAs(data[KeyCA], t0.Add(60*day)) {
		for _, key := range []string{KeyPrivate, keyNextPrivate} {
			text := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: ca.Raw})
			if _, err := tls.X509KeyPair(text, data[key]); err == nil {
				t.Errorf("%s is the key of a CA", key)
			}
		}
	}
	if strings.Count(string(data[KeyCA]), "BEGIN") != 2 || bytes.Contains(data[KeyCA], []byte("KEY")) {
		t.Errorf("expected two certificates and nothing else, found %s", data[KeyCA])
	}
}

// Through a year of rotations every handshake succeeds, however late the registry and the pods learn of a change, if
// they learn of it within half the grace period.
func TestNobodyIsSurprised(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type version struct {
		data map[string][]byte
		from time.Time
	}
	data, _, _ := after(t, nil, t0)
	versions := []version{{data, t0}}
	// known is the latest version that somebody who is so late has: nobody goes back.
	known := func(before int, now time.Time) int {
		late := time.Duration(random.Int64N(int64(grace / 2)))
		for i := len(versions) - 1; i > before; i-- {
			if !versions[i].from.After(now.Add(-late)) {
				return i
			}
		}
		return before
	}
	life := 365 * day
	if testing.Short() {
		life = 130 * day // two rotations
	}
	served, trusted, steps := 0, make([]int, 3), 0
	for now := t0; now.Before(t0.Add(life)); now = now.Add(time.Duration(1+random.IntN(960)) * time.Minute) {
		again, did, _, err := next(versions[len(versions)-1].data, names, now)
		if err != nil {
			t.Fatal(err)
		}
		if did != none {
			versions = append(versions, version{again, now})
			steps++
		}
		served = known(served, now)
		pair, err := tls.X509KeyPair(versions[served].data[KeyCertificate], versions[served].data[KeyPrivate])
		if err != nil {
			t.Fatal(err)
		}
		for pod := range trusted {
			trusted[pod] = known(trusted[pod], now)
			if err := handshake(t, pair, versions[trusted[pod]].data[KeyCA], names[0], now); err != nil {
				t.Fatalf("after %v: the registry serves version %d, a pod trusts version %d of %d: %v",
					now.Sub(t0), served, trusted[pod], len(versions), err)
			}
		}
	}
	if least := int(life / (40 * day)); steps < least {
		t.Errorf("expected at least %d steps of rotations in %v, found %d", least, life, steps)
	}
}

// handshake is one of a client that trusts some CAs with a server that has a certificate, at a time.
func handshake(t *testing.T, served tls.Certificate, trusted []byte, name string, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	here, there := wire(t)
	at := func() time.Time { return now }
	var server sync.WaitGroup
	server.Go(func() {
		_ = tls.Server(there, &tls.Config{Certificates: []tls.Certificate{served}, MinVersion: tls.VersionTLS13}).Handshake()
	})
	client := tls.Client(here, &tls.Config{RootCAs: roots, ServerName: name, Time: at, MinVersion: tls.VersionTLS13})
	err := errors.Join(client.Handshake(), here.Close())
	server.Wait()
	return errors.Join(err, there.Close())
}

// wire is a connection with room for what both ends write at once: a client that refuses says so while the server still
// speaks.
func wire(t *testing.T) (here, there net.Conn) {
	t.Helper()
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, end := range ends {
		file := os.NewFile(uintptr(end), "wire")
		conns[i], err = net.FileConn(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}
