package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"
)

const (
	// lifetime of a certificate and its CA.
	lifetime = 90 * 24 * time.Hour
	// skew is how far clocks may differ: a certificate is valid so long before it was made.
	skew = time.Hour
	// caName is the subject of our CAs: what has another is not ours.
	caName = "switchyard-registry-ca"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// pair is a certificate with its key, and the CA that it comes from.
type pair struct {
	crt, key []byte // PEM
	leaf, ca *x509.Certificate
}

// issued is when it was made.
func (p *pair) issued() time.Time { return p.leaf.NotBefore.Add(skew) }

// due is when a successor is.
func (p *pair) due() time.Time {
	return p.leaf.NotBefore.Add(p.leaf.NotAfter.Sub(p.leaf.NotBefore) / 3 * 2)
}

// issue makes a certificate for the names, with a CA of its own.
func issue(names []string, now time.Time) (*pair, error) {
	if len(names) == 0 {
		return nil, errors.New("certificate: expected a name, found none")
	}
	ca, caKey, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: caName}, KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}, now, nil, nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "switchyard-registry"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if address, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, address.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf, key, err := sign(template, now, ca, caKey)
	if err != nil {
		return nil, err
	}
	for _, name := range names { // else it would be made again and again
		if err := leaf.VerifyHostname(name); err != nil {
			return nil, fmt.Errorf("certificate: expected host names and addresses, found %q", name)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &pair{
		crt:  encode(leaf),
		key:  pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}),
		leaf: leaf, ca: ca,
	}, nil
}

// sign makes a key and a certificate for it, signed by a CA or by itself.
func sign(
	template *x509.Certificate, now time.Time, ca *x509.Certificate, caKey *ecdsa.PrivateKey,
) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	now = now.Truncate(time.Second)
	template.NotBefore, template.NotAfter = now.Add(-skew), now.Add(lifetime)
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	made, err := x509.ParseCertificate(der)
	return made, key, err
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})
}

// read is the pair that two PEM texts hold, if one of the CAs has signed it and it is good for the names at that time;
// else nil.
func read(crt, key []byte, cas []*x509.Certificate, names []string, now time.Time) *pair {
	parsed, err := tls.X509KeyPair(crt, key)
	if err != nil || len(parsed.Certificate) != 1 {
		return nil
	}
	p := &pair{crt: encode(parsed.Leaf), key: key, leaf: parsed.Leaf}
	for _, name := range names {
		if p.leaf.VerifyHostname(name) != nil {
			return nil
		}
	}
	for _, ca := range cas {
		roots := x509.NewCertPool()
		roots.AddCert(ca)
		_, err := p.leaf.Verify(x509.VerifyOptions{
			Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err == nil {
			p.ca = ca
			return p
		}
	}
	return nil
}

// readCAs are those of ours among some PEM texts that are valid at that time.
func readCAs(text []byte, now time.Time) (cas []*x509.Certificate) {
	for len(cas) < mostCAs {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if block.Type != pemCertificate || err != nil || !ca.IsCA || ca.Subject.CommonName != caName ||
			ca.NotAfter.Sub(ca.NotBefore) > lifetime+skew || now.Before(ca.NotBefore) || !now.Before(ca.NotAfter) {
			continue
		}
		cas = append(cas, ca)
	}
	return cas
}

// mostCAs is more than there ever are.
const mostCAs = 8
