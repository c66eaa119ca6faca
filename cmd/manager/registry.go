package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/cmd/logging"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/controllers/tokenreview"
)

// reviewQPS is far more than pods that ask once a minute need; the registry bounds what strangers cost.
const reviewQPS = 100

type registryFlags struct {
	kubeconfig        string
	dir, address      string
	s3                registry.S3
	tlsDir, manager   string
	gcInterval, grace time.Duration
	scrubInterval     time.Duration
	scrubRate         int64 // MiB a second
	metricsAddress    string
	metricsSecure     bool
	logging           logging.Flags
}

func parseRegistryFlags(args []string) (*registryFlags, error) {
	var f registryFlags
	set := flag.NewFlagSet("manager registry", flag.ContinueOnError)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` of the cluster (default: the one this pod is in)")
	set.StringVar(&f.dir, "dir", "", "`folder` that keeps the artifacts")
	set.StringVar(&f.s3.Bucket, "s3-bucket", "", "`name` of the S3 bucket that keeps the artifacts, in place of --dir; "+
		"credentials are those that the AWS SDK finds")
	set.StringVar(&f.s3.Region, "s3-region", "", "`region` of the bucket")
	set.StringVar(&f.s3.Endpoint, "s3-endpoint", "", "`URL` of an S3 that is not of AWS: https://host:port")
	set.StringVar(&f.s3.Prefix, "s3-prefix", "", "`text` before every key in the bucket")
	set.BoolVar(&f.s3.PathStyle, "s3-path-style", false, "the bucket's name stands in the path, not in the host's name")
	set.DurationVar(&f.gcInterval, "gc-interval", 15*time.Minute,
		"`time` between two rounds of the garbage collection; 0: nothing is ever removed")
	set.DurationVar(&f.grace, "gc-grace", time.Hour,
		"`time` for which something must have been unneeded, and the manager not have asked for it, before it is removed; "+
			"far more than a push takes")
	set.DurationVar(&f.scrubInterval, "scrub-interval", 24*time.Hour,
		"`time` between two readings of all blobs, which find those that are damaged; 0: none")
	set.Int64Var(&f.scrubRate, "scrub-rate", 32, "`MiB` a second that are read at most then")
	set.StringVar(&f.address, "address", ":5000", "`address` to serve on")
	set.StringVar(&f.tlsDir, "tls-dir", "", "`folder` with tls.crt and tls.key, which are read again when they change")
	set.StringVar(&f.manager, "manager-account", "", "`namespace/name` of the service account that may push")
	set.StringVar(&f.metricsAddress, "metrics-address", ":9090", "`address` of /metrics; 0 for none")
	set.BoolVar(&f.metricsSecure, "metrics-secure", true, "serve /metrics over TLS, to who may read them by RBAC")
	f.logging.Define(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	namespace, name, ok := strings.Cut(f.manager, "/")
	wrong := ""
	switch {
	case f.tlsDir == "" || !ok || namespace == "" || name == "" || set.NArg() > 0:
		wrong = "expected --tls-dir, --manager-account namespace/name, and no other arguments"
	case (f.dir == "") == (f.s3.Bucket == ""):
		wrong = "expected either --dir or --s3-bucket"
	case f.s3.Bucket == "" && f.s3 != (registry.S3{}):
		wrong = "expected --s3-bucket with the other flags of S3"
	case f.s3.Bucket != "" && f.s3.Region == "" && f.s3.Endpoint == "":
		wrong = "expected --s3-region or --s3-endpoint"
	case f.gcInterval < 0 || f.grace <= 0 || f.scrubInterval < 0 || f.scrubRate <= 0:
		wrong = "expected times of --gc-interval, --gc-grace and --scrub-interval and a rate of --scrub-rate"
	}
	if wrong != "" {
		fmt.Fprintln(set.Output(), wrong)
		set.Usage()
		return nil, errUsage
	}
	f.manager = "system:serviceaccount:" + namespace + ":" + name
	return &f, nil
}

// serveRegistry is the artifact registry, until ctx ends.
func serveRegistry(ctx context.Context, args []string, log *slog.Logger) error {
	f, err := parseRegistryFlags(args)
	if f == nil || err != nil {
		return err
	}
	if log, err = f.logging.Open(log, os.Stderr); err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	config, err := cluster(f.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = reviewQPS, 2*reviewQPS
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	certificate, err := certwatcher.New(filepath.Join(f.tlsDir, "tls.crt"), filepath.Join(f.tlsDir, "tls.key"))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	needed, err := newRoots(config)
	if err != nil {
		return err
	}
	options := registry.Options{
		Dir: f.dir, Manager: f.manager, Log: log, Metrics: metrics.Registry,
		Reviewer: tokenreview.New(client.AuthenticationV1().TokenReviews(), v1alpha1.RegistryAudience),
		Roots:    needed.read, GCInterval: f.gcInterval, GCGrace: f.grace,
		ScrubInterval: f.scrubInterval, ScrubRate: f.scrubRate << 20,
	}
	if f.s3.Bucket != "" {
		options.S3 = &f.s3
	}
	kept, err := registry.New(options) //nolint:contextcheck // Close ends it
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
	if err != nil {
		return errors.Join(fmt.Errorf("artifact registry: %w", err), kept.Close())
	}
	log.Info("artifact registry", "dir", f.dir, "bucket", f.s3.Bucket, "address", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return kept.Serve(ctx, tls.NewListener(listener, &tls.Config{
			GetCertificate: certificate.GetCertificate, MinVersion: tls.VersionTLS13,
		}))
	})
	group.Go(func() error { return certificate.Start(ctx) })
	group.Go(func() error { return serveMetrics(ctx, config, f) })
	return group.Wait()
}

func serveMetrics(ctx context.Context, config *rest.Config, f *registryFlags) error {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	server, err := metricsserver.NewServer(metricsOptions(f.metricsAddress, f.metricsSecure), config, client)
	if err != nil || server == nil {
		return err
	}
	return server.Start(ctx)
}
