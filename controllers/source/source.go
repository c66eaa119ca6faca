package source

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// Spec is all that a spec says of where something comes from.
type Spec struct {
	Namespace string          `json:"namespace"` // of the Secret
	Source    v1alpha1.Source `json:"source"`
	Secret    string          `json:"secret"` // its name, or ""
}

// Of is what a spec in a namespace says.
func Of(namespace string, s v1alpha1.Source, secret *v1alpha1.SecretReference) Spec {
	spec := Spec{Namespace: namespace, Source: s}
	if secret != nil {
		spec.Secret = secret.Name
	}
	return spec
}

// Known tells whether a source is of a kind that this manager knows. The API server takes no other.
func (s Spec) Known() bool { return s.Source.OCI != nil || s.Source.HTTP != nil }

// String is a source as messages name it.
func (s Spec) String() string { return s.origin(nil).String() }

// origin is a source as the fetcher takes it.
func (s Spec) origin(credentials *artifact.Credentials) artifact.Origin {
	o := artifact.Origin{Credentials: credentials}
	switch {
	case s.Source.OCI != nil:
		o.Ref = s.Source.OCI.Ref
	case s.Source.HTTP != nil:
		o.URL, o.SHA256 = s.Source.HTTP.URL, s.Source.HTTP.SHA256
	}
	return o
}

// Fetcher fetches what specs name.
type Fetcher struct {
	Fetcher *artifact.Fetcher
	Secrets client.Reader // past any cache
}

// Fetch writes the files that a spec names into an empty folder and returns what the source calls their revision; with
// a revision given it is that or an error. The error is an *attempt.Failure.
func (f *Fetcher) Fetch(
	ctx context.Context, kind artifact.Kind, from Spec, revision, dir string,
) (found string, err error) {
	credentials, failure := f.credentials(ctx, from)
	if failure != nil {
		return "", failure
	}
	found, err = f.Fetcher.Fetch(ctx, kind, from.origin(credentials), revision, dir)
	if err != nil {
		return "", Failure(err)
	}
	return found, nil
}

// credentials are those that a spec refers to; nil where it refers to none.
func (f *Fetcher) credentials(ctx context.Context, from Spec) (*artifact.Credentials, *attempt.Failure) {
	if from.Secret == "" {
		return nil, nil
	}
	no := func(reason, format string, args ...any) *attempt.Failure {
		message := fmt.Sprintf("Secret %s: ", quote.Name(from.Secret)) + fmt.Sprintf(format, args...)
		return &attempt.Failure{Reason: reason, Retry: true, Message: message}
	}
	var secret corev1.Secret
	err := f.Secrets.Get(ctx, client.ObjectKey{Namespace: from.Namespace, Name: from.Secret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, no(v1alpha1.ReasonSecretNotFound, "there is none of this name in the namespace")
	case apierrors.IsForbidden(err):
		return nil, no(v1alpha1.ReasonSecretNotFound, "the manager may not read it: its RBAC leaves this namespace out")
	case err != nil:
		return nil, no(v1alpha1.ReasonSourceUnreachable, "the API server did not give it")
	}
	credentials, err := parse(&secret)
	if err != nil {
		return nil, no(v1alpha1.ReasonSecretInvalid, "%v", err)
	}
	return credentials, nil
}

// parse reads the credentials of a Secret, whose errors hold nothing of it.
func parse(secret *corev1.Secret) (*artifact.Credentials, error) {
	switch secret.Type { //nolint:exhaustive // all others are refused
	case corev1.SecretTypeDockerConfigJson:
		return artifact.ParseDockerConfig(secret.Data[corev1.DockerConfigJsonKey])
	case v1alpha1.SecretTypeSource:
		value := func(key string) string { // files end with a line
			return strings.TrimRight(string(secret.Data[key]), "\r\n")
		}
		return artifact.NewCredentials(value(v1alpha1.SecretKeyHost), value(v1alpha1.SecretKeyToken),
			value(v1alpha1.SecretKeyUsername), value(v1alpha1.SecretKeyPassword))
	}
	return nil, fmt.Errorf("expected type %s or %s, found another",
		corev1.SecretTypeDockerConfigJson, v1alpha1.SecretTypeSource)
}
