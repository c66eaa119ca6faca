package artifact

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Reason is why a source or the artifact registry did not give or take an artifact. The list is closed.
type Reason string

// The reasons. An error without one is of this machine (a full disk) and worth another try.
const (
	NotFound    Reason = "NotFound"    // there is no such artifact
	Unreachable Reason = "Unreachable" // no answer, or one that may be another soon
	Invalid     Reason = "Invalid"     // an answer or an artifact that is not what it should be

	Forbidden     Reason = "Forbidden"     // it leads to where we do not go, by our own policy
	Unauthorized  Reason = "Unauthorized"  // it wants credentials, or other ones
	SecretInvalid Reason = "SecretInvalid" // the credentials we have are not for its host, so it was not asked
)

// Error is a source's failure, or the artifact registry's, in our own words.
type Error struct {
	Reason Reason
	Retry  bool // whether trying again may help, all else being equal

	where, what string
	cause       error // not printed: it may repeat what a foreign server said
}

func (e *Error) Error() string { return e.where + ": " + e.what }
func (e *Error) Unwrap() error { return e.cause }

// invalid is an artifact or a reference that is not what it should be.
func invalid(where, format string, args ...any) *Error {
	return &Error{Reason: Invalid, where: where, what: fmt.Sprintf(format, args...)}
}

// place is who was asked, for a message: its name, and what it should be.
type place struct{ name, server string }

// refusal is what we do not take part in: too many redirects, too large a manifest.
type refusal string

func (r refusal) Error() string { return string(r) }

// forbidden is a request that we did not send, by our own policy.
type forbidden string

func (f forbidden) Error() string { return string(f) }

// local is a failure of this machine's, not of a registry.
type local struct{ error }

func (l local) Unwrap() error { return l.error }

// explain turns what went wrong between us and a server into an Error.
func explain(ctx context.Context, where place, err error) error {
	if ours := (local{}); errors.As(err, &ours) {
		return fmt.Errorf("%s: %w", where.name, ours.error)
	}
	e := &Error{Reason: Unreachable, Retry: true, where: where.name, cause: err}
	var response *errcode.ErrorResponse
	var refused refusal
	var off forbidden
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.what = "given up"
	case ctx.Err() != nil:
		e.what = "no answer in time"
	case errors.Is(err, errSlow):
		e.what = "its answer comes too slowly"
	case errors.As(err, &off):
		e.Reason, e.Retry, e.what = Forbidden, false, string(off)
	case errors.As(err, &refused):
		e.Reason, e.Retry, e.what = Invalid, false, string(refused)
	case errors.Is(err, errdef.ErrNotFound):
		e.Reason, e.Retry, e.what = NotFound, false, "not found"
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		e.Reason, e.what = Unauthorized, "credentials were asked for"
	case errors.As(err, &response):
		e.byStatus(where, response.StatusCode)
	case errors.Is(err, content.ErrMismatchedDigest):
		e.Reason, e.Retry, e.what = Invalid, false, "content with another digest than it is named by"
	case errors.Is(err, content.ErrTrailingData):
		e.Reason, e.Retry, e.what = Invalid, false, "content larger than its descriptor says"
	default:
		e.byNetwork(where, err)
	}
	return e
}

// byStatus reads an HTTP status.
func (e *Error) byStatus(where place, status int) {
	words := "status " + strconv.Itoa(status) + " (" + http.StatusText(status) + ")"
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Reason, e.what = Unauthorized, words
	case status == http.StatusNotFound || status == http.StatusGone:
		e.Reason, e.Retry, e.what = NotFound, false, "not found: "+words
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500:
		e.what = "it is not able to answer: " + words
	default:
		e.Reason, e.Retry, e.what = Invalid, false, "expected the answer of "+where.server+", found "+words
	}
}

// byNetwork reads an error of the network; what is none is an answer that makes no sense.
func (e *Error) byNetwork(where place, err error) {
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &dns):
		e.what = "the name of its host is not known"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.what = "connection refused"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		e.what = "expected an answer over TLS, found plain HTTP, which is allowed to loopback hosts only"
	case errors.As(err, &unknown), errors.As(err, &certificate):
		e.what = "its certificate is not trusted"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		e.what = "the connection broke off"
	case errors.As(err, &network): // *url.Error is one, so this is every request that was not answered
		e.what = "no answer"
		if network.Timeout() {
			e.what = "no answer in time"
		}
	default:
		e.Reason, e.Retry, e.what = Invalid, false, "expected the answer of "+where.server+", found something else"
	}
}
