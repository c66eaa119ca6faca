package certificates

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Trust tells what of the Secret everybody may know, as it is now, whoever keeps it: cert-manager writes the same keys.
type Trust struct {
	reader client.Reader
	secret types.NamespacedName

	mu   sync.Mutex
	pem  []byte
	pool *x509.CertPool // of those
}

// NewTrust reads a Secret from a cache of it.
func NewTrust(reader client.Reader, secret types.NamespacedName) *Trust {
	return &Trust{reader: reader, secret: secret}
}

// errNone says that there is nothing to trust.
var errNone = errors.New("no certificates to trust it by: its Secret is not there yet, or has no ca.crt")

// PEM is the certificates to trust; nil while there are none.
func (t *Trust) PEM(ctx context.Context) ([]byte, error) {
	var secret corev1.Secret
	if err := t.reader.Get(ctx, t.secret, &secret); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return secret.Data[KeyCA], nil
}

// Pool is the same for a client of the registry; without any it is an error.
func (t *Trust) Pool(ctx context.Context) (*x509.CertPool, error) {
	text, err := t.PEM(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != nil && bytes.Equal(text, t.pem) {
		return t.pool, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errNone
	}
	t.pem, t.pool = text, pool
	return pool, nil
}
