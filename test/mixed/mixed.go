// Package mixed asks a pool one batch in which neighbouring rows use different adapters, and prints what came back
// beside what is true and what each adapter answers alone: what is shown of each sample.
package mixed

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/switchyard-dev/switchyard/test/oip"
)

// Batch is one batch of questions.
type Batch struct {
	Kind       string // of what is asked about: "image" or "text"
	Rows       []Row
	LeastRight float64 // the least share of answers that must be true: what is held out may deceive an adapter

	Tensor func(about ...[]byte) oip.Tensor // of what is asked about
	Answer func(Row, oip.Answer) string     // what an answer says
}

// Row is a question.
type Row struct {
	Name     string // in the table
	About    []byte // the image's file, or the text
	Adapter  string
	Expected string // the true answer
}

// Ask sends the batch to a pool and prints a table of what came back. Its error says that not all is right.
func (b *Batch) Ask(ctx context.Context, url, pool string, out io.Writer) error {
	adapters := map[string]bool{}
	for _, row := range b.Rows {
		adapters[row.Adapter] = true
	}
	fmt.Fprintf(out, "One base model, %d adapters with classifiers of their own, one batch of %d held-out %ss:\n\n",
		len(adapters), len(b.Rows), b.Kind)
	mixed, err := b.ask(ctx, url, pool, b.Rows...)
	if err != nil {
		return err
	}
	right, same := 0, 0
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\tADAPTER\tEXPECTED\tANSWER\tSCORE\tSAME AS ALONE\n", strings.ToUpper(b.Kind))
	for i, row := range b.Rows {
		alone, err := b.ask(ctx, url, pool, row)
		if err != nil {
			return err
		}
		answer := b.Answer(row, mixed[i])
		isRight, isSame := answer == row.Expected, sameBits(&mixed[i], &alone[0])
		right += count(isRight)
		same += count(isSame)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s%s\t%s\t%s\n", row.Name, row.Adapter, row.Expected,
			answer, map[bool]string{false: "  (wrong)"}[isRight], score(&mixed[i]),
			map[bool]string{true: "yes", false: "NO"}[isSame])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d of %d answers are right; %d of %d rows are bitwise the same as their adapter alone.\n",
		right, len(b.Rows), same, len(b.Rows))
	if same < len(b.Rows) || float64(right) < b.LeastRight*float64(len(b.Rows)) {
		return fmt.Errorf("expected all rows the same and at least %.0f %% right", b.LeastRight*100)
	}
	return nil
}

func (b *Batch) ask(ctx context.Context, url, pool string, rows ...Row) ([]oip.Answer, error) {
	var about [][]byte
	var names []string
	for _, row := range rows {
		about, names = append(about, row.About), append(names, row.Adapter)
	}
	return oip.Infer(ctx, url, pool, oip.Request{
		Inputs: []oip.Tensor{b.Tensor(about...), oip.Adapters(names...)}, Outputs: oip.Everything(),
	})
}

// score is a label's probability, or that of the least certain entity.
func score(a *oip.Answer) string {
	if len(a.Logits) > 0 {
		return fmt.Sprintf("%.3f", a.Score)
	}
	if len(a.Entities) == 0 {
		return ""
	}
	least := slices.MinFunc(a.Entities, func(a, b oip.Entity) int { return cmp.Compare(a.Score, b.Score) })
	return fmt.Sprintf("%.3f", least.Score)
}

// sameBits tells whether the logits are the same, of the row or of its tokens.
func sameBits(a, b *oip.Answer) bool {
	same := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
	return slices.EqualFunc(a.Logits, b.Logits, same) && slices.EqualFunc(a.TokenLogits, b.TokenLogits, same)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
