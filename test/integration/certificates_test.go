package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// Where another keeps the artifact registry's certificate, as cert-manager does, the manager only reads it: it pushes,
// and pods pull, by what that one's CA has signed, through a renewal too. The Secret has the three keys that
// cert-manager documents for a Certificate of a CA issuer.
func TestACertificateThatAnotherKeeps(t *testing.T) {
	long(t)
	s := newSite(t, 1, "parity")
	key := client.ObjectKey{Namespace: local.System, Name: local.TLSSecret}
	holder, _, err := place.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.truth.stop(noLeader)
	if err := place.KillManager(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the other is gone: the manager makes a certificate of its own, and all is as it was
		s.truth.stop(noLeader)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		err := errors.Join(place.KillManager(lasting), place.Client.Delete(lasting, secret), place.StartManager(lasting))
		if err != nil {
			t.Error(err)
		}
	})
	authority := newAuthority(t)
	keep := func(data map[string][]byte) {
		t.Helper()
		var secret corev1.Secret
		if err := place.Client.Get(t.Context(), key, &secret); err != nil {
			t.Fatal(err)
		}
		secret.Data = data
		if err := place.Client.Update(t.Context(), &secret); err != nil {
			t.Fatal(err)
		}
	}
	first := authority.issue(t)
	keep(first)
	err = errors.Join(place.StartManager(lasting, "--certificates=cert-manager"), <-s.awaitLeader(t.Context(), holder))
	if err != nil {
		t.Fatal(err)
	}
	s.apply(wrappers.LoRAAdapter(s.ns, "digit").Pool(poolName).Source(place.Ref("digit", "v1")).Obj())
	s.awaitServed("digit", 1)

	renewed := authority.issue(t)
	keep(renewed)
	s.await("the registry to serve the renewed certificate", func() error {
		return place.Serves(t.Context(), renewed["tls.crt"])
	})
	s.apply(wrappers.LoRAAdapter(s.ns, "holes").Pool(poolName).Source(place.Ref("holes", "v1")).Obj())
	s.awaitServed("holes", 1)

	var secret corev1.Secret
	if err := place.Client.Get(t.Context(), key, &secret); err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(secret.Data, renewed, slices.Equal[[]byte]) {
		t.Errorf("expected the Secret as it was left, found the keys %v with other content",
			slices.Sorted(maps.Keys(secret.Data)))
	}
}

// authority is a CA of nobody that the manager knows.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.certificate = &x509.Certificate{
		Subject: pkix.Name{CommonName: "another's CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	var raw []byte
	raw, a.key = a.sign(t, a.certificate, nil)
	var err error
	if a.certificate, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a key, and a certificate of it by the authority, or by itself where the authority has none yet.
func (a *authority) sign(t *testing.T, wanted *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	a.serial++
	wanted.SerialNumber = big.NewInt(a.serial)
	wanted.NotBefore, wanted.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	raw, err := x509.CreateCertificate(rand.Reader, wanted, a.certificate, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return raw, key
}

// issue is what the Secret holds of a new certificate for the artifact registry.
func (a *authority) issue(t *testing.T) map[string][]byte {
	t.Helper()
	raw, key := a.sign(t, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.key)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return map[string][]byte{
		"tls.crt": text("CERTIFICATE", raw), "tls.key": text("PRIVATE KEY", private),
		"ca.crt": text("CERTIFICATE", a.certificate.Raw),
	}
}
