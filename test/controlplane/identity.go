package controlplane

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// AsServiceAccount has an admin's requests count as a service account's: who it is, and what it may do.
func AsServiceAccount(namespace, name string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
}

// AsPod has an admin's requests count as those of a pod under its service account, as with the token that kubelet gives
// it. Nobody looks whether there is such a pod.
func AsPod(namespace, account, name string, uid types.UID) rest.ImpersonationConfig {
	who := AsServiceAccount(namespace, account)
	who.Extra = map[string][]string{
		"authentication.kubernetes.io/pod-name": {name}, "authentication.kubernetes.io/pod-uid": {string(uid)},
	}
	return who
}

// Token is one of a service account, good for a day; bound to a pod, and gone with it, where one is given. It waits for
// the account, which a controller may still be making. Without audiences it is for the apiserver.
func (p *ControlPlane) Token(
	ctx context.Context, namespace, account string, pod *corev1.Pod, audiences ...string,
) (string, error) {
	client, err := kubernetes.NewForConfig(p.config)
	if err != nil {
		return "", err
	}
	seconds := int64(24 * time.Hour / time.Second)
	spec := authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &seconds}
	if pod != nil {
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		}
	}
	var token string
	err = wait.PollUntilContextTimeout(ctx, poll, startWithin, true, func(ctx context.Context) (bool, error) {
		made, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(
			ctx, account, &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		token = made.Status.Token
		return true, nil
	})
	if err != nil {
		return "", fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return token, nil
}

// TokenConfig is Config with a token in place of the admin's certificate.
func (p *ControlPlane) TokenConfig(token string) *rest.Config {
	config := rest.AnonymousClientConfig(p.config)
	config.BearerToken, config.QPS = token, p.config.QPS
	return config
}
