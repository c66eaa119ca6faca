package certificates

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// The keys of the Secret.
const (
	KeyCertificate = "tls.crt"
	KeyPrivate     = "tls.key"
	KeyCA          = "ca.crt"

	keyNextCertificate = "next.crt"
	keyNextPrivate     = "next.key"
)

// grace is how long a successor is only announced. Kubelets bring a change to pods within two minutes; a node or the
// API server may be away for longer.
const grace = 24 * time.Hour

// step is what was done to a Secret.
type step string

const (
	none      step = ""
	made      step = "made a certificate"
	announced step = "announced a successor"
	took      step = "took the successor into use"
	mended    step = "mended the Secret"
)

// next is what the Secret should hold at that time, what has been done for it, and when to look again.
func next(
	data map[string][]byte, names []string, now time.Time,
) (wanted map[string][]byte, did step, again time.Time, err error) {
	if err := checkNames(names); err != nil {
		return nil, none, again, err
	}
	cas := readCAs(data[KeyCA], now)
	current := read(data[KeyCertificate], data[KeyPrivate], cas, names, now)
	successor := read(data[keyNextCertificate], data[keyNextPrivate], cas, names, now)
	switch {
	case successor != nil && (current == nil || !now.Before(successor.issued().Add(grace))):
		current, successor, did = successor, nil, took
	case current == nil:
		if current, err = issue(names, now); err != nil {
			return nil, none, again, err
		}
		successor, did = nil, made
	}
	if successor == nil && !now.Before(current.due()) {
		if successor, err = issue(names, now); err != nil {
			return nil, none, again, err
		}
		did = announced
	}
	wanted, again = content(current, successor, predecessor(cas, current))
	if did == none && !maps.EqualFunc(wanted, data, bytes.Equal) {
		did = mended
	}
	return wanted, did, again, nil
}

// checkNames refuses what is neither an address nor a host's name: a certificate for it would be of use to nobody.
func checkNames(names []string) error {
	if len(names) == 0 {
		return errors.New("names of the artifact registry: expected at least one, found none")
	}
	for _, name := range names {
		if net.ParseIP(name) == nil && len(validation.IsDNS1123Subdomain(name)) > 0 {
			return fmt.Errorf("names of the artifact registry: expected host names and addresses, found %q", name)
		}
	}
	return nil
}

// predecessor is the CA of the certificate before: the youngest that is not the present one's; nil if there is none.
func predecessor(cas []*x509.Certificate, current *pair) (former *x509.Certificate) {
	for _, ca := range cas {
		if !ca.Equal(current.ca) && (former == nil || ca.NotAfter.After(former.NotAfter)) {
			former = ca
		}
	}
	return former
}

// content is what the Secret holds, until when.
func content(current, successor *pair, former *x509.Certificate) (data map[string][]byte, until time.Time) {
	data = map[string][]byte{KeyCertificate: current.crt, KeyPrivate: current.key}
	trusted := encode(current.ca)
	switch {
	case successor != nil: // nobody serves the predecessor any more
		data[keyNextCertificate], data[keyNextPrivate] = successor.crt, successor.key
		trusted = append(trusted, encode(successor.ca)...)
		until = successor.issued().Add(grace)
	case former != nil:
		trusted = append(trusted, encode(former)...)
		until = current.due()
		if former.NotAfter.Before(until) {
			until = former.NotAfter
		}
	default:
		until = current.due()
	}
	data[KeyCA] = trusted
	return data, until
}
