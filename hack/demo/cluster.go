package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/test/digits"
	"github.com/switchyard-dev/switchyard/test/load"
	"github.com/switchyard-dev/switchyard/test/local"
	"github.com/switchyard-dev/switchyard/test/ocisource"
)

const (
	namespace = "demo"
	// sourceAddress is the source registry's, by which config/samples names it.
	sourceAddress = "127.0.0.1:5001"
	// moreAnswers are waited for once the new revision is Ready.
	moreAnswers = 100
)

// clusterDemo brings up the local place, applies config/samples, asks a mixed batch in each pool and swaps an adapter
// under load.
func clusterDemo(ctx context.Context, bin, repository string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "switchyard-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	step := func(what string) { fmt.Fprintf(out, "%5.1fs  %s\n", time.Since(began).Seconds(), what) }
	place, err := local.Start(ctx, local.Options{
		Dir: dir, Repository: repository, SourceAddress: sourceAddress,
		Manager: filepath.Join(bin, "manager"), Runtime: filepath.Join(bin, "runtime"),
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w (if make up has left one running, make down ends it)", err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fmt.Fprintln(out, place.ManagerLog())
		}
		err = errors.Join(err, place.Close())
		step("everything is down")
	}()
	step("control plane, manager, node and a source registry with the samples are up")
	kubectl := func(args ...string) error {
		fmt.Fprintf(out, "\n$ kubectl %s\n", strings.Join(args, " "))
		text, err := place.Kubectl(ctx, args...)
		fmt.Fprint(out, text)
		return err
	}
	if err := kubectl("apply", "-f", "config/samples/"); err != nil {
		return err
	}
	if err := kubectl("wait", "-n", namespace, "--for=condition=Ready", "lora", "--all", "--timeout=60s"); err != nil {
		_ = kubectl("get", "-n", namespace, "lorapool,lora,pods", "-o", "yaml") // for whoever has to find out why
		return err
	}
	fmt.Fprintln(out)
	step("all adapters are Ready")
	for _, sample := range samples {
		endpoint, err := place.Endpoint(ctx, namespace, sample.name)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\nThrough the address of the pool %s, %s. ", sample.name, endpoint.HTTP)
		dir := filepath.Join(repository, "hack", "samples", sample.name)
		if err := sample.askMixedBatch(ctx, endpoint.HTTP, sample.name, dir, out); err != nil {
			return err
		}
	}
	if err := kubectl("get", "-n", namespace, "lorapool,lora"); err != nil {
		return err
	}
	return swap(ctx, place, out)
}

// swap applies a new revision of parity while it is asked without a pause.
func swap(ctx context.Context, place *local.Place, out io.Writer) (err error) {
	const adapter, clients = "parity", 4
	endpoint, err := place.Endpoint(ctx, namespace, "digits")
	if err != nil {
		return err
	}
	folder, err := renamed(filepath.Join(digits.Adapters(place.Sample()), adapter))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if _, err := ocisource.Push(ctx, place.Ref(adapter, "v2"), folder); err != nil {
		return err
	}
	images, _, err := digits.Images(place.Sample())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nA new revision of %s, whose labels are in capitals, is applied while %d clients ask it:\n",
		adapter, clients)
	asking := load.Start(ctx, endpoint.HTTP, adapter, images[0].PNG, clients)
	old, err := asking.NextRevision(ctx, "")
	if err != nil {
		return errors.Join(err, asking.Stop().Err())
	}
	patch := fmt.Sprintf(`{"spec":{"source":{"oci":{"ref":%q}}}}`, place.Ref(adapter, "v2"))
	key := types.NamespacedName{Namespace: namespace, Name: adapter}
	if text, err := place.Kubectl(ctx, "patch", "-n", namespace, "lora", adapter, "--type=merge",
		"-p", patch); err != nil {
		return fmt.Errorf("%w:\n%s", err, text)
	}
	applied := time.Now()
	if text, err := place.Kubectl(ctx, "wait", "-n", namespace, "--for=condition=Ready", "lora/"+adapter,
		"--timeout=60s"); err != nil {
		return fmt.Errorf("%w:\n%s", err, text)
	}
	var after v1alpha1.LoRAAdapter
	if err := place.Client.Get(ctx, key, &after); err != nil {
		return err
	}
	asking.MarkReady()
	if err := asking.Answers(ctx, moreAnswers); err != nil { // all by the new revision
		return err
	}
	report := asking.Stop()
	return printSwap(out, report, old, after.Status.ServedRevision, time.Since(applied))
}

// printSwap prints which revision answered how often before, during and after the switch.
func printSwap(out io.Writer, r *load.Report, old, served string, took time.Duration) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nREVISION\tLABEL\tANSWERS\tOF THEM AFTER READY")
	for _, revision := range r.Revisions {
		fmt.Fprintf(table, "%.19s\t%s\t%d\t%d\n", revision.Digest, revision.Label, revision.Answers, revision.AfterReady)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d requests lost; Ready and %d answers more took %.1f s.\n\n",
		len(r.Failures), moreAnswers, took.Seconds())
	switch {
	case len(r.Failures) > 0:
		return fmt.Errorf("requests failed during the switch: %w", r.Err())
	case len(r.Revisions) != 2 || r.Revisions[0].Digest != old || r.Revisions[1].Digest != served:
		return fmt.Errorf("expected answers by %s and then by %s, found %+v", old, served, r.Revisions)
	case r.Revisions[0].AfterReady > 0:
		return fmt.Errorf("the old revision answered %d times after Ready", r.Revisions[0].AfterReady)
	}
	return nil
}

// renamed copies an adapter's folder, its labels in capitals: other answers, so another revision.
func renamed(folder string) (string, error) {
	to, err := os.MkdirTemp("", "switchyard-revision-")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(to, os.DirFS(folder)); err != nil {
		return to, err
	}
	path := filepath.Join(to, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return to, err
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return to, err
	}
	labels, ok := config["id2label"].(map[string]any)
	if !ok {
		return to, fmt.Errorf("%s: expected id2label", path)
	}
	for id, label := range labels {
		labels[id] = strings.ToUpper(fmt.Sprint(label))
	}
	if raw, err = json.Marshal(config); err != nil {
		return to, err
	}
	return to, os.WriteFile(path, raw, 0o600)
}
