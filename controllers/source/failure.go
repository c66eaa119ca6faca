package source

import (
	"errors"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
)

// reasons are those of a source's errors, as the API has them.
var reasons = map[artifact.Reason]string{
	artifact.NotFound:      v1alpha1.ReasonSourceNotFound,
	artifact.Unreachable:   v1alpha1.ReasonSourceUnreachable,
	artifact.Invalid:       v1alpha1.ReasonSourceInvalid,
	artifact.Forbidden:     v1alpha1.ReasonSourceForbidden,
	artifact.Unauthorized:  v1alpha1.ReasonUnauthorized,
	artifact.SecretInvalid: v1alpha1.ReasonSecretInvalid,
}

// Failure is what an error on the way from a source means. One without a reason is of this machine, and may pass.
func Failure(err error) *attempt.Failure {
	f := &attempt.Failure{Reason: v1alpha1.ReasonSourceUnreachable, Retry: true, Message: err.Error()}
	var failure *attempt.Failure
	if errors.As(err, &failure) {
		return failure
	}
	var e *artifact.Error
	if errors.As(err, &e) {
		f.Reason, f.Retry = reasons[e.Reason], e.Retry
	}
	return f
}

// StoreFailure is what an error of the artifact registry means, whatever it is: nothing is wrong with the artifact.
func StoreFailure(err error) *attempt.Failure {
	return &attempt.Failure{Reason: v1alpha1.ReasonStoreUnavailable, Retry: true, Message: err.Error()}
}
