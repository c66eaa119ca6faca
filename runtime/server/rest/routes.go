package rest

import (
	"net/http"
	"strings"
)

// route is an operation: who answers it, and what the OpenAPI document says of it.
type route struct {
	method, path string // as OpenAPI has it
	handle       handle
	operation    operation
}

// routes are all that is answered. The document is made of them, so it lacks none.
func (h *handler) routes() []route {
	return []route{
		{"GET", "/v2", h.serverMetadata, tells("serverMetadata", "What this server is", "ServerMetadata")},
		{"GET", "/v2/health/live", h.live, tells("live", "Whether the process lives", "Live")},
		{"GET", "/v2/health/ready", h.ready, tells("ready", "Whether all is loaded to begin with", "Ready")},
		{"GET", "/v2/models", h.listModels, tells("models", "All models that are known, with their state", "ModelStates")},
		{"GET", "/v2/models/{model}", h.modelMetadata, tells("model", "What a model takes and gives", "ModelMetadata")},
		{"GET", "/v2/models/{model}/ready", h.modelReady, tells("modelReady", "Whether a model answers", "ModelReady")},
		{
			"GET", "/v2/models/{model}/versions/{version}", h.modelMetadata,
			tells("version", "What a version of a model takes and gives", "ModelMetadata"),
		},
		{
			"GET", "/v2/models/{model}/versions/{version}/ready", h.modelReady,
			tells("versionReady", "Whether a version of a model answers", "ModelReady"),
		},
		{"POST", "/v2/models/{model}/infer", h.infer, infers("infer", "Infer")},
		{
			"POST", "/v2/models/{model}/versions/{version}/infer", h.infer,
			infers("inferVersion", "Infer, unless the model has moved to another version"),
		},

		{"GET", "/v1/models", h.listReady, tells("listReady", "The models that answer now", "Models")},
		{"GET", "/v1/models/{model}", h.getModel, tells("getModel", "A model that answers now", "Model")},
		{
			"POST", "/v1/models/{model}" + predictVerb, h.predict,
			classifies("predict", "Predict, as KServe's V1", "PredictRequest", "Predictions"),
		},

		{"GET", "/", h.alive, tells("alive", "Whether the process lives, as KServe's V1 asks", "Alive")},
		{"POST", "/", h.pipeline, pipelines("pipeline", "Classify texts, tokens or images, as HuggingFace's pipelines")},
		{
			"POST", "/predict", h.predictOne,
			classifies("predictOne", "Classify texts, as text-embeddings-inference", "TEIRequest", "OneOrManyLabels"),
		},
		{
			"POST", "/classify", h.classify,
			classifies("classify", "Classify, as a pipeline with all labels or as vLLM", "ClassifyRequest", "Classified"),
		},
		{
			"POST", "/v1/classify", h.classify,
			classifies("classifyV1", "The same as POST /classify", "ClassifyRequest", "Classified"),
		},
		{"GET", "/health", h.health, operation{id: "health", summary: "Whether all is loaded to begin with"}},
		{"GET", "/info", h.info, byAdapter(tells("info", "A model, as text-embeddings-inference tells of it", "Info"))},

		{"GET", "/openapi.json", h.openapi, tells("openapi", "This document", "OpenAPI")},
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
