package localnode

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestReferencesAreExpandedAsTheKubeletDoes(t *testing.T) {
	env := environment{{"A", "1"}, {"B", "$(A)"}}
	for text, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"$(A)":         "1",
		"x$(A)y$(A)":   "x1y1",
		"$(B)":         "$(A)", // what was put in is not looked at again
		"$(NONE)":      "$(NONE)",
		"$$(A)":        "$(A)",
		"$$$(A)":       "$1",
		"$":            "$",
		"$A":           "$A",
		"$(A":          "$(A",
		"5$ and $(A)$": "5$ and 1$",
		"$(NONE)$(A)":  "$(NONE)1",
	} {
		if got := expand(text, env); got != want {
			t.Errorf("expand(%q) = %q, expected %q", text, got, want)
		}
	}
}

func TestMountPathsBecomeFolders(t *testing.T) {
	mounts := []mount{{"/data", "/host/data"}, {"/data/deep", "/host/deep"}, {"/etc/x.yaml", "/host/x"}}
	for text, want := range map[string]string{
		"/data":                "/host/data",
		"/data/file":           "/host/data/file",
		"/data/deep/file":      "/host/deep/file",
		"/database":            "/database",
		"--dir=/data/a":        "--dir=/host/data/a",
		"--config=/etc/x.yaml": "--config=/host/x",
		"--dir":                "--dir",
		"see /data":            "see /data",
		"a=b=/data":            "a=b=/data",
	} {
		if got := rewrite(text, mounts); got != want {
			t.Errorf("rewrite(%q) = %q, expected %q", text, got, want)
		}
	}
}

func TestTheEnvironmentIsTheKubelets(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"app": "x", "b": "y"},
			Annotations: map[string]string{"switchyard.dev/a": "z"},
		},
		Spec:   corev1.PodSpec{NodeName: "local", ServiceAccountName: "sa"},
		Status: corev1.PodStatus{PodIP: "127.0.1.7", HostIP: "127.0.0.1"},
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	c := &corev1.Container{
		Name:      "c",
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("1500Ki")}},
		Env: []corev1.EnvVar{
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "NAME", ValueFrom: field("metadata.name")},
			{Name: "UID", ValueFrom: field("metadata.uid")},
			{Name: "APP", ValueFrom: field("metadata.labels['app']")},
			{Name: "NOTE", ValueFrom: field("metadata.annotations['switchyard.dev/a']")},
			{Name: "LABELS", ValueFrom: field("metadata.labels")},
			{Name: "ADDRESS", Value: "$(IP):8080 $(LATER) $(BASE)"},
			{Name: "LATER", Value: "1"},
			{Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
				Resource: "limits.memory", Divisor: resource.MustParse("1Mi"),
			}}},
		},
	}
	got, err := containerEnvironment(t.Context(), pod, c, environment{{"BASE", "base"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := environment{
		{"BASE", "base"},
		{"IP", "127.0.1.7"},
		{"NAME", "p"},
		{"UID", "u"},
		{"APP", "x"},
		{"NOTE", "z"},
		{"LABELS", "app=\"x\"\nb=\"y\""},
		{"ADDRESS", "127.0.1.7:8080 $(LATER) base"},
		{"LATER", "1"},
		{"MEMORY", "2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("environment\n%v, expected\n%v", got, want)
	}
	c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: field("status.phase")}}
	if _, err := containerEnvironment(t.Context(), pod, c, nil, nil); err == nil {
		t.Error("a field that the downward API has not was taken")
	}
}

func TestBackoffIsNoneThenDoubles(t *testing.T) {
	for ended, want := range []time.Duration{0, 0, 1, 2, 4, 5, 5} {
		if got := backoff(ended, 1, 5); got != want {
			t.Errorf("backoff after %d ends: %v, expected %v", ended, got, want)
		}
	}
}

func TestAProbeNeedsItsThresholdsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []bool{false, true, false, false, true, false, false, false}
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		var verdicts []string
		began := time.Now()
		probe(ctx, realClock{}, &corev1.Probe{PeriodSeconds: 2, FailureThreshold: 3, InitialDelaySeconds: 1},
			false, func(context.Context) error {
				ok := answers[asked]
				asked++
				if !ok {
					return errors.New("no")
				}
				return nil
			}, func(err error) {
				verdicts = append(verdicts, time.Since(began).String()+" "+map[bool]string{true: "good", false: "bad"}[err == nil])
				if asked == len(answers) {
					cancel()
				}
			})
		if want := []string{"3s good", "9s good", "15s bad"}; !slices.Equal(verdicts, want) {
			t.Errorf("verdicts %v, expected %v", verdicts, want)
		}
	})
}

func TestAContainerThatNeverAnsweredIsAskedEagerly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var bad, good time.Duration
		probe(ctx, realClock{}, &corev1.Probe{PeriodSeconds: 10, FailureThreshold: 2}, true,
			func(context.Context) error {
				if time.Since(began) < 10250*time.Millisecond {
					return errors.New("no")
				}
				return nil
			}, func(err error) {
				if err != nil {
					bad = time.Since(began)
					return
				}
				good = time.Since(began)
				cancel()
			})
		if bad != 10*time.Second || good != 10300*time.Millisecond {
			t.Errorf("bad after %v and good after %v, expected 10s (its threshold keeps its time) and 10.3s", bad, good)
		}
	})
}

func TestPodsThatAreNotReady(t *testing.T) {
	now := time.Unix(100, 0)
	pod := &corev1.Pod{}
	running := []observed{{name: "c", id: "1", running: true, started: true, ready: true, startedAt: now}}
	if s := podStatus(pod, place{"127.0.1.1", "127.0.0.1"}, running, now); !conditionTrue(s.Conditions, corev1.PodReady) ||
		s.Phase != corev1.PodRunning {
		t.Errorf("a ready container made %v", s)
	}
	ended := []observed{{name: "c", id: "1", ready: true, exited: &exit{code: 137}, reason: "CrashLoopBackOff"}}
	if s := podStatus(pod, place{"127.0.1.1", "127.0.0.1"}, ended, now); conditionTrue(s.Conditions, corev1.PodReady) ||
		conditionTrue(s.Conditions, corev1.ContainersReady) {
		t.Errorf("a container that has ended, whose probe was good to the end, made %v", s)
	}
	pod.DeletionTimestamp = &metav1.Time{Time: now}
	if s := podStatus(pod, place{}, running, now); conditionTrue(s.Conditions, corev1.PodReady) ||
		!conditionTrue(s.Conditions, corev1.ContainersReady) {
		t.Errorf("a pod in deletion has %v, expected its containers ready and itself not", s.Conditions)
	}
}

func TestNumbersComeBackLast(t *testing.T) {
	n := newNumbers()
	for want := 1; want <= mostAddresses; want++ {
		if got, _, err := n.take(0); err != nil || got != want {
			t.Fatalf("take: %d, %v, expected %d", got, err, want)
		}
	}
	_, free, err := n.take(7)
	if err == nil {
		t.Fatal("took one that was not there")
	}
	n.release(9)
	<-free
	if got, _, err := n.take(7); err != nil || got != 9 {
		t.Errorf("take: %d, %v, expected the one that came back, 9", got, err)
	}
}
