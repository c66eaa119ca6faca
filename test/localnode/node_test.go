package localnode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/switchyard-dev/switchyard/test/controlplane"
	"github.com/switchyard-dev/switchyard/test/localnode"
)

const (
	image = "example/echo:v1"
	soon  = 30 * time.Second // bounds a wait on a busy machine; none takes a tenth of it alone
)

// The package's one control plane and node.
var (
	client   kubernetes.Interface
	nodeDir  string
	options  localnode.Options
	stopNode func() error
)

func TestMain(m *testing.M) {
	code, err := withNode(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(code)
}

func withNode(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "localnode-test-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	echo := filepath.Join(dir, "echo")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", echo, "./echo").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{Dir: filepath.Join(dir, "plane")})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	if client, err = kubernetes.NewForConfig(plane.Config()); err != nil {
		return 0, err
	}
	nodeDir = filepath.Join(dir, "node")
	options = localnode.Options{
		Config: plane.Config(), Dir: nodeDir, Images: map[string]string{image: echo},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if err := startNode(); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, stopNode()
}

// startNode runs the node, and has stopNode end it.
func startNode() error {
	node, err := localnode.New(options)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(running) }()
	stopNode = func() error {
		stop()
		return <-ended
	}
	return nil
}

func TestADeploymentRunsAndItsPodsKnowThemselves(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 2, nil)
	for _, pod := range waitReady(t, ns, 2) {
		c := pod.Status.ContainerStatuses[0]
		if !c.Ready || c.Started == nil || !*c.Started || c.RestartCount != 0 || c.ContainerID == "" ||
			c.State.Running == nil {
			t.Errorf("status of a ready container: %+v", c)
		}
		told := ask(t, pod)
		wantArgs := []string{"--address=" + pod.Status.PodIP + ":8080", "--token-file"}
		if !slices.Equal(told.Args[1:3], wantArgs) {
			t.Errorf("arguments %v, expected to begin with %v", told.Args[1:], wantArgs)
		}
		for _, path := range []string{told.Args[3], strings.TrimPrefix(told.Args[4], "--state=")} {
			if !strings.HasPrefix(path, nodeDir+"/pods/"+string(pod.UID)+"/volumes/") {
				t.Errorf("path %s was not rewritten to the pod's folder", path)
			}
		}
		for _, want := range []string{
			"POD_NAME=" + pod.Name, "POD_NAMESPACE=" + ns, "POD_UID=" + string(pod.UID), "APP=echo",
			"STATE=" + strings.TrimPrefix(told.Args[4], "--state=") + "/x", "KUBERNETES_SERVICE_HOST=127.0.0.1",
			"GOMAXPROCS=1",
		} {
			if !slices.Contains(told.Env, want) {
				t.Errorf("environment has not %s: %v", want, told.Env)
			}
		}
	}
}

func TestTheProjectedTokenIsBoundToThePod(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, nil)
	pod := waitReady(t, ns, 1)[0]
	review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: ask(t, pod).Token, Audiences: []string{"switchyard"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := review.Status.User
	name, uid := user.Extra["authentication.kubernetes.io/pod-name"], user.Extra["authentication.kubernetes.io/pod-uid"]
	if !review.Status.Authenticated || user.Username != "system:serviceaccount:"+ns+":default" ||
		!slices.Equal(name, []string{pod.Name}) || !slices.Equal(uid, []string{string(pod.UID)}) {
		t.Errorf("review of the token: %+v", review.Status)
	}
}

func TestAKilledProcessIsARestart(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, nil)
	pod := waitReady(t, ns, 1)[0]
	before := pod.Status.ContainerStatuses[0]
	post(t, pod, "/keep", "still here")
	if err := syscall.Kill(ask(t, pod).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	pod = waitPod(t, ns, pod.Name, func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].Ready
	})
	after := pod.Status.ContainerStatuses[0]
	last := after.LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || last.Reason != "Error" || last.ContainerID != before.ContainerID {
		t.Errorf("last state: %+v, expected exit code 137 of %s", last, before.ContainerID)
	}
	if after.ContainerID == before.ContainerID || after.State.Running == nil ||
		after.State.Running.StartedAt.Time.Before(killed.Truncate(time.Second)) {
		t.Errorf("after the kill at %v the container is %+v", killed, after)
	}
	if kept := get(t, pod, "/keep"); kept != "still here" {
		t.Errorf("the emptyDir holds %q after a restart", kept)
	}
}

func TestAnUnhealthyContainerIsRestarted(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, nil)
	pod := waitReady(t, ns, 1)[0]
	post(t, pod, "/sick", "")
	pod = waitPod(t, ns, pod.Name, func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].Ready
	})
	if last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 0 {
		t.Errorf("last state: %+v, expected an end by SIGTERM with code 0", last)
	}
}

func TestAServiceLeadsToReadyPodsOnly(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 2, nil)
	createService(t, ns)
	pods := waitReady(t, ns, 2)
	address := serviceAddress(t, ns)
	seen := map[int]int{}
	for range 10 {
		seen[told(t, address).PID]++
	}
	if len(seen) != 2 || seen[ask(t, pods[0]).PID] != 5 {
		t.Errorf("ten connections went to %v, expected five to each of two pods", seen)
	}
	post(t, pods[0], "/unready", "")
	waitPod(t, ns, pods[0].Name, func(p *corev1.Pod) bool { return !isReady(p) })
	other := ask(t, pods[1]).PID
	waitFor(t, "the unready pod to leave the balance", func() bool {
		first, second := told(t, address).PID, told(t, address).PID
		return first == other && second == other
	})
	post(t, pods[1], "/unready", "")
	waitFor(t, "a Service without ready pods to close connections", func() bool {
		_, err := fetch(t.Context(), "GET", "http://"+address+"/", "")
		return err != nil
	})
	if service, err := client.CoreV1().Services(ns).Get(t.Context(), "echo", metav1.GetOptions{}); err != nil ||
		net.JoinHostPort(service.Annotations[localnode.AddressAnnotation], "80") != address {
		t.Errorf("service: %v, %v", service.Annotations, err)
	}
}

func TestPodsComeAndGoByScale(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, nil)
	waitReady(t, ns, 1)
	scale(t, ns, 3)
	pods := waitReady(t, ns, 3)
	scale(t, ns, 1)
	left := waitReady(t, ns, 1)
	for _, pod := range pods {
		if pod.Name == left[0].Name {
			continue
		}
		folder := filepath.Join(nodeDir, "pods", string(pod.UID))
		waitFor(t, "the folder of a gone pod to go", func() bool {
			_, err := os.Stat(folder)
			return errors.Is(err, os.ErrNotExist)
		})
		if _, err := fetch(t.Context(), "GET", "http://"+pod.Status.PodIP+":8080/", ""); err == nil {
			t.Errorf("the process of %s still answers", pod.Name)
		}
	}
}

// A pod in deletion is not Ready, leaves the balance, answers what it has taken, and is gone once its process is.
func TestADeletedPodDrains(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, func(pod *corev1.PodSpec) { // time to look at it
		pod.Containers[0].Lifecycle = &corev1.Lifecycle{
			PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}},
		}
	})
	createService(t, ns)
	pod := waitReady(t, ns, 1)[0]
	address := serviceAddress(t, ns)
	waitTold(t, address)
	scale(t, ns, 0)
	waitPod(t, ns, pod.Name, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil && !isReady(p) })
	ask(t, pod)
	if _, err := fetch(t.Context(), "GET", "http://"+address+"/", ""); err == nil {
		t.Error("the Service still leads to a pod in deletion")
	}
	waitGone(t, ns, pod)
	if _, err := fetch(t.Context(), "GET", "http://"+pod.Status.PodIP+":8080/", ""); err == nil {
		t.Error("the process outlived its pod")
	}
}

func TestAPodDeletedByForceDiesAtOnce(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, func(pod *corev1.PodSpec) {
		pod.Containers[0].Lifecycle = &corev1.Lifecycle{
			PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 20}},
		}
	})
	pod := waitReady(t, ns, 1)[0]
	pid := ask(t, pod).PID
	zero := int64(0)
	err := client.CoreV1().Pods(ns).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the process to die", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestWhatCannotRunSaysWhy(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, func(pod *corev1.PodSpec) { pod.Containers[0].Image = "example/none" })
	waitFor(t, "the container to wait with a message", func() bool {
		pods := listPods(t, ns)
		if len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 {
			return false
		}
		waiting := pods[0].Status.ContainerStatuses[0].State.Waiting
		return waiting != nil && strings.Contains(waiting.Message, `no binary for image "example/none"`)
	})
}

func TestAContainerThatEndsAtOnceBacksOff(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 1, func(pod *corev1.PodSpec) { pod.Containers[0].Command = []string{"/bin/false"} })
	waitFor(t, "the container to back off", func() bool {
		pods := listPods(t, ns)
		if len(pods) != 1 || len(pods[0].Status.ContainerStatuses) != 1 {
			return false
		}
		c := pods[0].Status.ContainerStatuses[0]
		return c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff" && c.RestartCount >= 1 &&
			c.LastTerminationState.Terminated != nil && c.LastTerminationState.Terminated.ExitCode == 1
	})
}

// A node that ends takes every process and goroutine with it; the next starts the containers again, where they were.
func TestANodeThatComesBackTakesUpItsPods(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 2, nil)
	createService(t, ns)
	pods := waitReady(t, ns, 2)
	address := serviceAddress(t, ns)
	post(t, pods[0], "/keep", "still here")
	pids := []int{ask(t, pods[0]).PID, ask(t, pods[1]).PID}
	if err := stopNode(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d outlived its node", pid)
		}
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("localnode.(*")) {
		t.Errorf("goroutines outlived their node:\n%s", stacks)
	}
	if err := startNode(); err != nil {
		t.Fatal(err)
	}
	for _, before := range pods {
		after := waitPod(t, ns, before.Name, func(p *corev1.Pod) bool {
			return p.Status.ContainerStatuses[0].RestartCount == 1 && isReady(p)
		})
		if after.Status.PodIP != before.Status.PodIP {
			t.Errorf("pod moved from %s to %s", before.Status.PodIP, after.Status.PodIP)
		}
	}
	if kept := get(t, pods[0], "/keep"); kept != "still here" {
		t.Errorf("the emptyDir holds %q after the node came back", kept)
	}
	told(t, address)
}

// Requests that keep coming while every pod is replaced are all answered, if the pods wait before they end.
func TestARollingUpdateLosesNoRequest(t *testing.T) {
	ns := namespace(t)
	createDeployment(t, ns, 2, func(pod *corev1.PodSpec) {
		pod.Containers[0].Lifecycle = &corev1.Lifecycle{
			PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}},
		}
	})
	createService(t, ns)
	old := waitReady(t, ns, 2)
	address := serviceAddress(t, ns)
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for ctx.Err() == nil {
			if _, err := fetch(context.WithoutCancel(ctx), "GET", "http://"+address+"/", ""); err != nil {
				failed <- err
				return
			}
		}
	}()
	patch := []byte(`{"spec":{"template":{"metadata":{"annotations":{"example.com/version":"2"}}}}}`)
	_, err := client.AppsV1().Deployments(ns).
		Patch(t.Context(), "echo", "application/strategic-merge-patch+json", patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range old {
		waitGone(t, ns, pod)
	}
	waitReady(t, ns, 2)
	stop()
	if err := <-failed; err != nil {
		t.Errorf("a request was lost: %v", err)
	}
}

func createDeployment(t *testing.T, ns string, replicas int32, change func(*corev1.PodSpec)) {
	t.Helper()
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: path},
		}}
	}
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{
			PeriodSeconds: 1, FailureThreshold: 1,
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")}},
		}
	}
	pod := corev1.PodSpec{
		Containers: []corev1.Container{{
			Name: "echo", Image: image,
			Args: []string{"--address=$(POD_IP):8080", "--token-file", "/run/token/token", "--state=/state"},
			Env: []corev1.EnvVar{
				field("POD_IP", "status.podIP"),
				field("POD_NAME", "metadata.name"),
				field("POD_NAMESPACE", "metadata.namespace"),
				field("POD_UID", "metadata.uid"),
				field("APP", "metadata.labels['app']"),
				{Name: "STATE", Value: "/state/x"},
				{Name: "GOMAXPROCS", Value: "1"},
			},
			Ports:          []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			ReadinessProbe: probe("/ready"), LivenessProbe: probe("/healthz"), StartupProbe: probe("/healthz"),
			VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/run/token"}, {Name: "state", MountPath: "/state"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Path: "token", Audience: "switchyard",
				}}},
			}}},
		},
	}
	pod.Containers[0].StartupProbe.FailureThreshold = 30
	if change != nil {
		change(&pod)
	}
	app := map[string]string{"app": "echo"}
	_, err := client.AppsV1().Deployments(ns).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}, Spec: pod},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func createService(t *testing.T, ns string) {
	t.Helper()
	_, err := client.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "echo"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func serviceAddress(t *testing.T, ns string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	address, err := localnode.ServiceAddress(ctx, client, ns, "echo")
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(address, "80")
}

func scale(t *testing.T, ns string, replicas int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := client.AppsV1().Deployments(ns).
		Patch(t.Context(), "echo", "application/merge-patch+json", patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// namespace is one of the test's own.
func namespace(t *testing.T) string {
	t.Helper()
	made, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the next test needs its processor time
		if err := client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return made.Name
}

// waitReady waits until the Deployment says that all its replicas are ready, and there are no other pods.
func waitReady(t *testing.T, ns string, replicas int) (pods []corev1.Pod) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%d of %d pods to be ready", replicas, replicas), func() bool {
		d, err := client.AppsV1().Deployments(ns).Get(t.Context(), "echo", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pods = listPods(t, ns)
		return d.Status.ReadyReplicas == int32(replicas) && d.Status.Replicas == int32(replicas) && len(pods) == replicas
	})
	return pods
}

func waitPod(t *testing.T, ns, name string, holds func(*corev1.Pod) bool) (found corev1.Pod) {
	t.Helper()
	waitFor(t, "pod "+name, func() bool {
		pod, err := client.CoreV1().Pods(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		found = *pod
		return holds(pod)
	})
	return found
}

func waitGone(t *testing.T, ns string, pod corev1.Pod) {
	t.Helper()
	waitFor(t, "pod "+pod.Name+" to be gone", func() bool {
		_, err := client.CoreV1().Pods(ns).Get(t.Context(), pod.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, soon, true,
		func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

func listPods(t *testing.T, ns string) []corev1.Pod {
	t.Helper()
	pods, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// answer is what the echo tells of itself.
type answer struct {
	PID   int
	Args  []string
	Env   []string
	Token string
}

func ask(t *testing.T, pod corev1.Pod) answer {
	t.Helper()
	return told(t, pod.Status.PodIP+":8080")
}

func told(t *testing.T, address string) (a answer) {
	t.Helper()
	text, err := fetch(t.Context(), "GET", "http://"+address+"/", "")
	if err == nil {
		err = json.Unmarshal([]byte(text), &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// waitTold waits until a Service leads to a pod: the node may hear of one that is ready later than who asks.
func waitTold(t *testing.T, address string) {
	t.Helper()
	waitFor(t, "the Service to answer", func() bool {
		_, err := fetch(t.Context(), "GET", "http://"+address+"/", "")
		return err == nil
	})
}

func get(t *testing.T, pod corev1.Pod, path string) string {
	t.Helper()
	return must(t)(fetch(t.Context(), "GET", "http://"+pod.Status.PodIP+":8080"+path, ""))
}

func post(t *testing.T, pod corev1.Pod, path, body string) {
	t.Helper()
	must(t)(fetch(t.Context(), "POST", "http://"+pod.Status.PodIP+":8080"+path, body))
}

func must(t *testing.T) func(string, error) string {
	return func(text string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// fetch is one request on a connection of its own.
func fetch(ctx context.Context, method, url, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: HTTP %d: %s", method, url, response.StatusCode, text)
	}
	return string(text), err
}
