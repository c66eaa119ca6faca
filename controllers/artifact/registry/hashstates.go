package registry

import (
	"context"
	"strings"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	storagemiddleware "github.com/distribution/distribution/v3/registry/storage/driver/middleware"
)

// hashStates is by which name distribution knows what stands between it and its storage.
const hashStates = "switchyard-hash-states"

func init() {
	err := storagemiddleware.Register(hashStates,
		func(_ context.Context, under driver.StorageDriver, _ map[string]any) (driver.StorageDriver, error) {
			return withoutHashStates{under}, nil
		})
	if err != nil {
		panic(err) // unreachable: nobody else has the name
	}
}

// withoutHashStates keeps no states of hashes. distribution writes one whenever it closes an upload, so that another
// request may go on with it, which none of ours does; and if that fails, of a full disk say, it leaves the upload's
// file open, and its room is lost until the process ends.
type withoutHashStates struct{ driver.StorageDriver }

// PutContent keeps all else.
func (w withoutHashStates) PutContent(ctx context.Context, path string, content []byte) error {
	if strings.Contains(path, "/"+uploadsPath+"/") && strings.Contains(path, "/hashstates/") {
		return nil
	}
	return w.StorageDriver.PutContent(ctx, path, content)
}
