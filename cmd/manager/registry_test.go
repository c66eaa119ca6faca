package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/controllers/certificates"
	"github.com/switchyard-dev/switchyard/controllers/tokenreview"
	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
)

// as is how a service account of the system speaks to the API server, with the rights that it has.
func as(t *testing.T, account string) *rest.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := plane.ServiceAccountKubeconfig(t.Context(), system, account, path); err != nil {
		t.Fatal(err)
	}
	config, err := cluster(path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// open is the artifact registry over the folder of the one that runs, at a time of its own, asking the API server that
// a config reaches.
func open(t *testing.T, config *rest.Config, now func() time.Time) *registry.Registry {
	t.Helper()
	asking, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := registry.New(registry.Options{
		Dir: registryDir, Manager: "system:serviceaccount:" + system + ":" + managerAccount, Now: now,
		Reviewer: tokenreview.New(asking.AuthenticationV1().TokenReviews(), v1alpha1.RegistryAudience),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kept.Close() })
	return kept
}

// tokenOf is a service account's token, bound to a pod if there is one.
func tokenOf(t *testing.T, namespace, account string, pod *corev1.Pod, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
		}
	}
	made, err := kube.CoreV1().ServiceAccounts(namespace).
		CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made.Status.Token
}

// altered is a token whose claims are others, signed by the API server's own key.
func altered(t *testing.T, token string, change func(claims map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if raw, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(plane.Dir, "certificates", "service-account.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// asked is what a registry answers to a request.
func asked(t *testing.T, kept *registry.Registry, method, path, token string) int {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	request.Header.Set("Authorization", "Bearer "+token)
	answer := httptest.NewRecorder()
	kept.ServeHTTP(answer, request)
	return answer.Code
}

// Tokens as kubelets get them, reviewed by a real API server: a pool's pods pull their own repository and nothing else,
// for as long as they are there.
func TestWhoseTokenPulls(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(
		s.pool("digits").Obj(), s.lora("parity", "parity"),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "other-runtime"}},
	)
	pod := s.runPods("digits", 1)[0]
	digest := s.untilServed("parity", 1).Status.TargetRevision.Digest
	var now atomic.Pointer[time.Time]
	now.Store(new(time.Now()))
	kept := open(t, as(t, registryAccount), func() time.Time { return *now.Load() })
	own := "/v2/" + s.namespace + "/digits/manifests/" + digest

	const audience = v1alpha1.RegistryAudience
	account := pod.Spec.ServiceAccountName
	token := tokenOf(t, s.namespace, account, &pod, audience)
	expired := altered(t, token, func(claims map[string]any) {
		claims["exp"], claims["iat"] = time.Now().Add(-time.Hour).Unix(), time.Now().Add(-2*time.Hour).Unix()
		claims["nbf"] = claims["iat"]
	})
	same := altered(t, token, func(map[string]any) {})
	manager := tokenOf(t, system, managerAccount, nil, audience)
	cut := token[:len(token)-8] + "AAAAAAAA"
	for _, c := range []struct {
		what, method, path, token string
		status                    int
	}{
		{"its own", "GET", own, token, 200},
		{"its own, signed here", "GET", own, same, 200}, // so that the expired one is refused for that alone
		{"the manager's", "GET", own, manager, 200},
		{"another pool's", "GET", own, tokenOf(t, s.namespace, "other-runtime", nil, audience), 403},
		{"another namespace's", "GET", "/v2/elsewhere/digits/manifests/" + digest, token, 403},
		{"an account that is none of pods", "GET", own, tokenOf(t, system, registryAccount, nil, audience), 403},
		{"for the API server", "GET", own, tokenOf(t, s.namespace, account, &pod), 401},
		{"for another service", "GET", own, tokenOf(t, s.namespace, account, &pod, "vault"), 401},
		{"for another service, of the manager", "GET", own, tokenOf(t, system, managerAccount, nil, "vault"), 401},
		{"expired", "GET", own, expired, 401},
		{"not signed", "GET", own, cut, 401},
		{"garbage", "GET", own, "garbage", 401},
		{"a push by a pod", "PUT", own, token, 403},
		{"a push by tag", "PUT", "/v2/" + s.namespace + "/digits/manifests/v1", manager, 404},
		{"a deletion", "DELETE", own, manager, 405},
	} {
		if got := asked(t, kept, c.method, c.path, c.token); got != c.status {
			t.Errorf("%s: expected %d, found %d", c.what, c.status, got)
		}
	}

	nowhere := as(t, registryAccount)
	nowhere.Host = "https://127.0.0.1:1" // nobody listens there
	if got := asked(t, open(t, nowhere, time.Now), "GET", own, token); got != http.StatusServiceUnavailable {
		t.Errorf("without an API server: expected 503, found %d", got)
	}

	// A pod's token is worth nothing once it is known that the pod is gone.
	if err := admin.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if got := asked(t, kept, "GET", own, token); got != 200 {
		t.Errorf("within a minute: expected 200, found %d", got)
	}
	s.until("the token of a pod that is gone", func() string {
		now.Store(new(now.Load().Add(time.Minute)))
		return strconv.Itoa(asked(t, kept, "GET", own, token))
	}, "401")
}

// mounts is where a test keeps what kubelet would mount.
type mounts struct {
	t        *testing.T
	dir      string
	registry *certwatcher.CertWatcher
}

func (m *mounts) path(name string) string { return filepath.Join(m.dir, name) }

func (m *mounts) write(name string, data []byte) {
	m.t.Helper()
	if err := os.WriteFile(m.path(name)+".new", data, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(m.path(name)+".new", m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// serve has the registry find a certificate, and waits until it serves that.
func (m *mounts) serve(secret *corev1.Secret) {
	m.t.Helper()
	m.write("tls.key", secret.Data["tls.key"])
	m.write("tls.crt", secret.Data["tls.crt"])
	if m.registry == nil {
		return
	}
	block, _ := pem.Decode(secret.Data["tls.crt"])
	err := wait.PollUntilContextTimeout(m.t.Context(), 10*time.Millisecond, within, true,
		func(context.Context) (bool, error) {
			served, err := m.registry.GetCertificate(nil)
			return err == nil && string(served.Certificate[0]) == string(block.Bytes), nil
		})
	if err != nil {
		m.t.Fatalf("the registry never serves the certificate that it has: %v", err)
	}
}

// Through a whole rotation, kept by the reconciler in a real API server, pods pull and the manager pushes over real
// connections: with what was trusted before, with both, with what comes after, and whether the registry or they learn
// of it first. The manager keeps its connections, but has none after a restart of its own or of the registry.
func TestPullsAndPushesThroughARotation(t *testing.T) {
	s := newSpace(t)
	s.create(s.pool("digits").Obj(), s.lora("parity", "parity"))
	pod := s.runPods("digits", 1)[0]
	digest := s.untilServed("parity", 1).Status.TargetRevision.Digest

	now := time.Now().Add(-70 * 24 * time.Hour)
	secret := types.NamespacedName{Namespace: s.namespace, Name: "rotating"}
	keeper := certificates.New(certificates.Options{
		Client: admin, Reader: admin, Secret: secret, Names: []string{"127.0.0.1"}, Now: func() time.Time { return now },
	})
	after := func(passed time.Duration) *corev1.Secret {
		t.Helper()
		now = now.Add(passed)
		if _, err := keeper.Reconcile(t.Context(), reconcile.Request{NamespacedName: secret}); err != nil {
			t.Fatal(err)
		}
		var found corev1.Secret
		if err := admin.Get(t.Context(), secret, &found); err != nil {
			t.Fatal(err)
		}
		return &found
	}

	m := &mounts{t: t, dir: t.TempDir()}
	m.write("token", []byte(tokenOf(t, s.namespace, pod.Spec.ServiceAccountName, &pod, v1alpha1.RegistryAudience)))
	first := after(0)
	m.serve(first)
	address := m.listen(open(t, as(t, registryAccount), time.Now))
	pull := func(trusted *corev1.Secret) error {
		t.Helper()
		m.write("ca.crt", trusted.Data["ca.crt"])
		from, err := artifacts.NewRegistry(artifacts.RegistryOptions{
			Address: "https://" + address, Repository: s.namespace + "/digits",
			TokenFile: m.path("token"), CAFile: m.path("ca.crt"),
		})
		if err != nil {
			t.Fatal(err)
		}
		store, err := artifacts.NewStore(t.TempDir(), from)
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Fetch(t.Context(), digest, 1<<30)
		return err
	}
	pulls := func(what string, trusted *corev1.Secret) {
		t.Helper()
		if err := pull(trusted); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	account := tokenOf(t, system, managerAccount, nil, v1alpha1.RegistryAudience)
	toStore := func() *artifact.Store {
		t.Helper()
		store, err := artifact.NewStore(artifact.StoreOptions{
			Host: address, Token: func() (string, error) { return account, nil },
			Roots: certificates.NewTrust(admin, secret).Pool,
		})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	lasting := toStore()
	pushes := func(what string) {
		t.Helper()
		for connected, store := range map[string]*artifact.Store{"as before": lasting, "anew": toStore()} {
			if err := store.Push(t.Context(), s.namespace+"/digits", noise(t, 1<<10)); err != nil {
				t.Errorf("%s: the manager, connected %s: %v", what, connected, err)
			}
		}
	}

	pulls("at first", first)
	pushes("at first")
	announced := after(61 * 24 * time.Hour)
	if string(announced.Data["tls.crt"]) != string(first.Data["tls.crt"]) {
		t.Error("expected the first still used")
	}
	pulls("a successor is announced, and the pod has not heard of it", first)
	pulls("a successor is announced", announced)
	pushes("a successor is announced")
	taken := after(25 * time.Hour)
	if string(taken.Data["tls.crt"]) != string(announced.Data["next.crt"]) {
		t.Error("expected what was announced used")
	}
	pulls("it is used, and the registry has not heard of it, nor has the pod", announced)
	pulls("it is used, and the registry has not heard of it", taken)
	pushes("it is used, and the registry has not heard of it")
	m.serve(taken)
	pulls("it is used, and the pod has not heard of it", announced)
	pulls("it is used", taken)
	pushes("it is used")
	if err := pull(first); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a pod that never heard of it: expected the certificate refused, found %v", err)
	}

	// Whatever is done to the Secret by hand is mended.
	damaged := taken.DeepCopy()
	damaged.Data = map[string][]byte{"tls.crt": []byte("x"), "tls.key": nil, "ca.crt": taken.Data["ca.crt"]}
	if err := admin.Update(t.Context(), damaged); err != nil {
		t.Fatal(err)
	}
	mended := after(0)
	m.serve(mended)
	pulls("mended", mended)
	pushes("mended")
}

// listen serves a registry with the certificate in the folder, as manager registry does.
func (m *mounts) listen(kept *registry.Registry) (address string) {
	m.t.Helper()
	var err error
	if m.registry, err = certwatcher.New(m.path("tls.crt"), m.path("tls.key")); err != nil {
		m.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(m.t.Context())
	ended := make(chan error, 2)
	go func() { ended <- m.registry.Start(ctx) }()
	go func() {
		ended <- kept.Serve(ctx, tls.NewListener(listener, &tls.Config{
			GetCertificate: m.registry.GetCertificate, MinVersion: tls.VersionTLS13,
		}))
	}()
	m.t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			m.t.Error(err)
		}
	})
	return listener.Addr().String()
}

// What pods are to trust is in a ConfigMap of each pool, and is what the manager keeps.
func TestPoolsAreToldWhomToTrust(t *testing.T) {
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	s.runPods("digits", 1)
	told := func() string {
		var found corev1.ConfigMap
		key := client.ObjectKey{Namespace: s.namespace, Name: "digits-runtime"}
		if err := admin.Get(t.Context(), key, &found); err != nil {
			return err.Error()
		}
		return found.Data["ca.crt"]
	}
	var kept corev1.Secret
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: system, Name: certificatesSecret}, &kept); err != nil {
		t.Fatal(err)
	}
	s.until("what is trusted", told, string(kept.Data["ca.crt"]))
	other := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "digits-runtime"}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"data":{"ca.crt":"another's"}}`))
	if err := admin.Patch(t.Context(), &other, patch); err != nil {
		t.Fatal(err)
	}
	s.until("what is trusted, written over", told, string(kept.Data["ca.crt"]))
}

// /metrics of both parts are for who may read them, and the parts may find that out with the rights that they have.
func TestMetricsAreForWhoMayReadThem(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for _, name := range []string{"scraper", "other"} {
		s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}})
	}
	s.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-scraper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "switchyard-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.namespace, Name: "scraper"}},
	})
	tokens := map[string]string{
		"401": "", "403": tokenOf(t, s.namespace, "other", nil), "200": tokenOf(t, s.namespace, "scraper", nil),
	}
	for _, account := range []string{managerAccount, registryAccount} {
		address, err := freeAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		config, ended := as(t, account), make(chan error, 1)
		go func() {
			ended <- serveMetrics(ctx, config, &registryFlags{metricsAddress: address, metricsSecure: true})
		}()
		for want, token := range tokens {
			s.until(account+"'s metrics", func() string { return metricsStatus(t, address, token) }, want)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// metricsStatus is the status with which metrics are answered, over TLS with a certificate of that start alone.
func metricsStatus(t *testing.T, address, token string) string {
	t.Helper()
	scraper := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := scraper.Do(request)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode == http.StatusOK && !strings.Contains(string(text), "go_goroutines") {
		t.Errorf("expected metrics, found %v: %.200s", err, text)
	}
	return strconv.Itoa(response.StatusCode)
}

// What is wrong with flags is said before anything is begun.
func TestFlagsOfTheRegistry(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--dir", "x", "--tls-dir", "x"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "name"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "/name"},
		{"--dir", "x", "--manager-account", "a/b"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "more"},
		{"--push-token-file", "x"},
		{"--tls-dir", "x", "--manager-account", "a/b"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "--s3-bucket", "b", "--s3-region", "r"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "--s3-prefix", "p"},
		{"--tls-dir", "x", "--manager-account", "a/b", "--s3-bucket", "b"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "--gc-interval", "-1s"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "--gc-grace", "0"},
		{"--dir", "x", "--tls-dir", "x", "--manager-account", "a/b", "--scrub-rate", "0"},
	} {
		if _, err := parseRegistryFlags(args); !errors.Is(err, errUsage) {
			t.Errorf("%q: expected a refusal, found %v", args, err)
		}
	}
}

// The registry of config/s3 has the flags of a bucket, and no volume.
func TestTheComponentForABucket(t *testing.T) {
	root, err := filepath.Abs("../../config")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if root, err = filepath.Rel(dir, root); err != nil {
		t.Fatal(err)
	}
	text := "kind: Kustomization\nresources: [" + root + "/default]\ncomponents: [" + root + "/s3]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	built, err := exec.CommandContext(t.Context(), plane.Kubectl, "kustomize", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(built), "\nkind: PersistentVolumeClaim\n") {
		t.Error("expected no volume")
	}
	for _, one := range strings.Split(string(built), "\n---\n") {
		var d appsv1.Deployment
		if yaml.Unmarshal([]byte(one), &d) != nil || d.Kind != "Deployment" || d.Name != "switchyard-registry" {
			continue
		}
		f, err := parseRegistryFlags(d.Spec.Template.Spec.Containers[0].Args[1:])
		if err != nil || f.s3.Bucket == "" || f.dir != "" {
			t.Errorf("expected the flags of a bucket, found %+v, %v", f, err)
		}
		if n := len(d.Spec.Template.Spec.Volumes); n != 1 || d.Spec.Template.Spec.Volumes[0].Name != "tls" {
			t.Errorf("expected the certificate's volume alone, found %d", n)
		}
		return
	}
	t.Error("expected a Deployment of the registry")
}
