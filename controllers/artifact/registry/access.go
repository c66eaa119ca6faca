package registry

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// accountPrefix begins the user's name of every service account: the rest is namespace:name.
	accountPrefix = "system:serviceaccount:"
	// podSuffix ends the name of the service account of a pool's pods.
	podSuffix = "-runtime"
)

// Why a request was refused: the label of switchyard_registry_refusals_total. The list is closed.
const (
	reasonNoToken     = "no_token"
	reasonBadToken    = "bad_token" // nobody's, out of date, or for another audience
	reasonBusy        = "busy"
	reasonUnavailable = "unavailable" // the API server cannot be asked
	reasonAccount     = "account"     // neither the manager's nor one of pods
	reasonRepository  = "repository"  // of another pool
	reasonPush        = "push"        // by pods
	reasonRequest     = "request"     // what nobody may
)

var reasons = []string{
	reasonNoToken,
	reasonBadToken,
	reasonBusy,
	reasonUnavailable,
	reasonAccount,
	reasonRepository,
	reasonPush,
	reasonRequest,
}

// refusal is the answer to a request that is not let through.
type refusal struct {
	status        int
	code, message string // of the distribution specification; our own words, which need no escaping
	reason        string
}

var (
	refusedNoToken = &refusal{
		http.StatusUnauthorized, "UNAUTHORIZED", "expected a service account's token", reasonNoToken,
	}
	refusedBadToken = &refusal{
		http.StatusUnauthorized, "UNAUTHORIZED", "the token is not valid here", reasonBadToken,
	}
	refusedBusy = &refusal{
		http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many tokens to review", reasonBusy,
	}
	refusedUnavailable = &refusal{
		http.StatusServiceUnavailable, "UNAVAILABLE", "tokens cannot be reviewed now", reasonUnavailable,
	}
	refusedAccount = &refusal{
		http.StatusForbidden, "DENIED", "the account is neither the manager's nor of a pool's pods", reasonAccount,
	}
	refusedRepository = &refusal{
		http.StatusForbidden, "DENIED", "the repository is not of the account's pool", reasonRepository,
	}
	refusedPush = &refusal{
		http.StatusForbidden, "DENIED", "only the manager may push", reasonPush,
	}
	refusedPath = &refusal{
		http.StatusNotFound, "UNSUPPORTED", "expected a manifest or a blob by its digest", reasonRequest,
	}
	refusedMethod = &refusal{
		http.StatusMethodNotAllowed, "UNSUPPORTED", "expected another method", reasonRequest,
	}
)

// route is all that may be asked for. What distribution's router would make of another path does not matter: it never
// gets there.
var route = regexp.MustCompile(
	`^/v2/(?:([a-z0-9-]{1,63}/[a-z0-9-]{1,63})/(manifests|blobs|blobs/uploads)/([A-Za-z0-9:_-]*))?$`)

var byDigest = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)

// request is what a request asks for, in the terms of who may what.
type request struct {
	repository string // "" for the root, which says only that this is a registry
	kind       string // manifests, blobs, blobs/uploads or ""
	digest     string // of a manifest or blob
	upload     string // that is under way
	write      bool
}

// parse is what a request asks for, if anybody may.
func parse(req *http.Request) (request, *refusal) {
	parts := route.FindStringSubmatch(req.URL.Path)
	if parts == nil || req.URL.RawPath != "" { // a path that is written in another way than it must be
		return request{}, refusedPath
	}
	repository, kind, name := parts[1], parts[2], parts[3]
	read := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch {
	case kind == "" || kind != "blobs/uploads" && byDigest.MatchString(name):
		if kind == "manifests" && req.Method == http.MethodPut {
			return request{repository: repository, kind: kind, digest: name, write: true}, nil
		}
		if read {
			return request{repository: repository, kind: kind, digest: name}, nil
		}
		return request{}, refusedMethod
	case kind == "blobs/uploads" && name == "":
		if req.Method == http.MethodPost {
			return request{repository: repository, kind: kind, write: true}, nil
		}
		return request{}, refusedMethod
	case kind == "blobs/uploads":
		switch req.Method {
		case http.MethodGet, http.MethodPatch, http.MethodPut:
			return request{repository: repository, kind: kind, upload: name, write: true}, nil
		}
		return request{}, refusedMethod
	}
	return request{}, refusedPath
}

// allowed tells whether a user may do what is asked.
func (r request) allowed(user, manager string) *refusal {
	if user == manager {
		return nil
	}
	account, isAccount := strings.CutPrefix(user, accountPrefix)
	namespace, name, _ := strings.Cut(account, ":")
	pool, isPods := strings.CutSuffix(name, podSuffix)
	switch {
	case !isAccount || !isPods:
		return refusedAccount
	case r.write:
		return refusedPush
	case r.repository != "" && r.repository != namespace+"/"+pool:
		return refusedRepository
	}
	return nil
}

// doorkeeper lets requests through, or not.
type doorkeeper struct {
	identities *identities
	manager    string // the user's name

	log      *slog.Logger
	refusals *prometheus.CounterVec
	told     map[string]*rate.Sometimes // by reason
}

func newDoorkeeper(o *Options) (*doorkeeper, error) {
	d := &doorkeeper{
		identities: newIdentities(o.Reviewer, o.Now),
		manager:    o.Manager,
		log:        o.Log,
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_registry_refusals_total",
			Help: "Requests that the artifact registry refused, by the reason.",
		}, []string{"reason"}),
		told: map[string]*rate.Sometimes{},
	}
	for _, reason := range reasons {
		d.refusals.WithLabelValues(reason) // 0 is an answer too
		d.told[reason] = &rate.Sometimes{First: 5, Interval: 10 * time.Second}
	}
	if o.Metrics == nil {
		return d, nil
	}
	return d, o.Metrics.Register(d.refusals)
}

// admitted is a request that is let through.
type admitted struct {
	request

	manager bool // it is the manager's
}

// admit lets a request through, or tells what stands in the way.
func (d *doorkeeper) admit(req *http.Request) (admitted, *refusal) {
	user, asked, refused, cause := d.judge(req)
	if refused != nil {
		d.tell(req, user, refused, cause)
	}
	return admitted{asked, user == d.manager}, refused
}

func (d *doorkeeper) judge(req *http.Request) (user string, asked request, refused *refusal, cause error) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", asked, refusedNoToken, nil
	}
	if len(token) > maxTokenLength {
		return "", asked, refusedBadToken, nil
	}
	address, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		address = req.RemoteAddr
	}
	user, err = d.identities.of(req.Context(), token, address)
	switch {
	case errors.Is(err, errTooMany):
		return "", asked, refusedBusy, nil
	case err != nil:
		return "", asked, refusedUnavailable, err
	case user == "":
		return "", asked, refusedBadToken, nil
	}
	if asked, refused = parse(req); refused == nil {
		refused = asked.allowed(user, d.manager)
	}
	return user, asked, refused, nil
}

// tell counts a refusal, and logs it once in a while: who is refused may ask as often as it likes.
func (d *doorkeeper) tell(req *http.Request, user string, refused *refusal, cause error) {
	d.refusals.WithLabelValues(refused.reason).Inc()
	d.told[refused.reason].Do(func() {
		path := req.URL.Path
		d.log.Warn("artifact registry refused a request", "reason", refused.reason, "account", user,
			"address", req.RemoteAddr, "method", req.Method, "path", path[:min(len(path), 200)], "error", cause)
	})
}
