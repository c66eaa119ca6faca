package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/switchyard-dev/switchyard/api/v1alpha1"
	"github.com/switchyard-dev/switchyard/cmd/logging"
	"github.com/switchyard-dev/switchyard/controllers/artifact"
	"github.com/switchyard-dev/switchyard/controllers/attempt"
	"github.com/switchyard-dev/switchyard/controllers/certificates"
	"github.com/switchyard-dev/switchyard/controllers/inferencepool"
	"github.com/switchyard-dev/switchyard/controllers/loraadapter"
	"github.com/switchyard-dev/switchyard/controllers/placement"
	"github.com/switchyard-dev/switchyard/controllers/source"
	"github.com/switchyard-dev/switchyard/controllers/telemetry"
	"github.com/switchyard-dev/switchyard/controllers/watching"
)

const (
	// A hundred adapters at once are some thousand writes; the API server has its own fairness.
	clientQPS   = 300
	clientBurst = 600

	retryLeast = time.Second
	retryMost  = 5 * time.Minute

	// certificatesSecret has the artifact registry's certificate, whoever keeps it.
	certificatesSecret   = "switchyard-registry-tls"
	certificatesSelf     = "self"
	certificatesOfOthers = "cert-manager"
)

type runFlags struct {
	kubeconfig, namespace         string
	metricsAddress, healthAddress string
	pprof                         string
	metricsSecure                 bool
	runtimeImage, runtimeRole     string
	registryURL, registryToken    string
	registryNamespace             string
	certificates, registryNames   string
	workDir                       string
	sourceAllow                   []netip.Prefix
	sourcePlainHTTP               []string
	recheck                       time.Duration
	leaderElect                   bool
	lease                         time.Duration
	logging                       logging.Flags
}

func parseRunFlags(args []string) (*runFlags, error) {
	var f runFlags
	set := flag.NewFlagSet("manager run", flag.ContinueOnError)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` of the cluster (default: the one this pod is in)")
	set.StringVar(&f.namespace, "namespace", "", "`namespace` of the manager's own objects: its lease, the certificate "+
		"of the artifact registry (default: this pod's)")
	set.StringVar(&f.metricsAddress, "metrics-address", ":9090", "`address` of /metrics; 0 for none")
	set.BoolVar(&f.metricsSecure, "metrics-secure", true, "serve /metrics over TLS, to who may read them by RBAC")
	set.StringVar(&f.healthAddress, "health-address", ":8081", "`address` of /healthz and /readyz; 0 for none")
	set.StringVar(&f.pprof, "pprof-address", "", "`address` of /debug/pprof/, for whoever may reach it; none by default")
	set.StringVar(&f.runtimeImage, "runtime-image", "", "`image` of the pools' pods")
	set.StringVar(&f.runtimeRole, "runtime-cluster-role", "switchyard-runtime",
		"`name` of the ClusterRole with what the pools' pods may do in their namespace")
	set.StringVar(&f.registryURL, "registry-url", "",
		"`URL` of the artifact registry, by which pods pull and the manager pushes: https://host:port")
	set.StringVar(&f.registryNamespace, "registry-namespace", "switchyard-system",
		"`namespace` of the artifact registry's pods, for the pools' NetworkPolicies; empty where it is not in the cluster")
	set.StringVar(&f.registryToken, "registry-token-file", "",
		"`file` with the manager's token for the artifact registry, of its audience; read again as it is renewed")
	set.StringVar(&f.certificates, "certificates", certificatesSelf,
		"who keeps the artifact registry's certificate in the Secret "+certificatesSecret+": self or cert-manager")
	set.StringVar(&f.registryNames, "registry-tls-names", "",
		"host `names` and addresses, separated by commas, by which the artifact registry is known besides --registry-url's")
	set.StringVar(&f.workDir, "work-dir", "", "`folder` in which sources are unpacked for a moment, no other manager's: "+
		"what a former process left there is removed (default: the system's, where it is not)")
	set.Func("source-allow-cidr", "`range` of addresses that sources may have though it is private, loopback or "+
		"otherwise special; may be given several times", f.allowSource)
	set.Func("source-plain-http", "`host:port` that is spoken to without TLS as a source, as loopback hosts are; may be "+
		"given several times", f.speakPlainly)
	set.DurationVar(&f.recheck, "recheck-interval", 10*time.Minute,
		"`time` after which it is looked again whether an artifact is still stored, or a bad source has become good")
	set.BoolVar(&f.leaderElect, "leader-elect", false, "wait until no other manager leads")
	set.DurationVar(&f.lease, "leader-elect-lease-duration", 15*time.Second,
		"`time` after which another manager takes over from one that is gone without a word")
	f.logging.Define(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, nil
		}
		return nil, errUsage // the flag set has said what is wrong
	}
	if f.runtimeImage == "" || f.registryURL == "" || f.registryToken == "" || f.lease <= 0 ||
		f.certificates != certificatesSelf && f.certificates != certificatesOfOthers || set.NArg() > 0 {
		fmt.Fprintln(set.Output(), "expected --runtime-image, --registry-url, --registry-token-file, --certificates self or "+
			"cert-manager, a lease of some time, and no other arguments")
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
	if log, err = f.logging.Open(log, os.Stderr); err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
	if f.namespace, err = ownNamespace(f.namespace); err != nil {
		return err
	}
	if err := clean(f.workDir); err != nil {
		return fmt.Errorf("--work-dir: %w", err)
	}
	mgr, err := newManager(ctx, f)
	if err != nil {
		return err
	}
	if err := placement.IndexFields(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := f.addControllers(mgr); err != nil {
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

// clean has the folder there, without what a process that was killed had unpacked in it; nothing else is removed.
func clean(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, pattern := range []string{inferencepool.TempPattern, loraadapter.TempPattern} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func newManager(ctx context.Context, f *runFlags) (ctrl.Manager, error) {
	rest, err := cluster(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	rest.QPS, rest.Burst = clientQPS, clientBurst
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
	if f.leaderElect {
		if err := (&fence{within: renew, now: time.Now, ending: ctx.Done()}).guard(rest); err != nil {
			return nil, err
		}
	}
	mgr, err := ctrl.NewManager(rest, ctrl.Options{
		Scheme: scheme,
		// A pool has one ConfigMap, which is looked at by its name: to cache it would take the right to list them all.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.ConfigMap{}}}},
		Cache: cache.Options{NewInformer: watching.NewInformer, ByObject: map[client.Object]cache.ByObject{
			&appsv1.Deployment{}: ours, &appsv1.ReplicaSet{}: ours, &corev1.Pod{}: ours, &corev1.ServiceAccount{}: ours,
			&rbacv1.RoleBinding{}: ours, &networkingv1.NetworkPolicy{}: ours, &policyv1.PodDisruptionBudget{}: ours,
			// All there are, others' as names: what is in the way of an adapter's may go.
			&corev1.Service{}: {Transform: leanService},
			// The one with the artifact registry's certificate. Those of sources are asked for when they are needed.
			&corev1.Secret{}: {Namespaces: map[string]cache.Config{f.namespace: {
				FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, certificatesSecret),
			}}},
		}},
		// A standby has read everything before it leads: what it takes over is wrong for as long as it reads.
		Controller:                    config.Controller{EnableWarmup: new(true)},
		Metrics:                       metricsOptions(f.metricsAddress, f.metricsSecure),
		HealthProbeBindAddress:        f.healthAddress,
		PprofBindAddress:              f.pprof,
		LeaderElection:                f.leaderElect,
		LeaderElectionID:              "manager.switchyard.dev",
		LeaderElectionNamespace:       f.namespace,
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

// leanService leaves of a Service whose it is, and all of ours.
func leanService(o any) (any, error) {
	service, ok := o.(*corev1.Service)
	if !ok { // a tombstone
		return o, nil
	}
	if owner := metav1.GetControllerOf(service); owner != nil &&
		strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/") {
		return service, nil
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: service.Namespace, Name: service.Name, UID: service.UID, ResourceVersion: service.ResourceVersion,
		OwnerReferences: service.OwnerReferences,
	}}, nil
}

// certificate is the Secret with the artifact registry's.
func (f *runFlags) certificate() types.NamespacedName {
	return types.NamespacedName{Namespace: f.namespace, Name: certificatesSecret}
}

// store is a client of the artifact registry, whose certificate is kept, too, unless cert-manager does.
func (f *runFlags) store(mgr ctrl.Manager, trust *certificates.Trust) (*artifact.Store, error) {
	u, err := url.Parse(f.registryURL)
	if err != nil || u.Host == "" || u.Scheme != "https" || u.Path != "" {
		return nil, fmt.Errorf("--registry-url: expected https://host:port, found %q", f.registryURL)
	}
	if f.certificates == certificatesSelf {
		names := strings.FieldsFunc(f.registryNames, func(r rune) bool { return r == ',' })
		err := certificates.New(certificates.Options{
			Client: mgr.GetClient(), Reader: mgr.GetCache(), Secret: f.certificate(),
			Names: append(names, u.Hostname()), Now: time.Now,
		}).SetupWithManager(mgr)
		if err != nil {
			return nil, err
		}
	}
	return artifact.NewStore(artifact.StoreOptions{
		Host: u.Host, Roots: trust.Pool, Token: func() (string, error) { return readSmall(f.registryToken) },
	})
}

func (f *runFlags) addControllers(mgr ctrl.Manager) error {
	trust := certificates.NewTrust(mgr.GetCache(), f.certificate())
	store, err := f.store(mgr, trust)
	if err != nil {
		return err
	}
	from := &source.Fetcher{
		Fetcher: artifact.NewFetcher(artifact.FetcherOptions{Allow: f.sourceAllow, PlainHTTP: f.sourcePlainHTTP}),
		Secrets: mgr.GetAPIReader(), // never the cache: it would list and watch them all
	}
	policy := attempt.Policy{Recheck: f.recheck, Least: retryLeast, Most: retryMost}
	recorder := mgr.GetEventRecorder("switchyard")
	counts, err := telemetry.NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	pools := inferencepool.New(inferencepool.Options{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Events: recorder, Metrics: counts, Source: from, Store: store,
		Trust: trust, TempDir: f.workDir, Policy: policy, Now: time.Now, Runtime: inferencepool.Runtime{
			Image: f.runtimeImage, Registry: f.registryURL, RegistryNamespace: f.registryNamespace,
			ClusterRole: f.runtimeRole,
		},
	})
	company := placement.NewCompany()
	adapters := loraadapter.New(loraadapter.Options{
		Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Events: recorder, Metrics: counts, Source: from, Store: store,
		Policy: policy, TempDir: f.workDir, Company: company, Now: time.Now,
	})
	objects := telemetry.NewObjects(mgr.GetCache(), map[telemetry.Kind]telemetry.Load{
		telemetry.Base: pools.Load, telemetry.Adapter: adapters.Load,
	})
	return errors.Join(
		metrics.Registry.Register(objects),
		pools.SetupWithManager(mgr),
		adapters.SetupWithManager(mgr),
		placement.New(mgr.GetClient(), company, time.Now).SetupWithManager(mgr),
	)
}
