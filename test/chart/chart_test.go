package chart_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Whoever changes config/ changes the chart, and the other way round: `make generate` does it for what has no values.
func TestTheChartInstallsWhatConfigDoes(t *testing.T) {
	for folder, args := range map[string][]string{
		"../../config/default": nil,
		"testdata/certmanager": {"--set", "certManager.enabled=true"},
		"testdata/s3":          {"--set", "registry.s3.bucket=switchyard-artifacts,registry.s3.region=eu-central-1"},
	} {
		want := kustomized(t, folder)
		delete(want, "Namespace /"+system) // helm makes it, or whoever installs
		found := rendered(t, system, args...)
		for key, object := range found {
			if !strings.HasPrefix(key, "CustomResourceDefinition ") {
				continue
			}
			// What differs by design.
			annotations, _, _ := unstructured.NestedMap(object, "metadata", "annotations")
			if annotations["helm.sh/resource-policy"] != "keep" {
				t.Errorf("%s: annotations %v, expected one that keeps it", key, annotations)
			}
			unstructured.RemoveNestedField(object, "metadata", "annotations", "helm.sh/resource-policy")
		}
		for _, key := range slices.Sorted(maps.Keys(union(want, found))) {
			switch {
			case found[key] == nil:
				t.Errorf("%s: in %s, and not in the chart", key, folder)
			case want[key] == nil:
				t.Errorf("%s: in the chart, and not in %s", key, folder)
			default:
				for _, difference := range differences("", want[key], found[key]) {
					t.Errorf("%s%s in %s; expected, found in the chart", key, difference, folder)
				}
			}
		}
	}
}

func union(a, b objects) objects {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// differences are where two values differ, by path.
func differences(path string, want, found any) []string {
	var all []string
	switch want := want.(type) {
	case map[string]any:
		if found, ok := found.(map[string]any); ok {
			keys := maps.Clone(want)
			maps.Copy(keys, found)
			for _, key := range slices.Sorted(maps.Keys(keys)) {
				all = append(all, differences(path+"."+key, want[key], found[key])...)
			}
			return all
		}
	case []any:
		if found, ok := found.([]any); ok && len(want) == len(found) {
			for i := range want {
				all = append(all, differences(path+"["+strconv.Itoa(i)+"]", want[i], found[i])...)
			}
			return all
		}
	}
	if !reflect.DeepEqual(want, found) {
		all = append(all, fmt.Sprintf("%s: %#v, %#v", path, want, found))
	}
	return all
}

// The accounts' names in the admission policies, the registry's address and all else follow the release's namespace, be
// it a number.
func TestTheNamespaceIsTheReleases(t *testing.T) {
	out := mustHelm(t, "template", "switchyard", chart, "-n", "123", "-f", allValues)
	if strings.Contains(out, system) {
		t.Errorf("%s is still there:\n%s", system, out)
	}
	elsewhere := map[string]bool{
		"RoleBinding demo/switchyard-source-secrets": true, "RoleBinding 456/switchyard-source-secrets": true,
	}
	clusterWide := []string{
		"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "ValidatingAdmissionPolicy",
		"ValidatingAdmissionPolicyBinding",
	}
	for key, object := range parsed(t, out) {
		kind, _, _ := strings.Cut(key, " ")
		namespace, _, err := unstructured.NestedString(object, "metadata", "namespace")
		if err != nil || namespace == "" != slices.Contains(clusterWide, kind) ||
			namespace != "" && namespace != "123" && !elsewhere[key] {
			t.Errorf("%s: namespace %q, %v", key, namespace, err)
		}
	}
	if account := "'system:serviceaccount:123:switchyard-manager'"; strings.Count(out, account) != 7 {
		t.Errorf("%s stands in %d policies, expected 7", account, strings.Count(out, account))
	}
}

// Each value reaches its place; those that are not here are compared with config/ as defaults.
func TestValues(t *testing.T) {
	const (
		manager, registry = "Deployment 123/switchyard-manager", "Deployment 123/switchyard-registry"
		container         = ".spec.template.spec.containers[0]"
		digest            = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
		s3                = "registry.s3.bucket=artifacts,registry.s3.endpoint=https://minio.demo.svc:9000," +
			"registry.s3.prefix=a b/,registry.s3.pathStyle=true,registry.s3.credentialsSecret=keys"
	)
	charts := map[string]objects{}
	for _, c := range []struct {
		values string // besides those of the file
		object string
		path   string // "" for all of it
		want   string
	}{
		{"", manager, container + ".image", "registry.example:5000/switchyard/manager@" + digest},
		{"", registry, container + ".image", "registry.example:5000/switchyard/manager@" + digest},
		{"", manager, container + ".imagePullPolicy", "Never"},
		{"", registry, container + ".imagePullPolicy", "Never"},
		{"", manager, ".spec.template.spec.imagePullSecrets", "[map[name:pull]]"},
		{"", registry, ".spec.template.spec.imagePullSecrets", "[map[name:pull]]"},
		{"", manager, container + ".args", "[run --leader-elect " +
			"--runtime-image=switchyard/runtime:local --registry-url=https://switchyard-registry.123.svc:5000 " +
			"--registry-namespace=123 " +
			"--registry-token-file=/var/run/secrets/switchyard/registry/token --work-dir=/tmp --certificates=cert-manager " +
			"--source-allow-cidr=10.0.0.0/8 --source-allow-cidr=fd00::/8 --source-plain-http=models.demo.svc:8080 " +
			"--log-format=json --recheck-interval=1m]"},
		{"", registry, container + ".args", "[registry --dir=/var/lib/registry --address=:5000 " +
			"--tls-dir=/var/run/secrets/switchyard/tls --manager-account=123/switchyard-manager " +
			"--gc-interval=5m --gc-grace=2h --scrub-interval=0 --log-level=debug]"},
		{"", manager, ".spec.replicas", "3"},
		{
			"", manager, container + ".resources",
			"map[limits:map[memory:8Gi] requests:map[cpu:1 memory:1Gi]]",
		},
		{"", registry, container + ".resources.limits", "map[memory:2Gi]"},
		{"", manager, ".spec.template.metadata", "map[annotations:map[note:true] labels:map[" +
			"app.kubernetes.io/component:manager app.kubernetes.io/name:switchyard team:1]]"},
		{"", registry, ".spec.template.metadata", "map[annotations:map[note:false] labels:map[" +
			"app.kubernetes.io/component:registry app.kubernetes.io/name:switchyard team:2]]"},
		{
			"", registry, ".spec.selector.matchLabels",
			"map[app.kubernetes.io/component:registry app.kubernetes.io/name:switchyard]",
		},
		{"", manager, ".spec.template.spec.priorityClassName", "system-cluster-critical"},
		{"", registry, ".spec.template.spec.nodeSelector", "map[kubernetes.io/os:linux]"},
		{"", manager, ".spec.template.spec.tolerations", "[map[effect:NoSchedule key:infra operator:Exists]]"},
		{"", registry, ".spec.template.spec.affinity", "map[podAffinity:map[]]"},
		{"", manager, ".spec.template.spec.topologySpreadConstraints[0].maxSkew", "1"},
		{"", "NetworkPolicy 123/switchyard-manager", ".spec.egress[3].to[2]", "map[ipBlock:map[cidr:10.0.0.0/8]]"},
		{"", "NetworkPolicy 123/switchyard-manager", ".spec.egress[4]", "map[ports:[map[port:8443 protocol:TCP]]]"},
		{"", "NetworkPolicy 123/switchyard-registry", ".spec.egress[2].to", "[map[ipBlock:map[cidr:10.1.2.3/32]]]"},
		{"", "RoleBinding 456/switchyard-source-secrets", ".subjects[0].namespace", "123"},
		{"", "ClusterRoleBinding /switchyard-source-secrets", "", "<nil>"},
		{
			"", "ClusterRoleBinding /switchyard-metrics-reader", ".subjects",
			"[map[kind:ServiceAccount name:prometheus namespace:monitoring]]",
		},
		{"", "ServiceMonitor 123/switchyard", ".metadata.labels", "map[release:prometheus]"},
		{"", "Service 123/switchyard-metrics", ".spec.ports[0].targetPort", "metrics"},
		{
			"", "Certificate 123/switchyard-registry", ".spec.issuerRef",
			"map[group:cert-manager.io kind:ClusterIssuer name:corporate]",
		},
		{"", "Certificate 123/switchyard-registry", ".spec.dnsNames", "[switchyard-registry.123.svc]"},
		{"", "Issuer 123/switchyard-selfsigned", "", "<nil>"},
		{"", "PersistentVolumeClaim 123/switchyard-registry", ".spec", "map[accessModes:[ReadWriteOnce] " +
			"resources:map[requests:map[storage:1Gi]] storageClassName:fast]"},
		{
			"", "CustomResourceDefinition /inferencepools.switchyard.dev",
			".metadata.annotations[helm.sh/resource-policy]", "<nil>",
		},

		{"registry.storage.storageClassName=", "PersistentVolumeClaim 123/switchyard-registry", ".spec.storageClassName", ""},
		{"registry.storage.existingClaim=mine", registry, ".spec.template.spec.volumes[0]", "map[name:artifacts " +
			"persistentVolumeClaim:map[claimName:mine]]"},
		{"registry.storage.existingClaim=mine", "PersistentVolumeClaim 123/switchyard-registry", "", "<nil>"},
		{"registry.storage.emptyDir=true", registry, ".spec.template.spec.volumes[0]", "map[emptyDir:map[sizeLimit:1Gi] " +
			"name:artifacts]"},
		{"registry.storage.emptyDir=true", "PersistentVolumeClaim 123/switchyard-registry", "", "<nil>"},
		{s3, registry, container + ".args", "[registry --s3-bucket=artifacts --address=:5000 " +
			"--tls-dir=/var/run/secrets/switchyard/tls --manager-account=123/switchyard-manager " +
			"--s3-endpoint=https://minio.demo.svc:9000 --s3-prefix=a b/ --s3-path-style " +
			"--gc-interval=5m --gc-grace=2h --scrub-interval=0 --log-level=debug]"},
		{s3, registry, container + ".envFrom", "[map[secretRef:map[name:keys optional:true]]]"},
		{s3, registry, ".spec.template.spec.volumes[0].name", "tls"},
		{s3, "PersistentVolumeClaim 123/switchyard-registry", "", "<nil>"},
		{"networkPolicies.enabled=false", "NetworkPolicy 123/switchyard-manager", "", "<nil>"},
		{"networkPolicies.enabled=false", "NetworkPolicy 123/switchyard-registry", "", "<nil>"},
		{"crds.install=false", "CustomResourceDefinition /inferencepools.switchyard.dev", "", "<nil>"},
		{"metrics.serviceMonitor.enabled=false", "Service 123/switchyard-metrics", "", "<nil>"},
		{
			"image.manager.digest=", manager, container + ".image",
			"registry.example:5000/switchyard/manager:ignored",
		},
	} {
		if charts[c.values] == nil {
			charts[c.values] = rendered(t, "123", "-f", allValues, "--set", c.values)
		}
		var value any
		if object := charts[c.values][c.object]; object != nil {
			value = at(t, object, c.path)
		}
		if text := fmt.Sprint(value); text != c.want {
			t.Errorf("--set %s: %s %s\n   found %s\nexpected %s", c.values, c.object, c.path, text, c.want)
		}
	}
}

// at is the value at a path as .a.b[0][key.with/dots]; nil where there is none.
func at(t *testing.T, value any, path string) any {
	t.Helper()
	for _, part := range strings.FieldsFunc(indexed(path), func(r rune) bool { return r == '\n' }) {
		switch in := value.(type) {
		case map[string]any:
			value = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil {
				t.Fatalf("%s: expected an index, found %q", path, part)
			}
			if i >= len(in) {
				return nil
			}
			value = in[i]
		default:
			return nil
		}
	}
	return value
}

// indexed is a path with a line for each part.
func indexed(path string) string {
	var out strings.Builder
	brackets := 0
	for _, r := range path {
		switch {
		case r == '[':
			brackets++
			out.WriteByte('\n')
		case r == ']':
			brackets--
		case r == '.' && brackets == 0:
			out.WriteByte('\n')
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

func TestBadValuesAreRefusedByName(t *testing.T) {
	for values, want := range map[string]string{
		"replicas=3":           "additional properties 'replicas' not allowed",
		"manager.replica=3":    "'/manager': additional properties 'replica' not allowed",
		"manager.replicas=0":   "'/manager/replicas': minimum: got 0, want 1",
		"manager.replicas=two": "'/manager/replicas': got string, want integer",
		"manager.podLabels.app\\.kubernetes\\.io/name=a": "'/manager/podLabels/app.kubernetes.io~1name'",
		"manager.extraArgs={log-level=debug}":            "'/manager/extraArgs/0': 'log-level=debug' does not match pattern",
		"manager.tolerations[0].effect=No":               "'/manager/tolerations/0/effect': value must be one of",
		"manager.resources.memory=1Gi":                   "'/manager/resources': additional properties 'memory' not allowed",
		"registry.replicas=2":                            "'/registry': additional properties 'replicas' not allowed",
		"registry.storage.size=20GB":                     "'/registry/storage/size': '20GB' does not match pattern",
		"registry.storage.size=null":                     "'/registry/storage': missing property 'size'",
		"registry.storage.storageClassName=1":            "'/registry/storage/storageClassName': got number, want null or",
		"registry.storage.emptyDir=yes":                  "'/registry/storage/emptyDir': got string, want boolean",
		"image.pullPolicy=Sometimes":                     "'/image/pullPolicy': value must be one of",
		"image.pullSecrets={pull}":                       "'/image/pullSecrets/0': got string, want object",
		"image.manager.repository=a:latest":              "'/image/manager/repository': 'a:latest' does not match pattern",
		"image.runtime.digest=sha256:12":                 "'/image/runtime/digest': 'sha256:12' does not match pattern",
		"image.runtime.tag=a b":                          "'/image/runtime/tag': 'a b' does not match pattern",
		"sources.allowCIDRs={10.0.0.1}":                  "'/sources/allowCIDRs/0': '10.0.0.1' does not match pattern",
		"sources.plainHTTP={http://a/}":                  "'/sources/plainHTTP/0': 'http://a/' does not match pattern",
		"sources.secretNamespaces={a_b}":                 "'/sources/secretNamespaces/0': 'a_b' does not match pattern",
		"certManager=true":                               "'/certManager': got boolean, want object",
		"certManager.issuerRef.kind=Issuer":              "'/certManager/issuerRef': properties 'name' required",
		"networkPolicies.managerEgress[0].a=b":           "'/networkPolicies/managerEgress/0': additional properties 'a'",
		"metrics.readers[0].name=a":                      "'/metrics/readers/0': missing property 'namespace'",
		"metrics.serviceMonitor.interval=now":            "'/metrics/serviceMonitor/interval': 'now' does not match pattern",
		"crds.keep=1":                                    "'/crds/keep': got number, want boolean",

		"registry.gc.interval=-1m":        "'/registry/gc/interval': '-1m' does not match pattern",
		"registry.gc.grace=0":             "'/registry/gc/grace': got number, want string",
		"registry.s3.bucket=A":            "'/registry/s3/bucket': 'A' does not match pattern",
		"registry.s3.endpoint=minio:9000": "'/registry/s3/endpoint': 'minio:9000' does not match pattern",

		"registry.storage.emptyDir=true,registry.storage.existingClaim=a": "expected emptyDir or existingClaim, found both",
		"registry.s3.bucket=abc": "registry.s3: expected region or endpoint, found neither",
		"registry.s3.region=eu":  "registry.s3: expected bucket with what is set of it, found none",

		"registry.s3.bucket=abc,registry.s3.region=eu,registry.storage.existingClaim=a": "expected s3.bucket or a storage",
	} {
		out, said, err := helm(t, "template", "switchyard", chart, "--set", values)
		if err == nil || !strings.Contains(said, want) {
			t.Errorf("--set %s: %v, expected %q, found %s%.200s", values, err, want, said, out)
		}
	}
}

// A chart that has this one in it hands Helm's global values down.
func TestGlobalValuesAreHelms(t *testing.T) {
	rendered(t, system, "--set", "global.of=others")
}

// Below 1.31 the API server would drop a budget's field without a word.
func TestAnOldClusterIsRefused(t *testing.T) {
	for version, refused := range map[string]bool{"1.30.9": true, "1.31.0": false, "1.31.2-gke.1": false} {
		_, said, err := helm(t, "template", "switchyard", chart, "--kube-version", version)
		if (err != nil) != refused || refused && !strings.Contains(said, "requires kubeVersion") {
			t.Errorf("%s: %v: %s", version, err, said)
		}
	}
}

func TestLint(t *testing.T) {
	mustHelm(t, "lint", "--strict", chart)
	mustHelm(t, "lint", "--strict", chart, "-f", allValues)
}

// The notes speak of what was installed.
func TestNotes(t *testing.T) {
	const (
		volume   = "Its volume goes with the release"
		lost     = "Its store is lost with its pod"
		bucket   = "Artifacts are kept in the bucket abc"
		stay     = "helm uninstall leaves the CustomResourceDefinitions"
		gone     = "helm uninstall takes the CustomResourceDefinitions away"
		others   = "kept by something else"
		itself   = "switchyard-registry-tls, which the manager makes"
		managers = "switchyard-registry-tls, which cert-manager makes"
		open     = "No NetworkPolicy"
		some     = "The manager reads Secrets of sources in demo, others only"
	)
	all := []string{volume, lost, bucket, stay, gone, others, itself, managers, open, some}
	for values, want := range map[string][]string{
		"":                                    {volume, stay, itself},
		"registry.storage.existingClaim=mine": {stay, itself},
		"registry.storage.emptyDir=true":      {lost, stay, itself},
		"registry.s3.bucket=abc,registry.s3.region=eu": {bucket, stay, itself},
		"crds.keep=false":                        {volume, gone, itself},
		"crds.install=false":                     {volume, others, itself},
		"certManager.enabled=true":               {volume, stay, managers},
		"networkPolicies.enabled=false":          {volume, stay, itself, open},
		"sources.secretNamespaces={demo,others}": {volume, stay, itself, some},
	} {
		notes := notes(t, values)
		for _, text := range all {
			if strings.Contains(notes, text) != slices.Contains(want, text) {
				t.Errorf("--set %s: %q: there is %v, expected %v, in:\n%s", values, text,
					strings.Contains(notes, text), slices.Contains(want, text), notes)
			}
		}
	}
}

func notes(t *testing.T, values string) string {
	t.Helper()
	out := mustHelm(t, "install", "switchyard", chart, "--namespace", "demo-system", "--dry-run=client", "--set", values)
	_, notes, found := strings.Cut(out, "\nNOTES:\n")
	if !found || !strings.Contains(notes, "kubectl -n demo-system rollout status") {
		t.Fatalf("no notes of what to wait for: %s", notes)
	}
	return notes
}
