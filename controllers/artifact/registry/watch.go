package registry

import (
	"bytes"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strconv"
)

// watch sees an answer go by: its status, the beginning of one that says what of ours failed (a full disk), and the
// digest of what was read.
type watch struct {
	http.ResponseWriter
	status int
	answer []byte
	sum    hash.Hash // nil where there is nothing to compare it with
	size   int64
}

// WriteHeader keeps the status.
func (w *watch) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write keeps the beginning of a failure.
func (w *watch) Write(p []byte) (int, error) {
	if room := 512 - len(w.answer); w.status >= http.StatusInternalServerError && room > 0 {
		w.answer = append(w.answer, p[:min(room, len(p))]...)
	}
	n, err := w.ResponseWriter.Write(p)
	if w.sum != nil {
		_, _ = w.sum.Write(p[:n]) // never fails
		w.size += int64(n)
	}
	return n, err
}

// damaged tells whether what was read was all there is, and not what was asked for; or a manifest of which distribution
// can make nothing. What broke off says nothing.
func (w *watch) damaged(asked admitted) bool {
	switch {
	case w.sum == nil:
		return false
	case asked.kind == "manifests" && w.status >= http.StatusInternalServerError:
		return true // or not: it is looked at
	case w.status != 0 && w.status != http.StatusOK || w.Header().Get("Content-Length") != strconv.FormatInt(w.size, 10):
		return false
	}
	return "sha256:"+hex.EncodeToString(w.sum.Sum(nil)) != asked.digest
}

// about are the digests that a request of the manager's is about. The first is what it pushes, if it pushes any.
func (a admitted) about(req *http.Request) (digests []string, err error) {
	add := func(digest string) {
		if byDigest.MatchString(digest) {
			digests = append(digests, digest)
		}
	}
	add(a.digest)
	if a.kind == "blobs/uploads" {
		query := req.URL.Query()
		add(query.Get("digest"))
		add(query.Get("mount"))
	}
	if a.kind == "manifests" && a.write {
		raw, err := io.ReadAll(io.LimitReader(req.Body, maxManifest+1))
		if err != nil {
			return nil, err
		}
		digests = append(digests, references(raw)...)
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(raw), req.Body), req.Body}
	}
	return digests, nil
}
