package digits

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/switchyard-dev/switchyard/test/oip"
)

const (
	rows = 24
	// leastRight is the least share of labels that must be the true ones: held-out images may deceive an adapter.
	leastRight = 0.9
)

// AskMixedBatch sends one batch to a pool, in which neighbouring rows use different adapters, and prints what came back
// beside what is true and what the adapter alone answers. Its error says that not all is right.
func AskMixedBatch(ctx context.Context, url, pool, sample string, out io.Writer) error {
	images, adapters, err := Images(sample)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "One base model, %d adapters with classifiers of their own, one batch of %d held-out images:\n\n",
		len(adapters), rows)
	batch := make([]question, rows)
	for i := range batch {
		batch[i] = question{images[i], adapters[i%len(adapters)]}
	}
	mixed, err := ask(ctx, url, pool, batch...)
	if err != nil {
		return err
	}
	right, same := 0, 0
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tADAPTER\tEXPECTED\tLABEL\tSCORE\tSAME AS ALONE")
	for i, q := range batch {
		alone, err := ask(ctx, url, pool, q)
		if err != nil {
			return err
		}
		answer, expected := mixed[i], q.image.Labels[q.adapter]
		isSame := slices.EqualFunc(answer.Logits, alone[0].Logits, sameBits)
		right += count(answer.Label == expected)
		same += count(isSame)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s%s\t%.3f\t%s\n", q.image.Name, q.adapter, expected,
			answer.Label, map[bool]string{false: "  (wrong)"}[answer.Label == expected], answer.Score,
			map[bool]string{true: "yes", false: "NO"}[isSame])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d of %d labels are right; %d of %d rows are bitwise the same as their adapter alone.\n",
		right, rows, same, rows)
	if same < rows || float64(right) < leastRight*rows {
		return fmt.Errorf("expected all rows the same and at least %.0f %% right", leastRight*100)
	}
	return nil
}

// question is one row: an image and the adapter asked of it.
type question struct {
	image   Image
	adapter string
}

func ask(ctx context.Context, url, pool string, batch ...question) ([]oip.Answer, error) {
	var images [][]byte
	var names []string
	for _, q := range batch {
		images, names = append(images, q.image.PNG), append(names, q.adapter)
	}
	return oip.Infer(ctx, url, pool, oip.Request{Inputs: []oip.Tensor{oip.Images(images...), oip.Adapters(names...)}})
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
