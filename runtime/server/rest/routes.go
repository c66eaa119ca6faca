package rest

import (
	"net/http"
	"strings"
)

// route is an operation, and who answers it.
type route struct {
	method, path string // as OpenAPI has it
	handle       handle
}

// routes are all that is answered.
func (h *handler) routes() []route {
	return []route{
		{"GET", "/v2", h.serverMetadata},
		{"GET", "/v2/health/live", h.live},
		{"GET", "/v2/health/ready", h.ready},
		{"GET", "/v2/models", h.listModels},
		{"GET", "/v2/models/{model}", h.modelMetadata},
		{"GET", "/v2/models/{model}/ready", h.modelReady},
		{"GET", "/v2/models/{model}/versions/{version}", h.modelMetadata},
		{"GET", "/v2/models/{model}/versions/{version}/ready", h.modelReady},
		{"POST", "/v2/models/{model}/infer", h.infer},
		{"POST", "/v2/models/{model}/versions/{version}/infer", h.infer},

		{"GET", "/v1/models", h.listReady},
		{"GET", "/v1/models/{model}", h.getModel},
		{"POST", "/v1/models/{model}" + predictVerb, h.predict},

		{"GET", "/", h.alive},
		{"POST", "/", h.ask(h.readPipeline, imageTypes, binaryType)},
		{"POST", "/predict", h.ask(h.readPrediction)},
		{"POST", "/classify", h.ask(h.readClassify)},
		{"POST", "/v1/classify", h.ask(h.readClassify)},
		{"GET", "/health", h.health},
		{"GET", "/info", h.info},
	}
}

// predictVerb ends the paths of V1's predictions, behind the model's name.
const predictVerb = ":predict"

// muxes find a request's route. net/http's patterns know of no suffix behind a wildcard, so the paths that end in
// predictVerb have a mux of their own, which does not see it.
type muxes struct{ plain, predict http.ServeMux }

func (m *muxes) add(r route, handler http.Handler) {
	mux, path := &m.plain, r.path
	if before, ok := strings.CutSuffix(path, predictVerb); ok {
		mux, path = &m.predict, before
	}
	if path == "/" {
		path = "/{$}" // else all that begin so
	}
	mux.Handle(r.method+" "+path, handler)
}

// of is the mux that has a request's route if there is one, and the request as that sees it.
func (m *muxes) of(r *http.Request) (*http.ServeMux, *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/models/") || !strings.HasSuffix(r.URL.Path, predictVerb) {
		return &m.plain, r
	}
	seen, url := *r, *r.URL
	url.Path = strings.TrimSuffix(url.Path, predictVerb)
	url.RawPath = strings.TrimSuffix(url.RawPath, predictVerb)
	seen.URL = &url
	return &m.predict, &seen
}
