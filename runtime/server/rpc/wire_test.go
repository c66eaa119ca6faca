package rpc_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/switchyard-dev/switchyard/api/proto/inference"
	"github.com/switchyard-dev/switchyard/runtime/batcher"
)

func keep(e batcher.Runner) batcher.Runner { return e }

// plain speaks HTTP/2 without TLS.
func plain() *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// frame is a message as it travels.
func frame(compressed byte, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message))), message...)
}

// send sends a body to ModelInfer, and returns the status of the answer.
func send(t *testing.T, client *http.Client, address string, body io.Reader, header ...string) (codes.Code, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+address+inference.GRPCInferenceService_ModelInfer_FullMethodName, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	code, err := strconv.Atoi(response.Trailer.Get("Grpc-Status"))
	if err != nil {
		t.Fatalf("expected a status in the trailers, found %v and %v", response.Header, response.Trailer)
	}
	message, err := url.PathUnescape(response.Trailer.Get("Grpc-Message"))
	if err != nil {
		t.Fatal(err)
	}
	return codes.Code(code), message
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	encoded, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func zipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	if _, err := zip.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Whatever comes in place of a message is refused as the client's fault, and the next good one works.
func TestBadMessages(t *testing.T) {
	f := newFront(t)
	client := &http.Client{Transport: plain()}
	good := marshal(t, raw([][]byte{png(t, 0)}))
	zip := zipped(t, good)
	field := func(number protowire.Number, wire protowire.Type) []byte {
		return protowire.AppendTag(nil, number, wire)
	}
	inInput := func(value []byte) []byte { return protowire.AppendBytes(field(5, protowire.BytesType), value) }
	for name, c := range map[string]struct {
		body    []byte
		header  []string
		code    codes.Code
		message string
	}{
		"nothing":        {nil, nil, codes.InvalidArgument, "expected a message, found none"},
		"half a prefix":  {[]byte{0, 0}, nil, codes.InvalidArgument, "the message ended early"},
		"half a message": {frame(0, good)[:100], nil, codes.InvalidArgument, "the body ended early, after 95 bytes"},
		"an unknown flag": {
			frame(2, good), nil, codes.InvalidArgument,
			"expected a message that is compressed (1) or not (0), found 2",
		},
		"a lying length": {
			append([]byte{0, 0xff, 0xff, 0xff, 0xff}, good...), nil, codes.ResourceExhausted,
			"over the limit of 1048576 bytes",
		},
		"an unsaid encoding": {
			frame(1, zip), nil, codes.Unimplemented,
			`grpc-encoding: expected gzip or identity, found ""`,
		},
		"deflate": {frame(1, zip), []string{"Grpc-Encoding", "deflate"}, codes.Unimplemented, `found "deflate"`},
		"no gzip": {
			frame(1, good),
			[]string{"Grpc-Encoding", "gzip"},
			codes.InvalidArgument,
			"the message is not in gzip",
		},
		"broken gzip": {
			frame(1, append(bytes.Clone(zip[:len(zip)-8]), 1, 2, 3, 4, 5, 6, 7, 8)),
			[]string{"Grpc-Encoding", "gzip"},
			codes.InvalidArgument,
			"the message is not in gzip",
		},
		"half of gzip": {
			frame(1, zip[:50]),
			[]string{"Grpc-Encoding", "gzip"},
			codes.InvalidArgument,
			"the body ended early",
		},
		"gzip of nothing": {
			frame(1, nil),
			[]string{"Grpc-Encoding", "gzip"},
			codes.InvalidArgument,
			"the body ended early",
		},

		"no protobuf": {frame(0, []byte("hello")), nil, codes.InvalidArgument, "malformed request: "},
		"half of protobuf": {
			frame(0, good[:len(good)-1]), nil, codes.InvalidArgument,
			"raw_input_contents: unexpected EOF",
		},
		"an unknown field": {
			frame(0, protowire.AppendVarint(field(99, protowire.VarintType), 1)), nil, codes.InvalidArgument,
			"ModelInferRequest: there is no field 99",
		},
		"an unknown one deep": {
			frame(0, inInput(protowire.AppendVarint(field(9, protowire.VarintType), 1))), nil, codes.InvalidArgument,
			"inputs: InferInputTensor: there is no field 9",
		},
		"a name twice": {
			frame(0, protowire.AppendString(append(bytes.Clone(good), field(1, protowire.BytesType)...), "digits")), nil,
			codes.InvalidArgument, "model_name: expected it once, found it twice",
		},
		"contents twice": {
			frame(0, inInput(append(protowire.AppendString(field(5, protowire.BytesType), ""),
				protowire.AppendString(field(5, protowire.BytesType), "")...))), nil,
			codes.InvalidArgument, "contents: expected it once, found it twice",
		},
		"another wire type": {
			frame(0, protowire.AppendVarint(field(1, protowire.VarintType), 1)), nil, codes.InvalidArgument,
			"model_name: expected wire type 2, found 0",
		},
		"a name not in UTF-8": {
			frame(0, protowire.AppendString(field(1, protowire.BytesType), "\xff")), nil, codes.InvalidArgument,
			"model_name: expected a text in UTF-8",
		},
		"a list cut off": {
			frame(0, inInput(protowire.AppendBytes(field(3, protowire.BytesType), []byte{0x80}))), nil, codes.InvalidArgument,
			"malformed request",
		},

		"compressed, said":       {frame(1, zip), []string{"Grpc-Encoding", "gzip"}, codes.OK, ""},
		"said, not compressed":   {frame(0, good), []string{"Grpc-Encoding", "gzip"}, codes.OK, ""},
		"another, not there":     {frame(0, good), []string{"Grpc-Encoding", "deflate"}, codes.OK, ""},
		"a second message":       {append(frame(0, good), frame(0, good)...), nil, codes.OK, ""},
		"with its own subtype":   {frame(0, good), []string{"Content-Type", "application/grpc+proto"}, codes.OK, ""},
		"a timeout that is over": {frame(0, good), []string{"Grpc-Timeout", "1n"}, codes.DeadlineExceeded, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, message := send(t, client, f.address, bytes.NewReader(c.body), c.header...); code != c.code ||
				!strings.Contains(message, c.message) {
				t.Errorf("expected %s with %q, found %s: %s", c.code, c.message, code, message)
			}
			if code, message := send(t, client, f.address, bytes.NewReader(frame(0, good))); code != codes.OK {
				t.Errorf("the next request: %s: %s", code, message)
			}
		})
	}
}

// What is compressed is bounded by what comes out.
func TestACompressionBomb(t *testing.T) {
	f := newFront(t)
	bomb := frame(1, zipped(t, make([]byte, 16*maxMessageBytes)))
	client := &http.Client{Transport: plain()}
	for range 8 { // what is refused is not held
		code, message := send(t, client, f.address, bytes.NewReader(bomb), "Grpc-Encoding", "gzip")
		if code != codes.ResourceExhausted || !strings.Contains(message, "over the limit of 1048576 bytes") {
			t.Errorf("expected %s, found %s: %s", codes.ResourceExhausted, code, message)
		}
	}
}

// A list may take more in memory than on the wire: that counts, too.
func TestPartsOfAMessageCount(t *testing.T) {
	f := newFront(t)
	empty := &request{ModelName: "digits", Inputs: []*input{{
		Name: "image", Datatype: "BYTES", Shape: []int64{1}, Contents: &contents{BytesContents: make([][]byte, 500_000)},
	}}}
	_, err := f.client.ModelInfer(t.Context(), empty)
	check(t, err, codes.ResourceExhausted, "bytes more in memory, found one of 32000072")
	if _, err := f.client.ModelInfer(t.Context(), raw([][]byte{png(t, 0)})); err != nil {
		t.Errorf("the next request: %v", err)
	}
}
