package rest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/switchyard-dev/switchyard/runtime/preprocess"
	"github.com/switchyard-dev/switchyard/runtime/protocol"
	"github.com/switchyard-dev/switchyard/runtime/server"
)

// Whatever the body of a form, reading it returns; what is wrong with it is the request's fault, and told shortly; what
// it is made into takes no more memory than a few times its bytes, and can be read.

func FuzzInstances(f *testing.F) {
	fuzzForm(f, func(h *handler) read { return h.readInstances })
}

func FuzzPipeline(f *testing.F) {
	fuzzForm(f, func(h *handler) read { return h.readPipeline })
}

func FuzzPrediction(f *testing.F) {
	fuzzForm(f, func(h *handler) read { return h.readPrediction })
}

func FuzzClassify(f *testing.F) {
	fuzzForm(f, func(h *handler) read { return h.readClassify })
}

// fuzzForm reads bodies by a form, of a base that takes encoded images and of one that does not.
func fuzzForm(f *testing.F, form func(*handler) read) {
	images := &handler{server: newServer(f, preprocessorOfDigits(f))}
	texts := &handler{server: newServer(f, nil)}
	f.Fuzz(func(t *testing.T, body []byte, ofImages bool) {
		h := texts
		if ofImages {
			h = images
		}
		r := httptest.NewRequest(http.MethodPost, "/v1/models/base:predict", http.NoBody)
		r.SetPathValue("model", "base")
		q, err := form(h)(r, slices.Clone(body))
		checkRefused(t, err)
		if err != nil {
			return
		}
		if name := q.request.Model; len(name) > len(body)+len("base") {
			t.Fatalf("expected a model of the body, or the base, found %q", name)
		}
		size := 0
		for i := range q.request.Inputs {
			size += q.request.Inputs[i].Data.Size()
			checkRead(t, &q.request.Inputs[i])
		}
		if most := 3*len(body) + 16; size > most { // a mask has an element for each id
			t.Fatalf("expected data of at most %d bytes, found %d", most, size)
		}
	})
}

// checkRead reads a tensor as the server does, if it is small.
func checkRead(t *testing.T, in *protocol.Tensor) {
	const most = 1 << 16
	want := make([]int, len(in.Shape))
	for i := range want {
		want[i] = protocol.AnySize
	}
	if len(want) == 0 || len(want) > 8 {
		return
	}
	shape, err := in.Expect(in.Datatype, want)
	checkRefused(t, err)
	if err != nil || protocol.Elements(shape) > most {
		return
	}
	checkRefused(t, in.Holds(shape))
	read := 0
	switch {
	case in.Datatype == protocol.FP32:
		values, failed := in.Floats(shape)
		read, err = len(values), failed
	case in.Datatype == protocol.INT64:
		values, failed := in.Integers(shape)
		read, err = len(values), failed
	case in.Name == pairInput:
		values, failed := in.OptionalTexts(shape)
		read, err = len(values), failed
	case in.Name == imageInput:
		values, failed := in.Blobs(shape)
		read, err = len(values), failed
	default:
		values, failed := in.Texts(shape)
		read, err = len(values), failed
	}
	checkRefused(t, err)
	if err == nil && read != protocol.Elements(shape) {
		t.Fatalf("%s %v: read %d values", in.Name, shape, read)
	}
}

func checkRefused(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if status := server.StatusOf(err); status.Code/100 != 4 || len(status.Error()) > 2048 {
		t.Fatalf("expected a short refusal, found %d: %.3000s", status.Code, fmt.Sprint(err))
	}
}

func preprocessorOfDigits(t testing.TB) *preprocess.Image {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../../hack/samples/digits/base", "preprocessor_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	images, err := preprocess.ParseImage(raw, preprocess.Base{ModelType: "vit", Channels: 3, Height: 32, Width: 32})
	if err != nil {
		t.Fatal(err)
	}
	return images
}
