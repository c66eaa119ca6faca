package artifact

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Credentials are those of one Secret, by host. They are only ever read into the header of a request: nothing prints
// them, and the errors of reading them hold nothing of what was read.
type Credentials struct {
	headers map[endpoint]string // Authorization; "" of an entry that says nothing usable
}

// endpoint is a host and a port, which is "" for the default of whatever scheme a URL has. An entry without a port is
// not for the host's other ports: who may listen there may be another.
type endpoint struct{ host, port string }

// hub are the hosts that Docker Hub's one entry, under the name of the first, is for: names of its registry and the one
// that gives out its tokens.
var hub = []string{"index.docker.io", "docker.io", "registry-1.docker.io", "auth.docker.io"}

// String says that they are some, and no more.
func (c *Credentials) String() string { return "credentials" }

// NewCredentials are for one host, with its port if a URL names it: a token, or a username and a password.
func NewCredentials(host, token, username, password string) (*Credentials, error) {
	at, ok := parseEndpoint(host)
	if !ok {
		return nil, errors.New("host: expected host or host:port, without scheme and path, found something else")
	}
	header, err := authorization(token, username, password)
	if err != nil {
		return nil, err
	}
	return &Credentials{map[endpoint]string{at: header}}, nil
}

// ParseDockerConfig reads the credentials that docker login writes, by host. Entries for a part of a host, or for
// several by a pattern, are left out, and so are those of a credential helper, which have nothing in them.
func ParseDockerConfig(raw []byte) (*Credentials, error) {
	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			RegistryToken string `json:"registrytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(raw, &config) != nil || config.Auths == nil {
		return nil, errors.New(`expected {"auths": {"host": {"auth": "…"}}} as docker login writes it, found something else`)
	}
	c := &Credentials{map[endpoint]string{}}
	var forHub string
	for key, entry := range config.Auths {
		at, ok := parseEndpoint(registryOf(key))
		if !ok {
			continue
		}
		username, password := entry.Username, entry.Password
		if entry.Auth != "" {
			username, password = decodeAuth(entry.Auth)
		}
		header, err := authorization(entry.RegistryToken, username, password)
		if err != nil {
			header = ""
		}
		c.headers[at] = header
		if at == (endpoint{host: hub[0]}) || forHub == "" && at == (endpoint{host: hub[1]}) {
			forHub = header
		}
	}
	for _, host := range hub {
		if _, ok := c.headers[endpoint{host: host}]; !ok && forHub != "" {
			c.headers[endpoint{host: host}] = forHub
		}
	}
	return c, nil
}

// registryOf is the host of a key of docker's config: early versions of docker wrote the URL of the API there.
func registryOf(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if !slices.Contains([]string{"", "v1", "v1/", "v2", "v2/"}, path) {
		return ""
	}
	return host
}

func decodeAuth(auth string) (username, password string) {
	raw, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		raw, err = base64.RawStdEncoding.DecodeString(auth)
	}
	if err != nil {
		return "", ""
	}
	username, password, _ = strings.Cut(string(raw), ":")
	return username, password
}

// authorization is the header for a token, or for a username and a password.
func authorization(token, username, password string) (string, error) {
	switch {
	case token != "" && (username != "" || password != ""):
		return "", errors.New("expected either a token, or a username and a password, found both")
	case token != "" && strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("token: expected printable ASCII without spaces, found something else")
	case token != "":
		return "Bearer " + token, nil
	case username == "" || password == "":
		return "", errors.New("expected a token, or a username and a password, found less")
	case strings.Contains(username, ":"):
		return "", errors.New("username: expected it without a colon, found one")
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password)), nil
}

// header is the Authorization for a host as a URL of that scheme names it, or "".
func (c *Credentials) header(scheme, host string) string {
	at, ok := parseEndpoint(host)
	if c == nil || !ok {
		return ""
	}
	usual := "443"
	if scheme == "http" {
		usual = "80"
	}
	if header, ok := c.headers[at]; ok {
		return header
	}
	switch at.port {
	case "":
		at.port = usual
	case usual:
		at.port = ""
	}
	return c.headers[at]
}

// parseEndpoint reads host or host:port.
func parseEndpoint(text string) (endpoint, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, ""
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
	} else if port == "" {
		return endpoint{}, false
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return endpoint{address.String(), port}, true
	}
	if host == "" || strings.ContainsFunc(host+port, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`:/\?#@[]*%`, r)
	}) {
		return endpoint{}, false
	}
	return endpoint{strings.ToLower(host), port}, true
}
