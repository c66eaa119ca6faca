package registry

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// damage changes one bit of a blob, and not its size.
func (k *keeping) damage(blob string) {
	k.t.Helper()
	digest := digestOf([]byte(blob))
	raw := bytes.Clone([]byte(blob))
	raw[len(raw)/2] ^= 1
	if err := k.registry.shelves.driver.PutContent(k.t.Context(), dataPath(digest), raw); err != nil {
		k.t.Fatal(err)
	}
}

// A bit that has changed is found by whoever comes first – the scrub, a pod, the next push – and what it is in is
// pushed again.
func TestDamagedBlobsAreFound(t *testing.T) {
	weights := strings.Repeat("weights", 100_000) // of several pieces
	manifest, digest := made("config", weights)
	get := func(k *keeping, path string) { k.ask("GET", "/v2/"+digits+path, "Bearer p", "") }
	for _, c := range []struct {
		what, blob string
		find       func(k *keeping)
	}{
		{"scrub, weights", weights, func(k *keeping) {
			if err := k.registry.Scrub(k.t.Context()); err != nil {
				k.t.Error(err)
			}
		}},
		{"scrub, manifest", manifest, func(k *keeping) {
			if err := k.registry.Scrub(k.t.Context()); err != nil {
				k.t.Error(err)
			}
		}},
		{"a pod, weights", weights, func(k *keeping) { get(k, "/blobs/"+digestOf([]byte(weights))) }},
		{"a pod, manifest", manifest, func(k *keeping) { get(k, "/manifests/"+digest) }},
		{"the collector, manifest", manifest, func(k *keeping) { k.collect(0) }},
		{"a push of the manifest", manifest, func(k *keeping) {
			if got := k.ask("PUT", "/v2/"+digits+"/manifests/"+digest, "Bearer m", manifest); got.Code != http.StatusCreated {
				k.t.Errorf("found %d: %s", got.Code, got.Body)
			}
		}},
		{"a push elsewhere", weights, func(k *keeping) {
			k.push("demo/other", "config", weights)
			k.expectWhole("pushed elsewhere", digits, "config", weights)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			everywhere(t, func(k *keeping) {
				k.push(digits, "config", weights)
				k.push(digits, "config", "others")
				k.roots.Add(digits, digest)
				if err := k.registry.Scrub(k.t.Context()); err != nil {
					k.t.Error(err)
				}
				if n := k.metric("switchyard_registry_removed_blobs_total", causeDamage); n != 0 {
					k.t.Errorf("expected what is whole left, found %v removed", n)
				}
				if n := k.metric("switchyard_registry_last_scrub_timestamp_seconds", ""); n != 1e9 {
					k.t.Errorf("expected the time of the scrub, found %v", n)
				}
				k.damage(c.blob)
				c.find(k)
				if n := k.metric("switchyard_registry_removed_blobs_total", causeDamage); n != 1 {
					k.t.Errorf("expected one blob removed, found %v", n)
				}
				if !strings.Contains(k.log.String(), "damaged blob removed") ||
					!strings.Contains(k.log.String(), digestOf([]byte(c.blob))) {
					k.t.Errorf("expected it told of, found\n%s", k.log.String())
				}
				k.push(digits, "config", weights)
				k.expectWhole("pushed again", digits, "config", weights)
				k.expectWhole("the others", digits, "config", "others")
			})
		})
	}
}

// An answer that broke off, or is of a part, says nothing of the blob.
func TestPartsAreNotTakenForDamage(t *testing.T) {
	k := newKeeping(t, Options{Dir: t.TempDir()})
	k.push(digits, "config", "weights")
	k.damage("weights")
	path := "/v2/" + digits + "/blobs/" + digestOf([]byte("weights"))
	k.ask("HEAD", path, "Bearer p", "")
	for header, value := range map[string]string{
		"Range": "bytes=1-3", "If-None-Match": `"` + digestOf([]byte("weights")) + `"`,
	} {
		k.askWith("GET", path, http.Header{"Authorization": {"Bearer p"}, header: {value}}, "")
	}
	k.ask("GET", path, "Bearer nobody", "")
	k.ask("GET", "/v2/demo/other/blobs/"+digestOf([]byte("weights")), "Bearer p", "")
	if n := k.metric("switchyard_registry_removed_blobs_total", causeDamage); n != 0 {
		t.Errorf("expected none of these to tell, found %v removed", n)
	}
	k.ask("GET", path, "Bearer p", "")
	if n := k.metric("switchyard_registry_removed_blobs_total", causeDamage); n != 1 {
		t.Errorf("expected the whole to tell, found %v removed", n)
	}
}

// What cannot be read is told of, and is not taken for damaged.
func TestWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	k := newKeeping(t, Options{Dir: dir})
	k.push(digits, "config", "weights")
	at := filepath.Join(dir, dataPath(digestOf([]byte("weights"))))
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o700); err != nil { // which can be opened, and not read
		t.Fatal(err)
	}
	if err := k.registry.Scrub(t.Context()); err == nil || !strings.Contains(err.Error(), "1 of 3 blobs cannot be read") {
		t.Errorf("expected it told, found %v", err)
	}
	if n := k.metric("switchyard_registry_unreadable_blobs", ""); n != 1 {
		t.Errorf("expected 1, found %v", n)
	}
	if n := k.metric("switchyard_registry_removed_blobs_total", causeDamage); n != 0 {
		t.Errorf("expected nothing removed, found %v", n)
	}
}

// The scrub reads no faster than it may.
func TestTheScrubIsSlow(t *testing.T) {
	k := newKeeping(t, Options{Dir: t.TempDir(), ScrubRate: 4 << 20})
	k.push(digits, "config", strings.Repeat("x", 1<<20))
	began := time.Now()
	if err := k.registry.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 150*time.Millisecond { // a second's worth is 4 MiB, a burst 256 KiB
		t.Errorf("expected 1 MiB to take 190 ms, found %v", took)
	}
}
