package weights_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/weights"
)

const artifactType = "application/vnd.switchyard.adapter.v1"

// The bytes and the digest are identities that registries and statuses remember: this test may never change.
func TestTheManifestNeverChanges(t *testing.T) {
	blobs := []weights.Blob{
		weights.NewBlob("config.json", []byte(`{"id2label":{"0":"odd"}}`)),
		weights.NewBlob("adapter_model.safetensors", []byte("weights")),
	}
	settings := []byte(`{"classNames":["a","b"]}`)
	want := `{"schemaVersion":2,` +
		`"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"artifactType":"application/vnd.switchyard.adapter.v1",` +
		`"config":{"mediaType":"application/vnd.switchyard.settings.v1+json",` +
		`"digest":"sha256:7d0fc9d670d14b7df4ebc69a794205a1a3608db8d81e75b56e3eeca6d8b97903","size":24},` +
		`"layers":[` +
		`{"mediaType":"application/octet-stream",` +
		`"digest":"sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c","size":7,` +
		`"annotations":{"org.opencontainers.image.title":"adapter_model.safetensors"}},` +
		`{"mediaType":"application/octet-stream",` +
		`"digest":"sha256:7df0b3005117554b8478671e992fd48213306e637a8ec1fd74bea0d42829cf63","size":24,` +
		`"annotations":{"org.opencontainers.image.title":"config.json"}}],` +
		`"annotations":{"org.opencontainers.image.created":"1970-01-01T00:00:00Z"}}`
	diff(t, want, string(weights.Manifest(artifactType, settings, blobs)))
	diff(t,
		"sha256:2987f944bc8ae5444a05c2ec6192c432c5b281081fd96a0c544d74738b68e228",
		weights.ManifestDigest(artifactType, settings, blobs),
	)
}

func TestTheDigestIsOfWhatIsInTheFolder(t *testing.T) {
	a, b := weights.NewBlob("a", []byte("1")), weights.NewBlob("b", []byte("2"))
	blobs := []weights.Blob{b, a}
	digest := weights.ManifestDigest(artifactType, []byte("{}"), blobs)
	diff(t, []weights.Blob{b, a}, blobs) // the caller's slice is left alone
	diff(t, digest, weights.ManifestDigest(artifactType, []byte("{}"), []weights.Blob{a, b}))

	others := []string{
		digest,
		weights.ManifestDigest("application/vnd.switchyard.base.v1", []byte("{}"), blobs),
		weights.ManifestDigest(artifactType, []byte(`{"classNames":["x"]}`), blobs),
		weights.ManifestDigest(artifactType, []byte("{}"), []weights.Blob{a}),
		weights.ManifestDigest(artifactType, []byte("{}"), nil),
		weights.ManifestDigest(artifactType, []byte("{}"), []weights.Blob{weights.NewBlob("a", []byte("2")), b}),
		weights.ManifestDigest(artifactType, []byte("{}"), []weights.Blob{weights.NewBlob("c", []byte("1")), b}),
	}
	slices.Sort(others)
	if n := len(others); len(slices.Compact(others)) != n {
		t.Errorf("different folders have the same digest: %s", strings.Join(others, " "))
	}
}
