package packages

import (
	"context"
	"io"

	"github.com/switchyard-dev/switchyard/test/mixed"
	"github.com/switchyard-dev/switchyard/test/oip"
)

const (
	// rows is how many the mixed batch has.
	rows = 24
	// wide is how much of a text a table shows.
	wide = 44
)

// AskMixedBatch sends one batch of texts to a pool and prints a table of what came back. Its error says that not all
// is right.
func AskMixedBatch(ctx context.Context, url, pool, sample string, out io.Writer) error {
	questions, err := Questions(sample)
	if err != nil {
		return err
	}
	batch := mixed.Batch{
		Kind: "text", LeastRight: 0.6,
		Tensor: func(about ...[]byte) oip.Tensor {
			texts := make([]string, len(about))
			for i := range about {
				texts[i] = string(about[i])
			}
			return oip.Texts(texts...)
		},
		Answer: func(row mixed.Row, a oip.Answer) string {
			return (&Question{Text: string(row.About)}).Answer(a)
		},
	}
	for _, q := range questions[:rows] {
		batch.Rows = append(batch.Rows, mixed.Row{
			Name: short(q.Text), About: []byte(q.Text), Adapter: q.Adapter, Expected: q.Expected(),
		})
	}
	return batch.Ask(ctx, url, pool, out)
}

func short(text string) string {
	if characters := []rune(text); len(characters) > wide {
		return string(characters[:wide-1]) + "…"
	}
	return text
}
