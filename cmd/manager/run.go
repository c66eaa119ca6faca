package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/artifact/registry"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/inferencepool"
	"github.com/switchyard-dev/switchyard/controllers/loraadapter"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/controllers/source"
)

const (
	// A hundred adapters at once are some thousand writes; the API server has its own fairness.
	clientQPS   = 300
	clientBurst = 600

	retryLeast = time.Second
	retryMost  = 5 * time.Minute
)

type runFlags struct {
	kubeconfig, metricsAddress, healthAddress string
	runtimeImage                              string
	registryURL, tokenFile                    string
	sourceAllow                               []netip.Prefix
	sourcePlainHTTP                           []string
	recheck                                   time.Duration
	leaderElect                               bool
	leaderNamespace                           string
	lease                                     time.Duration
}

func parseRunFlags(args []string) (*runFlags, error) {
	var f runFlags
	set := flag.NewFlagSet("manager run", flag.ContinueOnError)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` of the cluster (default: the one this pod is in)")
	set.StringVar(&f.metricsAddress, "metrics-address", ":9090", "`address` of /metrics; 0 for none")
	set.StringVar(&f.healthAddress, "health-address", ":8081", "`address` of /healthz and /readyz; 0 for none")
	set.StringVar(&f.runtimeImage, "runtime-image", "", "`image` of the pools' pods")
	set.StringVar(&f.registryURL, "registry-url", "",
		"`URL` of the artifact registry, by which pods pull and the manager pushes: https://host:port")
	set.StringVar(&f.tokenFile, "registry-push-token-file", "",
		"`file` with the token that pushing takes")
	set.Func("source-allow-cidr", "`range` of addresses that sources may have though it is private, loopback or otherwise "+
		"special; may be given several times", f.allowSource)
	set.Func("source-plain-http", "`host:port` that is spoken to without TLS as a source, as loopback hosts are; may be "+
		"given several times", f.speakPlainly)
	set.DurationVar(&f.recheck, "recheck-interval", 10*time.Minute,
		"`time` after which it is looked again whether an artifact is still stored, or a bad source has become good")
	set.BoolVar(&f.leaderElect, "leader-elect", false, "wait until no other manager leads")
	set.StringVar(&f.leaderNamespace, "leader-elect-namespace", "", "`namespace` of the lease (default: this pod's)")
	set.DurationVar(&f.lease, "leader-elect-lease-duration", 15*time.Second,
		"`time` after which another manager takes over from one that is gone without a word")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	if f.runtimeImage == "" || f.registryURL == "" || f.tokenFile == "" || f.lease <= 0 || set.NArg() > 0 {
		fmt.Fprintln(set.Output(), "expected --runtime-image, --registry-url, --registry-push-token-file, a lease of some "+
			"time, and no other arguments")
		set.Usage()
		return nil, errUsage
	}
	return &f, nil
}

func (f *runFlags) allowSource(value string) error {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return errors.New("expected a range as 10.0.0.0/8")
	}
	f.sourceAllow = append(f.sourceAllow, prefix.Masked())
	return nil
}

func (f *runFlags) speakPlainly(value string) error {
	if value == "" || strings.Contains(value, "/") {
		return errors.New("expected host or host:port, as the source names it")
	}
	f.sourcePlainHTTP = append(f.sourcePlainHTTP, value)
	return nil
}

// run runs the controllers until ctx ends.
func run(ctx context.Context, args []string, log *slog.Logger) error {
	f, err := parseRunFlags(args)
	if f == nil || err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	mgr, err := newManager(f)
	if err != nil {
		return err
	}
	store, err := f.store()
	if err != nil {
		return err
	}
	if err := placement.IndexFields(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := f.addControllers(mgr, store); err != nil {
		return err
	}
	go func() {
		select {
		case <-mgr.Elected():
			log.Info("this manager leads")
		case <-ctx.Done():
		}
	}()
	return mgr.Start(ctx)
}

func newManager(f *runFlags) (ctrl.Manager, error) {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	config.QPS, config.Burst = clientQPS, clientBurst
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	pools, err := labels.NewRequirement(v1alpha1.LabelPool, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	ours := cache.ByObject{Label: labels.NewSelector().Add(*pools)} // not the whole cluster's
	renew, retry := f.lease*2/3, f.lease*2/15                       // as client-go's own, 15 s, 10 s and 2 s
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&appsv1.Deployment{}: ours, &appsv1.ReplicaSet{}: ours, &corev1.Pod{}: ours,
			&corev1.Service{}: ours, &corev1.ServiceAccount{}: ours, &rbacv1.Role{}: ours, &rbacv1.RoleBinding{}: ours,
		}},
		Metrics:                       metricsserver.Options{BindAddress: f.metricsAddress},
		HealthProbeBindAddress:        f.healthAddress,
		LeaderElection:                f.leaderElect,
		LeaderElectionID:              "manager.switchyard.dev",
		LeaderElectionNamespace:       f.leaderNamespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &f.lease,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,
	})
	if err != nil {
		return nil, err
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping))
}

// store is a client of the artifact registry.
func (f *runFlags) store() (*artifact.Store, error) {
	u, err := url.Parse(f.registryURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" {
		return nil, fmt.Errorf("--registry-url: expected http://host:port or https://host:port, found %q", f.registryURL)
	}
	token, err := registry.ReadToken(f.tokenFile)
	if err != nil {
		return nil, err
	}
	return artifact.NewStore(artifact.StoreOptions{Host: u.Host, Token: token, PlainHTTP: u.Scheme == "http"})
}

func (f *runFlags) addControllers(mgr ctrl.Manager, store *artifact.Store) error {
	from := &source.Fetcher{
		Fetcher: artifact.NewFetcher(artifact.FetcherOptions{Allow: f.sourceAllow, PlainHTTP: f.sourcePlainHTTP}),
		Secrets: mgr.GetAPIReader(), // never the cache: it would list and watch them all
	}
	policy := attempt.Policy{Recheck: f.recheck, Least: retryLeast, Most: retryMost}
	recorder := mgr.GetEventRecorder("switchyard")
	return errors.Join(
		inferencepool.New(inferencepool.Options{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Events: recorder, Source: from, Store: store,
			Policy: policy, Now: time.Now, Runtime: inferencepool.Runtime{Image: f.runtimeImage, Registry: f.registryURL},
		}).SetupWithManager(mgr),
		loraadapter.New(loraadapter.Options{
			Client: mgr.GetClient(), Events: recorder, Source: from, Store: store, Policy: policy, Now: time.Now,
		}).SetupWithManager(mgr),
		placement.New(mgr.GetClient(), time.Now).SetupWithManager(mgr),
	)
}
