package weights

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// Inside the package, because no test can make a file change at the right moment.
func TestAFileThatChangesWhileItIsReadIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		content, err string
	}{
		"same":   {"1234", ""},
		"shrank": {"123", "expected 4 bytes, found 3: it shrank while it was read"},
		"empty":  {"", "expected 4 bytes, found 0: it shrank while it was read"},
		"grew":   {"12345", "expected 4 bytes, found more: it grew while it was read"},
	} {
		data, err := readExactly(iotest.OneByteReader(strings.NewReader(c.content)), 4)
		switch {
		case c.err == "" && (err != nil || string(data) != c.content):
			t.Errorf("%s: expected %q, found %q, %v", name, c.content, data, err)
		case c.err != "" && (err == nil || err.Error() != c.err):
			t.Errorf("%s: expected %q, found %v", name, c.err, err)
		}
	}
	broken := errors.New("broken disk")
	for _, content := range []string{"", "1234"} {
		r := iotest.DataErrReader(strings.NewReader(content))
		if _, err := readExactly(&failing{r, broken}, 4); !errors.Is(err, broken) {
			t.Errorf("after %q: expected %v, found %v", content, broken, err)
		}
	}
}

// failing reads r and then fails.
type failing struct {
	r   interface{ Read([]byte) (int, error) }
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil {
		err = f.err
	}
	return n, err
}
