package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/switchyard-dev/switchyard/runtime/agent/artifacts"
	"github.com/switchyard-dev/switchyard/runtime/arch"
	"github.com/switchyard-dev/switchyard/runtime/model"
	"github.com/switchyard-dev/switchyard/runtime/quote"
	"github.com/switchyard-dev/switchyard/runtime/weights"
)

// maxBaseBytes is far above the encoders served here, and bounds what a wrong manifest can fill a disk with.
const maxBaseBytes = 64 << 30

// OpenBase pulls the base model, as long as it takes, and opens it as dtype. What is opened has that digest again.
func OpenBase(
	ctx context.Context, store *artifacts.Store, digest string, dtype arch.DType, log *slog.Logger,
) (*model.Base, error) {
	quiet, again := newQuiet(log), backoff(500*time.Millisecond, 10*time.Second)
	for n := 0; ; n++ {
		artifact, err := store.Fetch(ctx, digest, maxBaseBytes)
		if err == nil {
			return openBase(artifact, dtype)
		}
		if ctx.Err() == nil {
			quiet.warn("the base model cannot be pulled", err)
		}
		if !wait(ctx, again(n), nil) {
			return nil, ctx.Err()
		}
	}
}

func openBase(artifact *artifacts.Artifact, dtype arch.DType) (*model.Base, error) {
	if artifact.Type != model.ArtifactType {
		return nil, fmt.Errorf("artifactType: expected %s, found %s", model.ArtifactType, quote.Name(artifact.Type))
	}
	folder, err := weights.OpenFolder(artifact.Folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	base, err := model.Open(folder, dtype)
	if err != nil {
		return nil, err
	}
	if base.Digest != artifact.Digest {
		return nil, fmt.Errorf("expected files of digest %s, found %s", artifact.Digest, base.Digest)
	}
	return base, nil
}
