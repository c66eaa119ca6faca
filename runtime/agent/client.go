package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
)

const (
	resource       = "adapterassignments"
	requestTimeout = 15 * time.Second
	watchFor       = 5 * time.Minute
)

// Client reads and reports one AdapterAssignment, its pod's own.
type Client struct {
	api             *rest.RESTClient
	parameters      runtime.ParameterCodec
	namespace, name string
	log             *slog.Logger
	quiet           *quiet
	backoff         func(n int) time.Duration
}

// ServiceAccount is how the pod speaks to the API server: with the token in the folder, read again as it is renewed.
// namespace is the pod's.
func ServiceAccount(folder string, getenv func(string) string) (config *rest.Config, namespace string, err error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, "", errors.New("expected KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in the environment")
	}
	raw, err := os.ReadFile(filepath.Join(folder, "namespace"))
	if err != nil {
		return nil, "", fmt.Errorf("service account: %w", err)
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		BearerTokenFile: filepath.Join(folder, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(folder, "ca.crt")},
		UserAgent:       "switchyard-agent",
	}, strings.TrimSpace(string(raw)), nil
}

// LogTo has client-go's own lines written as the process's are.
func LogTo(log *slog.Logger) { klog.SetSlogLogger(log) }

// NewClient is a client of the assignment of that name.
func NewClient(config *rest.Config, namespace, name string, log *slog.Logger) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"}) // errors come as v1 Status
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS = -1 // what is written is coalesced already
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	return &Client{
		api: api, parameters: runtime.NewParameterCodec(scheme), namespace: namespace, name: name,
		log: log, quiet: newQuiet(log), backoff: backoff(100*time.Millisecond, 10*time.Second),
	}, nil
}

// Follow calls seen with each state of the assignment until ctx ends. One that is deleted is not told: its pod is going
// too, or it will be written again, and until then the pod goes on.
func (c *Client) Follow(ctx context.Context, seen func(*v1alpha1.AdapterAssignment)) {
	const lasting = 10 * time.Second // a watch that held so long did not fail
	failing := false
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		err := c.follow(ctx, func() {
			if failing {
				c.log.Info("the API server answers again")
				failing = false
			}
		}, seen)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failing = true
			c.quiet.warn("the assignment cannot be watched", err)
		}
		if time.Since(began) > lasting {
			n = 0
		}
		if !wait(ctx, c.backoff(n), nil) {
			return
		}
	}
}

// follow lists and then watches, until the watch ends.
func (c *Client) follow(ctx context.Context, listed func(), seen func(*v1alpha1.AdapterAssignment)) error {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", c.name).String()}
	var list v1alpha1.AdapterAssignmentList
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.api.Get().Namespace(c.namespace).Resource(resource).VersionedParams(&options, c.parameters).
		Do(limited).Into(&list)
	if err != nil {
		return err
	}
	listed()
	for i := range list.Items {
		seen(&list.Items[i])
	}
	seconds := int64(watchFor.Seconds())
	options.Watch, options.ResourceVersion, options.TimeoutSeconds = true, list.ResourceVersion, &seconds
	limited, cancel = context.WithTimeout(ctx, watchFor+requestTimeout)
	defer cancel()
	events, err := c.api.Get().Namespace(c.namespace).Resource(resource).VersionedParams(&options, c.parameters).
		Watch(limited)
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		switch event.Type {
		case watch.Added, watch.Modified:
			if a, ok := event.Object.(*v1alpha1.AdapterAssignment); ok {
				seen(a)
			}
		case watch.Error:
			return apierrors.FromObject(event.Object)
		case watch.Deleted, watch.Bookmark:
		}
	}
	return nil
}

// Report writes the status of the assignment of that UID, whatever its spec has become meanwhile: it says itself which
// revision of the spec it speaks of. One of the same name and another UID is left alone.
func (c *Client) Report(ctx context.Context, uid types.UID, status *v1alpha1.AdapterAssignmentStatus) error {
	patch, err := statusPatch(uid, status)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.api.Patch(types.JSONPatchType).Namespace(c.namespace).Resource(resource).Name(c.name).
		SubResource("status").Body(patch).Do(ctx).Error()
}

// statusPatch replaces all of the status. The test is what looks at the UID: in a merge it would be passed over.
func statusPatch(uid types.UID, status *v1alpha1.AdapterAssignmentStatus) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	return json.Marshal([]operation{{"test", "/metadata/uid", uid}, {"add", "/status", status}})
}
