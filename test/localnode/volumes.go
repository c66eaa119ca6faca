package localnode

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/switchyard-dev/switchyard/runtime/quote"
)

// refreshEvery is how often ConfigMaps, Secrets and the downward API are written again, as often as by a kubelet.
const refreshEvery = time.Minute

// volumes are the folders of one pod.
type volumes struct {
	dir    string
	client kubernetes.Interface
	now    func() time.Time
	tokens map[string]token // by volume and path
}

type token struct {
	text    string
	renewAt time.Time
}

// write makes the pod's volumes, or brings them up to date, and says when to do so again.
func (v *volumes) write(ctx context.Context, pod *corev1.Pod) (again time.Time, err error) {
	again = v.now().Add(refreshEvery)
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		folder := v.folder(volume.Name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return again, err
		}
		if volume.EmptyDir != nil {
			continue
		}
		files, renew, err := v.files(ctx, pod, volume)
		if err != nil {
			return again, fmt.Errorf("volume %s: %w", quote.Name(volume.Name), err)
		}
		if !renew.IsZero() && renew.Before(again) {
			again = renew
		}
		if err := writeFiles(folder, files); err != nil {
			return again, fmt.Errorf("volume %s: %w", quote.Name(volume.Name), err)
		}
	}
	return again, nil
}

// mounts are the container's, each with the folder that stands for it.
func (v *volumes) mounts(pod *corev1.Pod, c *corev1.Container, env environment) ([]mount, error) {
	made := make([]mount, 0, len(c.VolumeMounts))
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			return nil, fmt.Errorf("mount at %s: the pod has no volume %s", quote.Name(m.MountPath), quote.Name(m.Name))
		}
		below := cmp.Or(m.SubPath, expand(m.SubPathExpr, env), ".")
		if !filepath.IsLocal(below) {
			return nil, fmt.Errorf("mount at %s: subPath %s leaves the volume", quote.Name(m.MountPath), quote.Name(below))
		}
		host := filepath.Join(v.folder(m.Name), below)
		if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
			if err := os.MkdirAll(host, 0o755); err != nil {
				return nil, err
			}
		}
		made = append(made, mount{strings.TrimSuffix(m.MountPath, "/"), host})
	}
	return made, nil
}

func (v *volumes) folder(name string) string { return filepath.Join(v.dir, name) }

// files is what a volume holds, by path; renew is when a token among it must be replaced.
func (v *volumes) files(
	ctx context.Context, pod *corev1.Pod, volume *corev1.Volume,
) (files map[string][]byte, renew time.Time, err error) {
	var sources []corev1.VolumeProjection
	switch {
	case volume.Projected != nil:
		sources = volume.Projected.Sources
	case volume.ConfigMap != nil:
		sources = []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: volume.ConfigMap.LocalObjectReference,
			Items:                volume.ConfigMap.Items, Optional: volume.ConfigMap.Optional,
		}}}
	case volume.Secret != nil:
		sources = []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: volume.Secret.SecretName},
			Items:                volume.Secret.Items, Optional: volume.Secret.Optional,
		}}}
	case volume.DownwardAPI != nil:
		sources = []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: volume.DownwardAPI.Items}}}
	default:
		return nil, renew, errors.New(
			"expected emptyDir, projected, configMap, secret or downwardAPI, found a kind that this node has not")
	}
	files = map[string][]byte{}
	for i := range sources {
		at, err := v.project(ctx, pod, volume.Name, &sources[i], files)
		if err != nil {
			return nil, renew, err
		}
		if renew.IsZero() || !at.IsZero() && at.Before(renew) {
			renew = at
		}
	}
	for path := range files {
		if !filepath.IsLocal(path) {
			return nil, renew, fmt.Errorf("path %s leaves the volume", quote.Name(path))
		}
	}
	return files, renew, nil
}

// project adds one source's files.
func (v *volumes) project(
	ctx context.Context, pod *corev1.Pod, volume string, source *corev1.VolumeProjection, files map[string][]byte,
) (renew time.Time, err error) {
	find := apiObjects{v.client, pod.Namespace}
	switch {
	case source.ServiceAccountToken != nil:
		t, err := v.token(ctx, pod, volume, source.ServiceAccountToken)
		files[source.ServiceAccountToken.Path] = []byte(t.text)
		return t.renewAt, err
	case source.ConfigMap != nil:
		optional := isTrue(source.ConfigMap.Optional)
		data, err := find.configMap(ctx, source.ConfigMap.Name, optional)
		if err != nil {
			return renew, err
		}
		return renew, pick(files, source.ConfigMap.Name, data, source.ConfigMap.Items, optional)
	case source.Secret != nil:
		optional := isTrue(source.Secret.Optional)
		data, err := find.secret(ctx, source.Secret.Name, optional)
		if err != nil {
			return renew, err
		}
		return renew, pick(files, source.Secret.Name, data, source.Secret.Items, optional)
	case source.DownwardAPI != nil:
		return renew, downward(files, pod, source.DownwardAPI.Items)
	default:
		return renew, errors.New("expected serviceAccountToken, configMap, secret or downwardAPI, found another source")
	}
}

// token is the pod's, asked for again when four fifths of its life are over, as a kubelet does.
func (v *volumes) token(
	ctx context.Context, pod *corev1.Pod, volume string, source *corev1.ServiceAccountTokenProjection,
) (token, error) {
	key := volume + "/" + source.Path
	if kept, ok := v.tokens[key]; ok && v.now().Before(kept.renewAt) {
		return kept, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
		},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	asked := v.now()
	made, err := v.client.CoreV1().ServiceAccounts(pod.Namespace).
		CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return token{}, err
	}
	life := made.Status.ExpirationTimestamp.Sub(asked)
	kept := token{made.Status.Token, asked.Add(life / 5 * 4)}
	v.tokens[key] = kept
	return kept, nil
}

func downward(files map[string][]byte, pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = fieldOf(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			for i := range pod.Spec.Containers {
				if pod.Spec.Containers[i].Name == item.ResourceFieldRef.ContainerName {
					value, err = resourceOf(&pod.Spec.Containers[i], item.ResourceFieldRef)
				}
			}
		}
		if err != nil {
			return err
		}
		files[item.Path] = []byte(value)
	}
	return nil
}

// pick adds the named keys under their paths, or all under their own.
func pick(files map[string][]byte, name string, data map[string][]byte, items []corev1.KeyToPath, optional bool) error {
	if len(items) == 0 {
		maps.Copy(files, data)
		return nil
	}
	for _, item := range items {
		value, there := data[item.Key]
		if !there && !optional {
			return fmt.Errorf("%s has no key %s", quote.Name(name), quote.Name(item.Key))
		}
		if there {
			files[item.Path] = value
		}
	}
	return nil
}

// writeFiles makes the folder hold these files and no others. Each changes at once, for who reads it meanwhile.
func writeFiles(folder string, files map[string][]byte) error {
	for _, path := range sortedKeys(files) {
		target := filepath.Join(folder, path)
		if now, err := os.ReadFile(target); err == nil && bytes.Equal(now, files[path]) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		fresh := folder + ".new" // beside the folder: nobody finds it there
		if err := os.WriteFile(fresh, files[path], 0o600); err != nil {
			return err
		}
		if err := os.Rename(fresh, target); err != nil {
			return err
		}
	}
	return filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		if _, wanted := files[below]; !wanted {
			return os.Remove(path)
		}
		return nil
	})
}

// apiObjects reads from the apiserver.
type apiObjects struct {
	client    kubernetes.Interface
	namespace string
}

func (a apiObjects) configMap(ctx context.Context, name string, optional bool) (map[string][]byte, error) {
	found, err := a.client.CoreV1().ConfigMaps(a.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := maps.Clone(found.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, value := range found.Data {
		data[key] = []byte(value)
	}
	return data, nil
}

func (a apiObjects) secret(ctx context.Context, name string, optional bool) (map[string][]byte, error) {
	found, err := a.client.CoreV1().Secrets(a.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	return found.Data, nil
}

func unlessOptional(err error, optional bool) error {
	if optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
