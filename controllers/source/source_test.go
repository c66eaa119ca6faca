package source

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
)

// A Secret is of one of two types and holds what that needs; what is said of another holds nothing of it.
func TestSecrets(t *testing.T) {
	const hidden = "hidden"
	config := func(text string) map[string]string { return map[string]string{corev1.DockerConfigJsonKey: text} }
	for _, c := range []struct {
		name string
		kind corev1.SecretType
		data map[string]string
		want string // "" where it is one
	}{
		{"docker's", corev1.SecretTypeDockerConfigJson, config(`{"auths": {"a.example": {"auth": "aGlkZGVuOnA="}}}`), ""},
		{"a token", v1alpha1.SecretTypeSource, map[string]string{"host": "a.example", "token": hidden}, ""},
		{
			"a token from a file", v1alpha1.SecretTypeSource,
			map[string]string{"host": "a.example\n", "token": hidden + "\r\n"},
			"",
		},
		{
			"a password", v1alpha1.SecretTypeSource,
			map[string]string{"host": "a.example:8443", "username": hidden, "password": hidden},
			"",
		},

		{"no type", "", map[string]string{"host": "a.example", "token": hidden}, "found another"},
		{"another type", corev1.SecretTypeOpaque, map[string]string{"host": "a.example", "token": hidden}, "found another"},
		{
			"basic-auth", corev1.SecretTypeBasicAuth,
			map[string]string{"username": hidden, "password": hidden},
			"expected type kubernetes.io/dockerconfigjson or switchyard.dev/source, found another",
		},
		{
			"docker's former", corev1.SecretTypeDockercfg,
			map[string]string{corev1.DockerConfigKey: `{"a": {"auth": "aGlkZGVuOnA="}}`},
			"found another",
		},
		{"a token's", corev1.SecretTypeServiceAccountToken, map[string]string{"token": hidden}, "found another"},
		{"docker's, empty", corev1.SecretTypeDockerConfigJson, nil, "as docker login writes it"},
		{"docker's, no JSON", corev1.SecretTypeDockerConfigJson, config(hidden), "as docker login writes it"},
		{"no host", v1alpha1.SecretTypeSource, map[string]string{"token": hidden}, "host: expected host or host:port"},
		{
			"a URL", v1alpha1.SecretTypeSource,
			map[string]string{"host": "https://" + hidden, "token": hidden},
			"host: expected",
		},
		{"no token", v1alpha1.SecretTypeSource, map[string]string{"host": hidden}, "found less"},
		{
			"both", v1alpha1.SecretTypeSource,
			map[string]string{"host": "a", "token": hidden, "username": hidden, "password": hidden},
			"found both",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret := corev1.Secret{Type: c.kind, Data: map[string][]byte{}}
			for key, value := range c.data {
				secret.Data[key] = []byte(value)
			}
			credentials, err := parse(&secret)
			switch {
			case c.want == "" && (err != nil || credentials == nil):
				t.Errorf("expected credentials, found %v", err)
			case c.want == "":
			case err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), hidden):
				t.Errorf("expected %q and nothing of the Secret, found %v", c.want, err)
			}
		})
	}
}

// Every reason of a source is one of the API's, and an error without one may pass.
func TestFailures(t *testing.T) {
	for reason, want := range map[artifact.Reason]string{
		artifact.NotFound: "SourceNotFound", artifact.Unreachable: "SourceUnreachable", artifact.Invalid: "SourceInvalid",
		artifact.Forbidden: "SourceForbidden", artifact.Unauthorized: "Unauthorized", artifact.SecretInvalid: "SecretInvalid",
	} {
		for _, retry := range []bool{false, true} {
			got := Failure(fmt.Errorf("wrapped: %w", &artifact.Error{Reason: reason, Retry: retry}))
			if got.Reason != want || got.Retry != retry {
				t.Errorf("%s: expected %s, %v, found %+v", reason, want, retry, got)
			}
		}
	}
	if got := Failure(errors.New("disk full")); *got != (attempt.Failure{
		Reason: "SourceUnreachable", Retry: true, Message: "disk full",
	}) {
		t.Errorf("found %+v", got)
	}
	failure := &attempt.Failure{Reason: "SecretNotFound"}
	if got := Failure(failure); got != failure {
		t.Errorf("expected a failure to stay what it is, found %+v", got)
	}
}
