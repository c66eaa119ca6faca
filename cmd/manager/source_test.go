package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	robot    = "robot"
	password = "the-password-of-the-robot"
	query    = "signature=what-gives-access"
)

// archives serves archives of the samples; what is below /locked is for the robot.
func archives(t *testing.T) (url string, parity *atomic.Pointer[[]byte]) {
	t.Helper()
	parity = &atomic.Pointer[[]byte]{}
	data := wrappers.Archive(t).Folder("parity/", filepath.Join(digits.Adapters(sample), "parity")).Bytes()
	parity.Store(&data)
	base := wrappers.Archive(t).Folder("./", digits.Base(sample)).Bytes()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, pass, _ := r.BasicAuth()
		switch {
		case strings.HasPrefix(r.URL.Path, "/locked/") && (name != robot || pass != password):
			http.Error(w, "no", http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/parity.tar.gz"):
			_, _ = w.Write(*parity.Load())
		case strings.HasSuffix(r.URL.Path, "/base.tar.gz"):
			_, _ = w.Write(base)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, parity
}

func (s *space) secret(name string, kind corev1.SecretType, data map[string]string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}, Type: kind, StringData: data,
	}
}

// Archives and Secrets, of bases and adapters: what they need to be served, and what is said where they lack it.
func TestArchivesAndSecrets(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	url, archive := archives(t)
	host := strings.TrimPrefix(url, "http://")
	sum := sha256.Sum256(*archive.Load())
	good, locked := url+"/parity.tar.gz?"+query, url+"/locked/parity.tar.gz?"+query
	login := map[string]string{"host": host, "username": robot, "password": password}
	auth := base64.StdEncoding.EncodeToString([]byte(robot + ":" + password))
	docker := func(host string) map[string]string {
		return map[string]string{corev1.DockerConfigJsonKey: fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, auth)}
	}
	adapter := func(name, url, sum, secret string) *v1alpha1.LoRAAdapter {
		a := wrappers.LoRAAdapter(s.namespace, name).Pool("digits").Archive(url, sum)
		if secret != "" {
			a.Secret(secret)
		}
		return a.Obj()
	}

	// The base waits for its Secret, and comes once there is one.
	s.create(wrappers.Pool(s.namespace, "digits").Archive(url+"/locked/base.tar.gz", "").Secret("login").Obj())
	waiting := s.untilPool("digits", "False SecretNotFound")
	if !apimeta.IsStatusConditionTrue(waiting.Status.Conditions, v1alpha1.ConditionReconciling) {
		t.Errorf("expected it to be waited for, found %+v", waiting.Status.Conditions)
	}
	s.create(s.secret("login", v1alpha1.SecretTypeSource, login))
	s.runPods("digits", 1)

	s.create(
		s.secret("docker", corev1.SecretTypeDockerConfigJson, docker(host)),
		s.secret("other-host", corev1.SecretTypeDockerConfigJson, docker("registry.example")),
		s.secret("other-type", corev1.SecretTypeOpaque, login),
		s.secret("wrong", v1alpha1.SecretTypeSource, map[string]string{"host": host, "token": password}),
	)
	for _, c := range []struct {
		adapter       *v1alpha1.LoRAAdapter
		want, message string
		stalled       bool
	}{
		{adapter: adapter("open", good, "", ""), want: "True Serving"},
		{adapter: adapter("pinned", good, hex.EncodeToString(sum[:]), ""), want: "True Serving"},
		{adapter: adapter("by-login", locked, "", "login"), want: "True Serving"},
		{adapter: adapter("by-docker", locked, "", "docker"), want: "True Serving"},
		{
			adapter: adapter("another-sum", good, strings.Repeat("0", 64), ""), stalled: true,
			want: "False SourceInvalid", message: "expected an archive whose sha256 is",
		},
		{
			adapter: adapter("not-there", url+"/x.tar.gz?"+query, "", ""), stalled: true,
			want: "False SourceNotFound", message: "not found: status 404",
		},
		{
			adapter: adapter("metadata", "https://169.254.169.254/latest/x.tar.gz?"+query, "", ""), stalled: true,
			want: "False SourceForbidden", message: "it leads to a link-local address",
		},
		{adapter: adapter("no-secret", locked, "", ""), want: "False Unauthorized", message: "which a secretRef may name"},
		{
			adapter: adapter("wrong", locked, "", "wrong"),
			want:    "False Unauthorized", message: "it does not take the Secret's credentials",
		},
		{
			adapter: adapter("other-host", locked, "", "other-host"),
			want:    "False SecretInvalid", message: "the Secret has no credentials for its host",
		},
		{
			adapter: adapter("other-type", locked, "", "other-type"),
			want:    "False SecretInvalid", message: `Secret "other-type": expected type kubernetes.io/dockerconfigjson or`,
		},
		{
			adapter: adapter("later", locked, "", "later"),
			want:    "False SecretNotFound", message: `Secret "later": there is none of this name`,
		},
	} {
		s.create(c.adapter)
		a := s.untilAdapter(c.adapter.Name, c.want)
		ready := apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionReady)
		stalled := apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionStalled)
		if !strings.Contains(ready.Message, c.message) || stalled != c.stalled {
			t.Errorf("%s: expected %q, stalled %v, found %q, %v", a.Name, c.message, c.stalled, ready.Message, stalled)
		}
		target := a.Status.TargetRevision
		if c.message == "" && target.SourceRevision != "sha256:"+hex.EncodeToString(sum[:]) {
			t.Errorf("%s: expected the archive's sum as its revision, found %+v", a.Name, target)
		}
	}

	// A Secret that is mended is read again, and another reference is taken up at once.
	s.create(s.secret("later", v1alpha1.SecretTypeSource, login))
	s.untilAdapter("later", "True Serving")
	mended := s.secret("wrong", v1alpha1.SecretTypeSource, login)
	mended.StringData["token"] = ""
	if err := admin.Update(s.ctx, mended); err != nil {
		t.Fatal(err)
	}
	s.untilAdapter("wrong", "True Serving")
	s.change("other-type", func(spec *v1alpha1.LoRAAdapterSpec) { spec.SecretRef.Name = "docker" })
	s.untilAdapter("other-type", "True Serving")
	s.expectHidden(password, auth, query)
}

// expectHidden wants none of these words in any object but the Secrets, nor in the log.
func (s *space) expectHidden(words ...string) {
	s.t.Helper()
	said := map[string]string{"the manager's log": managerLog.String()}
	for _, list := range []client.ObjectList{
		&v1alpha1.InferencePoolList{}, &v1alpha1.LoRAAdapterList{}, &v1alpha1.AdapterAssignmentList{},
		&appsv1.DeploymentList{}, &corev1.PodList{}, &corev1.EventList{},
	} {
		if err := admin.List(s.ctx, list, client.InNamespace(s.namespace)); err != nil {
			s.t.Fatal(err)
		}
		switch list := list.(type) { // what the user wrote
		case *v1alpha1.LoRAAdapterList:
			for i := range list.Items {
				list.Items[i].Spec, list.Items[i].ManagedFields = v1alpha1.LoRAAdapterSpec{}, nil
			}
		case *v1alpha1.InferencePoolList:
			for i := range list.Items {
				list.Items[i].Spec = v1alpha1.InferencePoolSpec{}
			}
		}
		raw, err := json.Marshal(list)
		if err != nil {
			s.t.Fatal(err)
		}
		said[fmt.Sprintf("%T", list)] = string(raw)
	}
	for where, text := range said {
		for _, word := range words {
			if strings.Contains(text, word) {
				s.t.Errorf("%s: expected nothing of %q, found it in %s", where, word, text)
			}
		}
	}
}

// An archive that the registry lost and the URL no longer gives is said to be lost.
func TestALostArchiveThatHasChanged(t *testing.T) {
	s := newSpace(t)
	url, archive := archives(t)
	// A revision of its own, so that no other test needs what is taken away.
	s.create(s.pool("digits").Obj(), wrappers.LoRAAdapter(s.namespace, "parity").Pool("digits").
		Archive(url+"/parity.tar.gz", "").ClassNames("lost", "found").Obj())
	s.runPods("digits", 1)
	digest := s.untilAdapter("parity", "True Serving").Status.TargetRevision.Digest
	other := wrappers.Archive(t).Folder("", filepath.Join(digits.Adapters(sample), "holes")).Bytes()
	archive.Store(&other)
	_, hex, _ := strings.Cut(digest, ":")
	blob := filepath.Join(registryDir, "docker", "registry", "v2", "blobs", "sha256", hex[:2], hex, "data")
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.failing[digest] = v1alpha1.FailurePullFailed })
	var resolved *metav1.Condition
	s.until("lost", func() string {
		a := s.adapter("parity")
		resolved = apimeta.FindStatusCondition(a.Status.Conditions, v1alpha1.ConditionArtifactResolved)
		return says(a.Generation, a.Status.Conditions, v1alpha1.ConditionArtifactResolved)
	}, "ArtifactResolved=False SourceInvalid")
	lost := "the artifact registry has lost " + digest + ", and it cannot be had from the source again: "
	const changed = "its archive is another than it was"
	if m := resolved.Message; !strings.HasPrefix(m, lost) || !strings.Contains(m, changed) {
		t.Errorf("expected %s…%s…, found %s", lost, changed, m)
	}
}

// A base that the registry lost is there again for a new pod, which cannot say what it waits for.
func TestALostBaseIsPushedAgainForANewPod(t *testing.T) {
	s := newSpace(t)
	s.create(s.pool("digits").Obj())
	pod := s.runPods("digits", 1)[0]
	digest := s.untilPool("digits", "True Serving").Status.BaseModel.Digest
	_, hex, _ := strings.Cut(digest, ":")
	// Of this repository alone: others have the same base.
	link := filepath.Join(registryDir, "docker", "registry", "v2", "repositories", s.namespace, "digits", "_manifests",
		"revisions", "sha256", hex)
	if err := os.RemoveAll(link); err != nil {
		t.Fatal(err)
	}
	s.remove(&pod)
	s.until("the base", func() string {
		_, err := os.Stat(filepath.Join(link, "link"))
		return fmt.Sprint(err)
	}, "<nil>")
	s.runPods("digits", 1)
	s.untilPool("digits", "True Serving")
}

// A base that the registry lost and that the source has no more is not replaced by what the source has by now: a tag
// that has moved on, or another archive at the URL. The pods keep theirs, and the status says so.
func TestALostBaseIsNotReplacedByAnother(t *testing.T) {
	s := newSpace(t)
	url, archive := archives(t)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(digits.Base(sample), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	own := func(label string) *[]byte { // a base of its own, so that no other test needs what is taken away
		config := strings.Replace(read("config.json"), "{", `{"_name_or_path": "`+label+`",`, 1)
		archive := wrappers.Archive(t).
			File("config.json", config).File("model.safetensors", read("model.safetensors")).Bytes()
		return &archive
	}
	archive.Store(own("lost")) // what it serves as parity.tar.gz
	s.create(s.pool("digits").Archive(url+"/parity.tar.gz", "").Obj())
	pod := s.runPods("digits", 1)[0]
	before := s.untilPool("digits", "True Serving").Status.BaseModel
	archive.Store(own("found"))
	_, hex, _ := strings.Cut(before.Digest, ":")
	blobs := filepath.Join(registryDir, "docker", "registry", "v2", "blobs", "sha256")
	if err := os.Remove(filepath.Join(blobs, hex[:2], hex, "data")); err != nil {
		t.Fatal(err)
	}
	there := func() *v1alpha1.InferencePool {
		var p v1alpha1.InferencePool
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &p); err != nil {
			t.Fatal(err)
		}
		return &p
	}
	s.remove(&pod) // one that is not ready has the registry asked
	var resolved *metav1.Condition
	s.until("lost", func() string {
		p := there()
		resolved = apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionBaseModelResolved)
		return says(p.Generation, p.Status.Conditions, v1alpha1.ConditionBaseModelResolved)
	}, "BaseModelResolved=False SourceInvalid")
	if want := "the artifact registry has lost " + before.Digest; !strings.HasPrefix(resolved.Message, want) {
		t.Errorf("expected %s…, found %s", want, resolved.Message)
	}
	if after := there().Status.BaseModel; after != before {
		t.Errorf("the base: expected %+v still, found %+v", before, after)
	}
	var deployment appsv1.Deployment
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "digits"}, &deployment); err != nil {
		t.Fatal(err)
	}
	if args := deployment.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--base-digest="+before.Digest) {
		t.Errorf("the pods' base: expected %s still, found %v", before.Digest, args)
	}
}

// The manager may read a Secret whose name it was told, and not find out which there are.
func TestTheManagerMayNotListSecrets(t *testing.T) {
	for verb, want := range map[string]bool{
		"get": true, "list": false, "watch": false, "create": false, "update": false, "patch": false, "delete": false,
	} {
		review := authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + system + ":switchyard-manager",
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Verb: verb, Resource: "secrets"},
		}}
		if err := admin.Create(t.Context(), &review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed != want {
			t.Errorf("%s: expected %v, found %+v", verb, want, review.Status)
		}
	}
}

func TestSourceFlags(t *testing.T) {
	needed := []string{
		"--runtime-image", "runtime", "--registry-url", "https://registry:5000", "--registry-token-file", "token",
	}
	f, err := parseRunFlags(append(needed, "--source-allow-cidr", "10.1.2.3/8", "--source-allow-cidr", "fd00::/8",
		"--source-plain-http", "models:8080", "--source-plain-http", "registry"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.sourceAllow, f.sourcePlainHTTP); got != "[10.0.0.0/8 fd00::/8] [models:8080 registry]" {
		t.Errorf("found %s", got)
	}
	for _, wrong := range [][]string{
		{"--source-allow-cidr", "10.0.0.1"},
		{"--source-allow-cidr", "everything"},
		{"--source-plain-http", "http://models"},
		{"--source-plain-http", ""},
	} {
		if _, err := parseRunFlags(append(needed, wrong...)); err == nil {
			t.Errorf("%v: expected it to be refused", wrong)
		}
	}
}
