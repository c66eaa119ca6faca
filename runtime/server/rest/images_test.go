package rest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
)

// asWebP is 0000.png of the sample as Pillow writes it without loss.
const asWebP = "UklGRmAAAABXRUJQVlA4TFQAAAAvB8ABAHdAEAiywSHs77kDQbZt6AYvwgiybUM3eBE2/5ktXH+wArACNrFtR7nZ90" +
	"VBJloiJDWi6OgosYEHJKAnov/B4+E19AGzwNy35jsy5ypcvwM="

// Each row of a request may be of another format; the answer is that of the same pixels.
func TestImagesOfEveryFormat(t *testing.T) {
	f := newFront(t)
	raw, err := os.ReadFile(filepath.Join(sample, "images", "0000.png"))
	if err != nil {
		t.Fatal(err)
	}
	pixels, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var asBMP, asGIF, asJPEG bytes.Buffer
	shades := make(color.Palette, 256)
	for i := range shades {
		shades[i] = color.Gray{Y: uint8(i)}
	}
	drawn := image.NewPaletted(pixels.Bounds(), shades)
	draw.Draw(drawn, drawn.Rect, pixels, image.Point{}, draw.Src)
	err = errors.Join(bmp.Encode(&asBMP, pixels), gif.Encode(&asGIF, drawn, nil),
		jpeg.Encode(&asJPEG, pixels, &jpeg.Options{Quality: 100}))
	if err != nil {
		t.Fatal(err)
	}
	var data []string
	for _, encoded := range [][]byte{raw, asBMP.Bytes(), asGIF.Bytes(), asJPEG.Bytes()} {
		data = append(data, `"`+base64.StdEncoding.EncodeToString(encoded)+`"`)
	}
	data = append(data, `"`+asWebP+`"`)
	ask := func(data ...string) (int, string) {
		code, body, _ := f.do(t, "POST", "/v2/models/digits/infer", fmt.Sprintf(
			`{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [%d], "data": [%s]}], "outputs": [{"name": "logits"}]}`,
			len(data), strings.Join(data, ",")))
		return code, body
	}
	code, body := ask(data...)
	var answer struct {
		Outputs []struct{ Data []float64 }
	}
	if err := json.Unmarshal([]byte(body), &answer); code != http.StatusOK || err != nil || len(answer.Outputs) != 1 {
		t.Fatalf("status %d, %v: %s", code, err, body)
	}
	logits := answer.Outputs[0].Data
	row := len(logits) / len(data)
	for i, name := range []string{"PNG", "BMP", "GIF", "JPEG", "WebP"} {
		if name != "JPEG" && !slices.Equal(logits[i*row:(i+1)*row], logits[:row]) {
			t.Errorf("%s: expected the logits %v, found %v", name, logits[:row], logits[i*row:(i+1)*row])
		}
	}
	for i, want := range logits[:row] {
		if got := logits[3*row+i]; math.Abs(got-want) > 0.1*math.Abs(slices.Max(logits[:row])) {
			t.Errorf("JPEG: logit %d: expected about %v, found %v", i, want, got)
		}
	}
	cut := `"` + base64.StdEncoding.EncodeToString(asJPEG.Bytes()[:asJPEG.Len()/2]) + `"`
	code, body = ask(data[0], cut)
	if code != http.StatusUnprocessableEntity || !strings.Contains(body, "row 1: broken JPEG: ") {
		t.Errorf("a JPEG that is not whole: expected 422 for row 1, found %d: %s", code, body)
	}
}
