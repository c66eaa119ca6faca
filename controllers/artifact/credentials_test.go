package artifact

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

// Which host gets what; "" is nothing.
func TestCredentialsByHost(t *testing.T) {
	encoded := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	type hosts map[string]string // by URL without a path
	for _, c := range []struct {
		name, config string // of docker
		host, token  string // else
		want         hosts
	}{
		{name: "one host", host: "models.example", token: "t", want: hosts{
			"https://models.example": "Bearer t", "https://MODELS.example:443": "Bearer t",
			"http://models.example": "Bearer t", "http://models.example:80": "Bearer t",
			"https://models.example:8443": "", "http://models.example:443": "", "https://models.example:80": "",
			"https://models.example.evil.example": "", "https://evil.models.example": "", "https://models.example.": "",
			"https://xmodels.example": "", "https://": "",
		}},
		{name: "one port", host: "models.example:8443", token: "t", want: hosts{
			"https://models.example:8443": "Bearer t", "https://models.example": "", "https://models.example:443": "",
		}},
		{name: "the usual port", host: "models.example:443", token: "t", want: hosts{
			"https://models.example": "Bearer t", "http://models.example": "",
		}},
		{name: "IPv6", host: "[::1]:5000", token: "t", want: hosts{
			"http://[::1]:5000": "Bearer t", "http://[0:0::1]:5000": "Bearer t", "http://[::1]": "", "http://[::2]:5000": "",
		}},
		{
			name: "docker login",
			config: `{"auths": {
				"registry.example": {"auth": "` + encoded("u:p:q") + `"}, "other.example:5000": {"username": "n", "password": "w"},
				"https://old.example/v1/": {"auth": "` + strings.TrimRight(encoded("o:p"), "=") + `"},
				"tokens.example": {"registrytoken": "r"},
				"paths.example/team": {"auth": "` + encoded("u:p") + `"}, "*.any.example": {"auth": "` + encoded("u:p") + `"},
				"helper.example": {}, "broken.example": {"auth": "%%"}, "half.example": {"auth": "` + encoded("user") + `"}
			}, "credsStore": "x"}`,
			want: hosts{
				"https://registry.example": basic("u:p:q"), "https://other.example:5000": basic("n:w"), "https://other.example": "",
				"https://old.example": basic("o:p"), "https://tokens.example": "Bearer r", "https://paths.example": "",
				"https://a.any.example": "", "https://helper.example": "", "https://broken.example": "",
				"https://half.example": "", "https://index.docker.io": "", "https://registry-1.docker.io": "",
			},
		},
		{
			name: "Docker Hub", config: `{"auths": {"https://index.docker.io/v1/": {"auth": "` + encoded("h:p") + `"}}}`,
			want: hosts{
				"https://index.docker.io": basic("h:p"), "https://registry-1.docker.io": basic("h:p"),
				"https://auth.docker.io": basic("h:p"), "https://docker.io": basic("h:p"), "https://hub.docker.io": "",
			},
		},
		{
			name: "Docker Hub by parts",
			config: `{"auths": {"docker.io": {"auth": "` + encoded("h:p") + `"},
				"auth.docker.io": {"auth": "` + encoded("a:p") + `"}}}`,
			want: hosts{"https://registry-1.docker.io": basic("h:p"), "https://auth.docker.io": basic("a:p")},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			credentials, err := ParseDockerConfig([]byte(c.config))
			if c.config == "" {
				credentials, err = NewCredentials(c.host, c.token, "", "")
			}
			if err != nil {
				t.Fatal(err)
			}
			for url, want := range c.want {
				scheme, host, _ := strings.Cut(url, "://")
				if got := credentials.header(scheme, host); got != want {
					t.Errorf("%s: expected %q, found %q", url, want, got)
				}
			}
			text := fmt.Sprintf("%v, %+v", credentials, struct{ *Credentials }{credentials})
			if text != "credentials, credentials" {
				t.Errorf("expected nothing of them to be printed, found %s", text)
			}
		})
	}
	if got := (*Credentials)(nil).header("https", "models.example"); got != "" {
		t.Errorf("expected none of none, found %q", got)
	}
}

// What cannot be read is refused without a word of it.
func TestCredentialsThatCannotBeRead(t *testing.T) {
	const hidden = "hidden"
	for _, c := range []struct{ host, token, username, password, want string }{
		{"", hidden, "", "", "host: expected host or host:port"},
		{"https://" + hidden, hidden, "", "", "host: expected host or host:port"},
		{hidden + "/path", hidden, "", "", "host: expected host or host:port"},
		{hidden + ":", hidden, "", "", "host: expected host or host:port"},
		{"user@" + hidden, hidden, "", "", "host: expected host or host:port"},
		{"*." + hidden, hidden, "", "", "host: expected host or host:port"},
		{hidden + " " + hidden, hidden, "", "", "host: expected host or host:port"},
		{"host", "", "", "", "expected a token, or a username and a password, found less"},
		{"host", "", hidden, "", "expected a token, or a username and a password, found less"},
		{"host", "", "", hidden, "expected a token, or a username and a password, found less"},
		{"host", hidden, hidden, hidden, "expected either a token, or a username and a password, found both"},
		{"host", hidden + "\r\nX: y", "", "", "token: expected printable ASCII without spaces"},
		{"host", "", hidden + ":", hidden, "username: expected it without a colon"},
	} {
		_, err := NewCredentials(c.host, c.token, c.username, c.password)
		expectHidden(t, err, c.want, hidden)
	}
	for _, config := range []string{
		"", hidden, "null", "[]", `{"auths": "` + hidden + `"}`, `{"auths": {"a": "` + hidden + `"}}`,
		`{"` + hidden + `": {}}`,
		`{"auths": {"a": {"auth": 1}}}`, `{"auths": {"` + hidden + `": `,
	} {
		_, err := ParseDockerConfig([]byte(config))
		expectHidden(t, err, `expected {"auths":`, hidden)
	}
}

func expectHidden(t *testing.T, err error, want, hidden string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hidden) {
		t.Errorf("expected %q and nothing of the Secret, found %v", want, err)
	}
}
