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

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/controllers/tokenreview"
)

// reviewQPS is far more than pods that ask once a minute need; the registry bounds what strangers cost.
const reviewQPS = 100

type registryFlags struct {
	kubeconfig      string
	dir, address    string
	tlsDir, manager string
	metricsAddress  string
	metricsSecure   bool
	logging         logging
}

func parseRegistryFlags(args []string) (*registryFlags, error) {
	var f registryFlags
	set := flag.NewFlagSet("manager registry", flag.ContinueOnError)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` of the cluster (default: the one this pod is in)")
	set.StringVar(&f.dir, "dir", "", "`folder` that keeps the artifacts")
	set.StringVar(&f.address, "address", ":5000", "`address` to serve on")
	set.StringVar(&f.tlsDir, "tls-dir", "", "`folder` with tls.crt and tls.key, which are read again when they change")
	set.StringVar(&f.manager, "manager-account", "", "`namespace/name` of the service account that may push")
	set.StringVar(&f.metricsAddress, "metrics-address", ":9090", "`address` of /metrics; 0 for none")
	set.BoolVar(&f.metricsSecure, "metrics-secure", true, "serve /metrics over TLS, to who may read them by RBAC")
	f.logging.flags(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	namespace, name, ok := strings.Cut(f.manager, "/")
	if f.dir == "" || f.tlsDir == "" || !ok || namespace == "" || name == "" || set.NArg() > 0 {
		fmt.Fprintln(set.Output(), "expected --dir, --tls-dir, --manager-account namespace/name, and no other arguments")
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
	if log, err = f.logging.open(log, os.Stderr); err != nil {
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
	kept, err := registry.New(registry.Options{ //nolint:contextcheck // Close ends it
		Dir: f.dir, Manager: f.manager, Log: log, Metrics: metrics.Registry,
		Reviewer: tokenreview.New(client.AuthenticationV1().TokenReviews(), v1alpha1.RegistryAudience),
	})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
	if err != nil {
		return errors.Join(fmt.Errorf("artifact registry: %w", err), kept.Close())
	}
	log.Info("artifact registry", "dir", f.dir, "address", listener.Addr().String())
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
