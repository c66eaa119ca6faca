package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// credentials are the files in dir/certificates, made once for a folder.
type credentials struct{ dir string }

func (c credentials) path(name string) string { return filepath.Join(c.dir, name) }

// ensure makes what is missing, for an apiserver at a host and, as a Service, at an address. ca.crt comes last, so that
// an interrupted making is done again.
func (c credentials) ensure(host string, service netip.Addr) error {
	if _, err := os.Stat(c.path("ca.crt")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ca := authority{template: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "switchyard-local"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}}
	var err error
	if ca.key, err = c.newKey("ca.key"); err != nil {
		return err
	}
	if err := ca.issue(c, "apiserver", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(host), service.AsSlice()},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
	}); err != nil {
		return err
	}
	for name, user := range map[string]string{
		"admin": "admin", "controllers": "system:kube-controller-manager", "kubelet-client": "kube-apiserver",
	} {
		if err := ca.issue(c, name, &x509.Certificate{
			Subject:     pkix.Name{CommonName: user, Organization: []string{"system:masters"}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}); err != nil {
			return err
		}
	}
	if _, err := c.newKey("service-account.key"); err != nil {
		return err
	}
	return ca.sign(c, "ca.crt", ca.template, &ca.key.PublicKey)
}

// issue makes name.key and name.crt by the authority that ensure made.
func (c credentials) issue(name string, template *x509.Certificate) error {
	certificate, err := readPEM(c.path("ca.crt"))
	if err != nil {
		return err
	}
	key, err := readPEM(c.path("ca.key"))
	if err != nil {
		return err
	}
	var ca authority
	if ca.template, err = x509.ParseCertificate(certificate); err != nil {
		return err
	}
	if ca.key, err = x509.ParseECPrivateKey(key); err != nil {
		return err
	}
	return ca.issue(c, name, template)
}

func (c credentials) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(c.path(name), "EC PRIVATE KEY", der)
}

type authority struct {
	template *x509.Certificate
	key      *ecdsa.PrivateKey
}

// issue makes name.key and name.crt.
func (a authority) issue(c credentials, name string, template *x509.Certificate) error {
	key, err := c.newKey(name + ".key")
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return err
	}
	return a.sign(c, name+".crt", template, &key.PublicKey)
}

func (a authority) sign(c credentials, file string, template *x509.Certificate, key *ecdsa.PublicKey) error {
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.AddDate(10, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, a.template, key, a.key)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return writePEM(c.path(file), "CERTIFICATE", der)
}

func readPEM(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: expected PEM, found none", path)
	}
	return block.Bytes, nil
}

func writePEM(path, kind string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
