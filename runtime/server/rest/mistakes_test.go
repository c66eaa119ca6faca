package rest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// mistake is a request that is refused, and how.
type mistake struct {
	path, body string
	code       int
	message    string // a part of it
}

func (f *front) refuses(t *testing.T, mistakes []mistake, header ...string) {
	t.Helper()
	for _, m := range mistakes {
		code, body, got := f.do(t, "POST", m.path, m.body, header...)
		if found := got.Get("Content-Type"); found != "application/json" {
			t.Errorf("POST %s %.200s: expected JSON, found %s", m.path, m.body, found)
		}
		if message := decode[struct{ Error string }](t, body).Error; code != m.code || !strings.Contains(message, m.message) {
			t.Errorf("POST %s %.200s: expected %d with %q, found %d: %s", m.path, m.body, m.code, m.message, code, message)
		}
	}
}

// What is malformed whatever the form: nothing that JSON can be hurts anybody.
func TestMalformedForms(t *testing.T) {
	f := newTextFront(t)
	var mistakes []mistake
	for path, member := range map[string]string{
		"/": "inputs", "/predict": "inputs", "/classify": "input", "/v1/classify": "inputs",
		"/v1/models/topics:predict": "instances",
	} {
		with := func(value string) string { return fmt.Sprintf(`{%q: %s}`, member, value) }
		mistakes = append(mistakes,
			mistake{path, "", 400, "malformed request"},
			mistake{path, "[]", 400, "malformed request"},
			mistake{path, `"x"`, 400, "malformed request"},
			mistake{path, "{", 400, "malformed request"},
			mistake{path, with(`"a"`) + "{}", 400, "malformed request"},
			mistake{path, fmt.Sprintf(`{%q: "a", %q: "b"}`, member, member), 400, "duplicate"},
			mistake{path, with("null"), 400, "input"},
			mistake{path, with("[]"), 400, member + ": expected at least one, found none"},
			mistake{path, with(`"\ud800"`), 400, "surrogate"},
			mistake{path, with("\"\xff\""), 400, "UTF-8"},
			mistake{path, with(strings.Repeat("[", 20000)), 400, "malformed request"},
			mistake{path, with("{" + manyMembers(5000) + "}"), 400, "thousands"},
			mistake{path, with("[" + strings.Repeat("0,", 2000) + "0]"), 400, ""},
			mistake{path, with(`["a"` + strings.Repeat(`,"a"`, 2000) + "]"), 400, ""},
		)
		for i := range mistakes {
			if m := &mistakes[i]; strings.Contains(m.message, "input") && strings.HasPrefix(m.path, "/v1/models") {
				m.message = "instances"
			}
		}
	}
	f.refuses(t, mistakes)
}

func TestMistakesInV1(t *testing.T) {
	f := newTextFront(t)
	const path = "/v1/models/topics:predict"
	with := func(instances string) string { return `{"instances": [` + instances + `]}` }
	f.refuses(t, []mistake{
		{"/v1/models/nobody:predict", "not read", 404, "nobody"},
		{path, `{"inputs": []}`, 400, "at /inputs"},
		{path, `{"instances": {}}`, 400, "instances: expected a list, found {}"},
		{path, with(`{"input_ids": [1, 2]}, 3`), 400, "instances: row 1: "},
		{path, with(`{"input_ids": [1, 2]}, {"ids": [1]}`), 400, `instances: row 1: member "ids" is not one of [image`},
		{path, with(`{"input_ids": [1, 2]}, {}`), 400, "instances: row 1: expected one of [image input_ids"},
		{path, with(`{"input_ids": [1], "text": "a"}`), 400, "row 0: expected one of [image input_ids pixel_values text]"},
		{path, with(`{"input_ids": [1]}, {"text": "a"}`), 400, "row 1: expected input_ids, as row 0 has it, found text"},
		{path, with(`{"input_ids": [1], "text_pair": "a"}`), 400, `row 0: member "text_pair" is not one of`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": [1, "2"]}`), 400, `input "input_ids": row 1: expected an integer`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": [1, 2e0]}`), 400, `row 1: expected an integer`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": [1, 1e400]}`), 400, `row 1: expected an integer`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": [[1]]}`), 400, `row 1: data: expected 1 elements`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": 3}`), 400, `row 1: data: expected a list, found 3`},
		{path, with(`{"input_ids": [1, 2]}, {"input_ids": []}`), 400, `row 1: expected at least one token, found none`},
		{path, with(`{"input_ids": [[1], [2]]}`), 400, "row 0: data: expected 2 elements"},
		{path, with(`{"input_ids": []}`), 400, "shape: expected [B, S], found [1, 0]"},
		{path, with(`{"input_ids": [1]}, {"input_ids": [30]}`), 400, `input "input_ids": row 1:`},
		{path, with(`{"input_ids": [1]}, {"input_ids": [1` + strings.Repeat(",1", 16) + `]}`), 400, "row 1"},
		{
			path, with(`{"input_ids": [1, 2]}, {"input_ids": [1, 2], "attention_mask": [1]}`), 400,
			"instances: row 1: attention_mask: expected 2 elements, as input_ids has, found 1",
		},
		{
			path, with(`{"input_ids": [1, 2], "token_type_ids": [0, 0, 0]}`), 400,
			"instances: row 0: token_type_ids: expected 2 elements",
		},
		{path, with(`{"input_ids": [1, 2], "attention_mask": [0, 1]}`), 400, `input "attention_mask": row 0`},
		{path, with(`{"pixel_values": [1]}`), 400, `input "pixel_values" is not one of`},
		{path, with(`{"text": "a"}`), 400, `input "text" is not one of`},
		{path, with(strings.Repeat(`{"input_ids": [1]},`, maxRows) + `{"input_ids": [1]}`), 400, "at most 8 rows"},
		{path, with(`{"input_ids": [1], "adapter": "tags"}`), 400, `input "adapter" is only for the model "texts"`},
		{
			"/v1/models/texts:predict", with(`{"input_ids": [1]}, {"input_ids": [1], "adapter": "nobody"}`), 404,
			`input "adapter": row 1: adapter "nobody"`,
		},
		{
			"/v1/models/texts:predict", with(`{"input_ids": [1]}, {"input_ids": [1], "adapter": ["tags"]}`), 400,
			`instances: row 1: adapter: expected a name, or as many as row 0 has, found ["tags"]`,
		},
		{
			"/v1/models/texts:predict", with(`{"input_ids": [1], "adapter": []}`), 400, `input "adapter": shape`,
		},
		{
			"/v1/models/texts:predict", with(`{"input_ids": [1], "adapter": ["tags", 3]}`), 400, `input "adapter": row 0`,
		},
		{
			"/v1/models/texts:predict", with(`{"input_ids": [1], "adapter": [["tags"]]}`), 400, `input "adapter"`,
		},
		{"/v1/models/names:predict", with(`{"input_ids": [1, 2]}`), 400, "row 0: the model \"names\" classifies tokens"},
	})
}

func TestMistakesAboutImages(t *testing.T) {
	f := newFront(t)
	encoded := pngImage(t)
	cut := base64.StdEncoding.EncodeToString(fromBase64(t, encoded)[:40])
	const path = "/v1/models/digit:predict"
	good := `{"image": {"b64": "` + encoded + `"}}`
	plane := "[" + strings.TrimSuffix(strings.Repeat(zeros(32)+",", 32), ",") + "]"
	pixels := `{"pixel_values": [` + plane + "," + plane + "," + plane + `]}`
	short := strings.Replace(pixels, "0,", "", 1)
	f.refuses(t, []mistake{
		{path, `{"instances": [` + good + `, {"image": "` + encoded + `"}]}`, 400, `row 1: image: expected {"b64": "…"}`},
		{path, `{"instances": [` + good + `, {"image": {"b64": "?"}}]}`, 400, `input "image": row 1: expected base64`},
		{path, `{"instances": [` + good + `, {"image": {}}]}`, 400, `input "image": row 1: expected a string`},
		{path, `{"instances": [` + good + `, {"image": {"b64": "` + cut + `"}}]}`, 422, `input "image": row 1: `},
		{path, `{"instances": [` + pixels + "," + short + `]}`, 400, `input "pixel_values": row 1: data: expected 3072`},
		{path, `{"instances": [` + pixels + `, {"pixel_values": 1}]}`, 400, `row 1: data: expected a list`},
		{path, `{"instances": [{"pixel_values": [[1]]}]}`, 400, "expected [B, 3, 32, 32], found [1, 1, 1]"},
		{path, `{"instances": [{"pixel_values": {}}]}`, 400, "expected [B, 3, 32, 32], found [1]"},
		{"/", `{"inputs": {"text": "a"}}`, 400, `input "image": row 0: expected a string`},
		{"/", `{"inputs": "` + cut + `"}`, 422, `input "image": row 0`},
		{"/", `no JSON, so an image`, 422, `input "image": row 0`},
		{"/predict", `{"inputs": "a"}`, 400, `input "text" is not one of`},
		{"/classify", `{"input": "a"}`, 400, `input "image": row 0: expected base64`},
		{"/classify", `{"input": [1, 2]}`, 400, `input "input_ids" is not one of`},
	})
	for contentType, code := range map[string]int{
		"image/png": 422, "text/plain": 415, "a b/;": 415, "application/jsonlines": 415,
		"application/json; charset=utf-8": 400,
	} {
		found, body, _ := f.do(t, "POST", "/", "x", "Content-Type", contentType)
		if found != code || code == 415 && !strings.Contains(body, "content type: expected one of [application/json") {
			t.Errorf("%s: expected %d, found %d: %s", contentType, code, found, body)
		}
	}
	code, body, _ := f.do(t, "POST", "/v2/models/digit/infer", imageRequest(t, 1), "Content-Type", "text/xml")
	if code != http.StatusUnsupportedMediaType {
		t.Errorf("tensors in XML: expected 415, found %d: %s", code, body)
	}
}

func TestMistakesInFormsOfTexts(t *testing.T) {
	f := newPackagesFront(t)
	f.refuses(t, []mistake{
		{"/", `{"inputs": "a"}`, 400, `the base "packages" has no classifier of its own`},
		{"/", `{"inputs": "a", "model": "nobody"}`, 404, `adapter "nobody": unknown`},
		{"/", `{"inputs": "a", "parametres": {}}`, 400, "at /parametres"},
		{"/", `{"inputs": "a", "parameters": {"truncation": true}}`, 400, "at /parameters/truncation"},
		{"/", `{"inputs": "a", "parameters": {"top_k": 1e400}}`, 400, "at /parameters/top_k"},
		{"/", `{"inputs": "a", "parameters": {"function_to_apply": "tanh"}}`, 400, "function_to_apply: expected one of"},
		{"/predict", `{"inputs": "a"}`, 400, `no classifier of its own`},
		{"/classify", `{"inputs": "a", "input": "a"}`, 400, "expected either inputs or input"},
		{"/classify", `{"messages": []}`, 400, "expected either inputs or input"},
		{"/classify", `{"model": "nobody", "input": "a"}`, 404, `adapter "nobody": unknown`},
		{"/classify", `{"model": "versions", "input": "a"}`, 400, `the model "versions" classifies tokens`},
		{"/classify", `{"model": "versions", "inputs": "a"}`, 400, `the model "versions" classifies tokens`},
	})
	f.refuses(t, []mistake{
		{"/", `{"inputs": ["a", 3]}`, 400, `input "text": row 1: expected a string, found 3`},
		{"/", `{"inputs": ["a", {"text": "b", "pair": "c"}]}`, 400, "inputs: row 1: malformed request: at /pair"},
		{"/", `{"inputs": ["a", {"text_pair": "c"}]}`, 400, "inputs: row 1: expected a text, found none"},
		{"/", `{"inputs": {"text": "b", "text_pair": 3}}`, 400, `input "text_pair": row 0: expected a string, found 3`},
		{"/", `{"inputs": "a", "parameters": {"top_k": 0}}`, 400, "top_k: expected a positive number, found 0"},
		{"/", `{"inputs": "a", "parameters": {"aggregation_strategy": "simple"}}`, 400, "aggregation_strategy: row 0"},
		{"/", `{"inputs": "a", "parameters": {"ignore_labels": ["O"]}}`, 400, "ignore_labels: row 0: not for"},
		{"/predict", `{"inputs": ["a", "b", "c"]}`, 400, "inputs: row 0: expected a list of one text, or of two"},
		{"/predict", `{"inputs": [["a"], ["a", "b", "c"]]}`, 400, "inputs: row 1: expected a list of one text, or of two"},
		{"/predict", `{"inputs": [["a"], []]}`, 400, "inputs: row 1: expected a list of one text"},
		{"/predict", `{"inputs": [["a"], "b"]}`, 400, "inputs: row 1: expected a list of one text"},
		{"/predict", `{"inputs": [["a"], [["b"]]]}`, 400, `inputs: row 1: expected texts, found ["b"]`},
		{"/predict", `{"inputs": ["a", 3]}`, 400, "inputs: row 0: expected texts, found 3"},
		{"/predict", `{"inputs": 3}`, 400, "inputs: row 0: expected texts, found 3"},
		{"/predict", `{"inputs": "a", "truncation_direction": "Left"}`, 400, `expected Right, found "Left"`},
		{"/predict", `{"inputs": "` + strings.Repeat("a ", 600) + `", "truncate": false}`, 413, "truncate: row 0"},
		{"/classify", `{"inputs": "a", "parameters": {"top_k": 1}}`, 400, "parameters: expected none"},
		{"/classify", `{"input": ["a", 3]}`, 400, `input "text": row 1: expected a string, found 3`},
		{"/classify", `{"input": [1, "a"]}`, 400, `input "input_ids": row 0: expected an integer`},
		{"/classify", `{"input": [[1], "a"]}`, 400, `input "input_ids": row 1: data: expected a list`},
		{"/classify", `{"input": [[1], []]}`, 400, `row 1: expected at least one token`},
		{"/classify", `{"input": "a", "truncate_prompt_tokens": 3}`, 400, "truncate_prompt_tokens: expected -1"},
		{"/classify", `{"input": "a", "add_special_tokens": false}`, 400, "add_special_tokens: expected true"},
	}, "Switchyard-Adapter", "section")
	f.refuses(t, []mistake{
		{"/", `{"inputs": "a", "parameters": {"top_k": 1}}`, 400, "top_k: row 0: not for the model \"versions\""},
		{"/", `{"inputs": "a", "parameters": {"function_to_apply": "none"}}`, 400, "function_to_apply: row 0: not for"},
		{"/", `{"inputs": "a", "parameters": {"aggregation_strategy": "max"}}`, 400, `expected simple, found "max"`},
		{"/", `{"inputs": "a", "parameters": {"ignore_labels": []}}`, 400, `ignore_labels: expected ["O"]`},
		{
			"/", `{"inputs": "a", "parameters": {"ignore_labels": [` + strings.Repeat(`"",`, 99) + `""]}}`, 400,
			"at /parameters/ignore_labels (byte 97): expected at most 16 members",
		},
		{"/", `{"inputs": "a", "parameters": {"stride": 3}}`, 400, "at /parameters/stride"},
		{"/", `{"inputs": {"text": "a", "text_pair": "b"}}`, 400, "it finds entities in text, and not in pairs"},
		{"/predict", `{"inputs": "a"}`, 400, `the model "versions" classifies tokens`},
	}, "Switchyard-Adapter", "versions")
	code, body, _ := f.do(t, "POST", "/", "\x89PNG", "Content-Type", "image/png")
	if code != http.StatusUnsupportedMediaType || !strings.Contains(body, "takes no encoded images") {
		t.Errorf("an image to a base of texts: expected 415, found %d: %s", code, body)
	}
}

// What other servers ignore is ignored where their clients send it, and only there.
func TestMembersThatAreIgnored(t *testing.T) {
	f := newPackagesFront(t)
	for path, body := range map[string]string{
		"/":         `{"inputs": "a", "options": {"wait_for_model": true}, "parameters": null}`,
		"/predict":  `{"inputs": "a", "truncate": true, "truncation_direction": "Right", "more": [1e400]}`,
		"/classify": `{"input": "a", "user": "me", "priority": 3, "truncate_prompt_tokens": -1, "add_special_tokens": true}`,
	} {
		if code, found, _ := f.do(t, "POST", path, body, "Switchyard-Adapter", "section"); code != http.StatusOK {
			t.Errorf("POST %s %s: status %d: %s", path, body, code, found)
		}
	}
}
