package digits

import (
	"context"
	"io"

	"github.com/switchyard-dev/switchyard/test/mixed"
	"github.com/switchyard-dev/switchyard/test/oip"
)

// rows is how many the mixed batch has.
const rows = 24

// AskMixedBatch sends one batch of images to a pool and prints a table of what came back. Its error says that not all
// is right.
func AskMixedBatch(ctx context.Context, url, pool, sample string, out io.Writer) error {
	images, adapters, err := Images(sample)
	if err != nil {
		return err
	}
	batch := mixed.Batch{
		Kind: "image", LeastRight: 0.9,
		Tensor: oip.Images, Answer: func(_ mixed.Row, a oip.Answer) string { return a.Label },
	}
	for i := range rows {
		image, adapter := images[i], adapters[i%len(adapters)]
		batch.Rows = append(batch.Rows, mixed.Row{
			Name: image.Name, About: image.PNG, Adapter: adapter, Expected: image.Labels[adapter],
		})
	}
	return batch.Ask(ctx, url, pool, out)
}
