package localnode

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// objects finds the data of ConfigMaps and Secrets in a pod's namespace; nil data and no error where it is optional and
// not there.
type objects interface {
	configMap(ctx context.Context, name string, optional bool) (map[string][]byte, error)
	secret(ctx context.Context, name string, optional bool) (map[string][]byte, error)
}

// variable is one of the environment, in the order of its definition.
type variable struct{ name, value string }

type environment []variable

// set keeps the last of a name.
func (e *environment) set(name, value string) {
	*e = append(slices.DeleteFunc(*e, func(v variable) bool { return v.name == name }), variable{name, value})
}

func (e environment) get(name string) (string, bool) {
	for _, v := range e {
		if v.name == name {
			return v.value, true
		}
	}
	return "", false
}

// containerEnvironment is what the kubelet would give the container: the apiserver's address, envFrom, then env with
// references expanded to what stands before.
func containerEnvironment(
	ctx context.Context, pod *corev1.Pod, c *corev1.Container, base environment, find objects,
) (environment, error) {
	env := slices.Clone(base)
	for _, from := range c.EnvFrom {
		data, err := dataFrom(ctx, from, find)
		if err != nil {
			return nil, err
		}
		for _, key := range sortedKeys(data) {
			env.set(from.Prefix+key, string(data[key]))
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env.set(v.Name, expand(v.Value, env))
			continue
		}
		value, there, err := valueFrom(ctx, pod, c, v.ValueFrom, find)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", quote.Name(v.Name), err)
		}
		if there {
			env.set(v.Name, value)
		}
	}
	return env, nil
}

func dataFrom(ctx context.Context, from corev1.EnvFromSource, find objects) (map[string][]byte, error) {
	switch {
	case from.ConfigMapRef != nil:
		return find.configMap(ctx, from.ConfigMapRef.Name, isTrue(from.ConfigMapRef.Optional))
	case from.SecretRef != nil:
		return find.secret(ctx, from.SecretRef.Name, isTrue(from.SecretRef.Optional))
	default:
		return nil, fmt.Errorf("envFrom: expected configMapRef or secretRef, found %s", quote.Text(from.String()))
	}
}

func valueFrom(
	ctx context.Context, pod *corev1.Pod, c *corev1.Container, source *corev1.EnvVarSource, find objects,
) (value string, there bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = fieldOf(pod, source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		value, err = resourceOf(c, source.ResourceFieldRef)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		data, err := find.configMap(ctx, ref.Name, isTrue(ref.Optional))
		return keyOf(data, ref.Name, ref.Key, isTrue(ref.Optional), err)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		data, err := find.secret(ctx, ref.Name, isTrue(ref.Optional))
		return keyOf(data, ref.Name, ref.Key, isTrue(ref.Optional), err)
	default:
		return "", false, fmt.Errorf("valueFrom: unknown source %s", quote.Text(source.String()))
	}
}

func keyOf(data map[string][]byte, name, key string, optional bool, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, there := data[key]
	if !there && !optional {
		return "", false, fmt.Errorf("%s has no key %s", quote.Name(name), quote.Name(key))
	}
	return string(value), there, nil
}

// fieldOf is a field of the pod by its path, as the downward API knows them.
func fieldOf(pod *corev1.Pod, path string) (string, error) {
	if field, key, subscripted := strings.Cut(strings.TrimSuffix(path, "']"), "['"); subscripted {
		switch field {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return pairs(pod.Labels), nil
	case "metadata.annotations":
		return pairs(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	default:
		return "", fmt.Errorf("fieldRef: %s is not one of the downward API", quote.Name(path))
	}
}

// pairs is one line a pair, as downward API files hold labels.
func pairs(of map[string]string) string {
	var text strings.Builder
	for _, key := range sortedKeys(of) {
		fmt.Fprintf(&text, "%s=%q\n", key, of[key])
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// resourceOf is a limit or request in units of the divisor, rounded up; a limit that is not set is not a number a test
// should build on, so it is refused.
func resourceOf(c *corev1.Container, selector *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(selector.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	quantity, there := list[corev1.ResourceName(name)]
	if !there {
		return "", fmt.Errorf("resourceFieldRef: container %s sets no %s", quote.Name(c.Name), quote.Text(selector.Resource))
	}
	divisor := selector.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	per := divisor.MilliValue()
	return strconv.FormatInt((quantity.MilliValue()+per-1)/per, 10), nil
}

// expand replaces $(NAME) by the variable's value; $$ is one $, and a reference to nothing stays as it is.
func expand(text string, env environment) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		value, defined := env.get(name)
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteString("$")
			text = after[1:]
		case strings.HasPrefix(after, "(") && closed && defined:
			out.WriteString(value)
			text = rest
		case strings.HasPrefix(after, "(") && closed: // the name is not looked at again
			out.WriteString("$(" + name + ")")
			text = rest
		default:
			out.WriteString("$")
			text = after
		}
	}
}

// mount is a path within the container and the host's folder or file that stands for it.
type mount struct{ path, host string }

// rewrite puts the host's path for a mount path that begins the text or follows its first "=". The longest path wins.
func rewrite(text string, mounts []mount) string {
	if host, ok := hostPath(text, mounts); ok {
		return host
	}
	if name, value, found := strings.Cut(text, "="); found {
		if host, ok := hostPath(value, mounts); ok {
			return name + "=" + host
		}
	}
	return text
}

func hostPath(text string, mounts []mount) (string, bool) {
	var best mount
	for _, m := range mounts {
		rest, begins := strings.CutPrefix(text, m.path)
		if begins && (rest == "" || rest[0] == '/') && len(m.path) > len(best.path) {
			best = m
		}
	}
	if best.path == "" {
		return "", false
	}
	return best.host + strings.TrimPrefix(text, best.path), true
}

// command is what a container runs.
type command struct {
	binary string
	args   []string
	env    []string
	dir    string
}

// commandOf expands and rewrites the container's command, arguments and environment.
func commandOf(c *corev1.Container, binary string, env environment, mounts []mount) command {
	arguments := slices.Clone(c.Args)
	if len(c.Command) > 0 {
		own := expand(c.Command[0], env)
		if filepath.Base(own) != filepath.Base(binary) {
			binary = rewrite(own, mounts)
		}
		arguments = slices.Concat(c.Command[1:], arguments)
	}
	run := command{binary: binary}
	for _, argument := range arguments {
		run.args = append(run.args, rewrite(expand(argument, env), mounts))
	}
	for _, v := range env {
		if host, ok := hostPath(v.value, mounts); ok {
			v.value = host
		}
		run.env = append(run.env, v.name+"="+v.value)
	}
	if host, ok := hostPath("/tmp", mounts); ok {
		if _, set := env.get("TMPDIR"); !set {
			run.env = append(run.env, "TMPDIR="+host)
		}
	}
	if host, ok := hostPath(c.WorkingDir, mounts); ok {
		run.dir = host
	}
	return run
}

func isTrue(b *bool) bool { return b != nil && *b }
