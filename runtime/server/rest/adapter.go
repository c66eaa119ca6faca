package rest

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/switchyard-dev/switchyard/runtime/server"
)

// adapterHeader names the model of clients that know only one.
const adapterHeader = "Switchyard-Adapter"

// modelOf is the model that a request is for whose path names none: that of its body, else of its header, else the
// adapter that its Host is called after, else the base. A name that is given is meant: if nobody has it, that is told.
func (h *handler) modelOf(r *http.Request, named string) string {
	base := h.server.Base().Name
	for _, name := range []string{named, r.Header.Get(adapterHeader), h.adapterOfHost(r.Host)} {
		switch name {
		case "":
			continue
		case server.BaseName:
			return base
		}
		return name
	}
	return base
}

// modelOfPath is the model that a request is for whose path names one: if that is the pool, the header may say whose
// its rows are. The Host has no say, as the path has said who is meant.
func (h *handler) modelOfPath(r *http.Request) string {
	return h.server.Asked(r.PathValue("model"), r.Header.Get(adapterHeader))
}

// adapterOfHost is the adapter whose name is the first label of a Host; "" if none has it. One that is known but cannot
// answer now is meant, too.
func (h *handler) adapterOfHost(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	label, _, _ := strings.Cut(host, ".")
	if _, err := h.server.Find(label, ""); err != nil && server.StatusOf(err).Code == http.StatusNotFound {
		return ""
	}
	return label
}
