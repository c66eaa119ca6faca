package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/standalone"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

const (
	sample = "../../hack/samples/digits"
	pool   = "digits"
)

// binary is the runtime, built once.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "runtime")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/runtime").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "switchyard-serve-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// start serves adapters of the sample's base.
func start(t *testing.T, adapters string) *standalone.Server {
	t.Helper()
	return startOn(t, digits.Base(sample), adapters, pool)
}

func startOn(t *testing.T, base, adapters, name string, flags ...string) *standalone.Server {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s, err := standalone.Start(t.Context(), path, base, adapters, name, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Log())
		}
		s.Kill()
	})
	return s
}

func heldOut(t *testing.T) (images []digits.Image, adapters []string) {
	t.Helper()
	images, adapters, err := digits.Images(sample)
	if err != nil {
		t.Fatal(err)
	}
	return images, adapters
}

// Over HTTP, from PNG to label: every held-out image asked of every adapter, in mixed batches.
func TestHeldOutAccuracy(t *testing.T) {
	for _, dtype := range []string{"float32", "bfloat16"} {
		t.Run(dtype, func(t *testing.T) { testHeldOutAccuracy(t, dtype) })
	}
}

func testHeldOutAccuracy(t *testing.T, dtype string) {
	s := startOn(t, digits.Base(sample), digits.Adapters(sample), pool, "--dtype", dtype)
	if !strings.Contains(s.Log(), "dtype="+dtype) {
		t.Errorf("expected dtype=%s in what is logged", dtype)
	}
	images, adapters := heldOut(t)
	right := make(map[string]int)
	for part := range slices.Chunk(images, 40) {
		var pngs [][]byte
		var names []string
		for _, image := range part {
			for _, adapter := range adapters {
				pngs, names = append(pngs, image.PNG), append(names, adapter)
			}
		}
		answers, err := oip.Infer(t.Context(), s.URL, pool, oip.Request{
			Inputs: []oip.Tensor{oip.Images(pngs...), oip.Adapters(names...)},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, answer := range answers {
			if answer.Label == part[i/len(adapters)].Labels[names[i]] {
				right[names[i]]++
			}
		}
	}
	for _, adapter := range adapters {
		accuracy := float64(right[adapter]) / float64(len(images))
		t.Logf("%s: %.3f of %d held-out images", adapter, accuracy, len(images))
		if accuracy < 0.9 {
			t.Errorf("%s: expected at least 0.9, found %.3f", adapter, accuracy)
		}
	}
}

// Rows of many clients at once share batches; each gets its own answer, to the bit.
func TestClientsAtOnceGetTheirOwnAnswers(t *testing.T) {
	s := start(t, digits.Adapters(sample))
	images, adapters := heldOut(t)
	ask := func(i int) ([]oip.Answer, error) {
		return oip.Infer(t.Context(), s.URL, pool, oip.Request{Inputs: []oip.Tensor{
			oip.Images(images[i].PNG, images[i+1].PNG),
			oip.Adapters(adapters[i%len(adapters)], adapters[(i+1)%len(adapters)]),
		}})
	}
	const clients = 24
	var want [clients][]oip.Answer
	for i := range clients {
		var err error
		if want[i], err = ask(i); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			got, err := ask(i)
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			for row := range got {
				if !slices.Equal(got[row].Logits, want[i][row].Logits) || got[row].Label != want[i][row].Label {
					t.Errorf("client %d, row %d: alone %v, with others %v", i, row, want[i][row], got[row])
				}
			}
		})
	}
	group.Wait()
}

// A hundred adapters from one folder, among them some that cannot be served: the log and the metadata say why, and the
// rest serve.
func TestAHundredAdaptersSomeOfThemBad(t *testing.T) {
	dir := t.TempDir()
	names := make([]string, 0, 100)
	for i := range 100 {
		name := []string{"digit", "parity", "holes"}[i%3] + "-" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		from := filepath.Join(digits.Adapters(sample), name[:len(name)-3])
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	bad := wrappers.Adapter(t).Set("use_qalora", true).Update("vit.layers.0.attention.q_proj", 96, 96).Write()
	if err := os.Rename(bad, filepath.Join(dir, "qalora")); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir)
	_, err := oip.Do(t.Context(), http.MethodGet, s.URL+"/v2/models/qalora", nil)
	var refused *oip.StatusError
	if !errors.As(err, &refused) || refused.Code != http.StatusServiceUnavailable ||
		!strings.Contains(refused.Body, "use_qalora: QA-LoRA is not supported, found true") {
		t.Errorf("expected a 503 that names use_qalora, found %v", err)
	}
	if !strings.Contains(s.Log(), "use_qalora") {
		t.Error("the refusal is not in the log")
	}
	images, _ := heldOut(t)
	pngs := slices.Repeat([][]byte{images[0].PNG}, len(names))
	answers, err := oip.Infer(t.Context(), s.URL, pool, oip.Request{
		Inputs: []oip.Tensor{oip.Images(pngs...), oip.Adapters(names...)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, answer := range answers {
		if want := answers[i%3]; answer.Label != want.Label || answer.Revision != want.Revision {
			t.Errorf("%s: expected %s by %s, found %s by %s", names[i], want.Label, want.Revision, answer.Label, answer.Revision)
		}
	}
}

// On SIGTERM what was admitted is answered, and the process ends with 0.
func TestSIGTERMDrains(t *testing.T) {
	s := start(t, digits.Adapters(sample))
	images, _ := heldOut(t)
	pngs := make([][]byte, 256)
	for i := range pngs {
		pngs[i] = images[i%len(images)].PNG // one image in all rows would be computed once
	}
	answered := make(chan error, 1)
	go func() {
		answers, err := oip.Infer(t.Context(), s.URL, "parity", oip.Request{Inputs: []oip.Tensor{oip.Images(pngs...)}})
		if err == nil && len(answers) != len(pngs) {
			err = errors.New("rows are missing")
		}
		answered <- err
	}()
	for !running(t, s) { // until rows wait behind those in the engine
		select {
		case err := <-answered:
			t.Fatalf("the request was answered before the server could be stopped: %v", err)
		default:
		}
	}
	if err := s.Stop(); err != nil {
		t.Errorf("expected the process to end with 0: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if !strings.Contains(s.Log(), "msg=drained") {
		t.Error("the log does not say that the server drained")
	}
	if _, err := oip.Do(context.Background(), http.MethodGet, s.URL+"/v2/health/live", nil); err == nil {
		t.Error("the server still answers")
	}
}

// running tells whether rows wait behind those in the engine.
func running(t *testing.T, s *standalone.Server) bool {
	t.Helper()
	metrics, err := oip.Do(t.Context(), http.MethodGet, s.Metrics, nil)
	if err != nil {
		t.Fatal(err)
	}
	return !strings.Contains(string(metrics), "switchyard_queue_rows 0\n")
}

// kill -9 leaves nothing behind that a new start would trip over.
func TestARestartAfterAKill(t *testing.T) {
	first := start(t, digits.Adapters(sample))
	if err := first.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if first.Wait() == nil {
		t.Error("expected the killed process to say so")
	}
	second := start(t, digits.Adapters(sample))
	if _, err := oip.Do(t.Context(), http.MethodGet, second.URL+"/v2/models/parity/ready", nil); err != nil {
		t.Error(err)
	}
}

// Tensors of a base that nothing asks for do not keep it from being served, and are named.
func TestTensorsThatNothingAsksFor(t *testing.T) {
	base := wrappers.Base(t, `{"model_type": "bert", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1,
		"num_attention_heads": 1, "intermediate_size": 4, "max_position_embeddings": 8}`).
		Tensor(wrappers.F32("bert.pooler.extra", []float32{1}, 1)).Write()
	s := startOn(t, base, t.TempDir(), "texts")
	const want = `"the base model's files have tensors that nothing asks for" tensors=[bert.pooler.extra]`
	if !strings.Contains(s.Log(), want) {
		t.Errorf("expected %s in the log, found:\n%s", want, s.Log())
	}
}

func TestBadFlagsAndBadBases(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	bare := func() *wrappers.BaseFolder {
		return wrappers.Base(t, `{"model_type": "bert", "vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1,
			"num_attention_heads": 1, "intermediate_size": 4, "max_position_embeddings": 8}`)
	}
	on := func(b *wrappers.BaseFolder) []string {
		return []string{"serve", "--base-model", b.Write(), "--adapters", empty}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "usage: runtime serve"},
		{[]string{"fly"}, 2, "usage: runtime serve"},
		{[]string{"serve", "--wings"}, 2, "flag provided but not defined: -wings"},
		{[]string{"serve", "--dtype", "bf16"}, 2, `for flag -dtype: expected float32 or bfloat16, found "bf16"`},
		{[]string{"agent", "--dtype", "float64"}, 2, `for flag -dtype: expected float32 or bfloat16, found "float64"`},
		{[]string{"serve", "--base-model", "x"}, 2, "expected --base-model and --adapters"},
		{[]string{"serve", "-h"}, 0, "-http-address"},
		{[]string{"serve", "-h"}, 0, "-grpc-address"},
		{[]string{"serve", "-h"}, 0, "(default float32)"},
		{[]string{"serve", "--base-model", empty, "--adapters", empty}, 1, `file \"config.json\": no such file`},
		{
			[]string{"serve", "--base-model", digits.Base(sample), "--adapters", filepath.Join(empty, "no")},
			1,
			"no such file",
		},
		{on(bare().File("config.json", []byte(`{"model_type": "gpt2"}`))), 1, "model_type: expected one of bert, "},
		{
			on(bare().Without("bert.embeddings.word_embeddings")),
			1,
			`its weights: missing: \"bert.embeddings.word_embeddings.weight\"`,
		},
		{on(bare().Sharded(2).File("model-00001-of-00002.safetensors", nil)), 1, "no such file"},
		{
			[]string{
				"serve", "--base-model", digits.Base(sample), "--adapters", empty, "--http-address", "256.0.0.1:x",
			}, 1, "http: ",
		},
	} {
		cmd := exec.CommandContext(t.Context(), path, c.args...)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(stderr)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the code is looked at
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(text), c.want) {
			t.Errorf("%v: expected code %d and %q, found %d:\n%s", c.args, c.code, c.want, code, text)
		}
	}
}

// GOMEMLIMIT is for what the process takes in all: weights off the heap, too.
func TestTheMemoryLimitIsTheWholeProcess(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "777MiB")
	s := start(t, t.TempDir())
	if want := "msg=\"memory limit\" bytes=814743552"; !strings.Contains(s.Log(), want) {
		t.Errorf("expected %s in the log, found:\n%s", want, s.Log())
	}
}

func TestKernelsThatNoProcessorHas(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "serve")
	cmd.Env = append(os.Environ(), "SWITCHYARD_KERNELS=abacus")
	text, _ := cmd.CombinedOutput() // the code is looked at
	const want = "SWITCHYARD_KERNELS: expected one that this processor has, portable"
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(text), want) {
		t.Errorf("expected code 1 and %q, found %d:\n%s", want, code, text)
	}
}
