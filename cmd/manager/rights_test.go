package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// accounts are who of Switchyard speaks to the API server, each by a token of its own.
func (s *space) accounts() map[string]client.Client {
	s.t.Helper()
	s.create(s.pool("digits").Obj())
	pod := &s.runPods("digits", 1)[0]
	return map[string]client.Client{
		"manager":  holder(s.t, system, managerAccount, nil),
		"registry": holder(s.t, system, registryAccount, nil),
		"pod":      holder(s.t, s.namespace, "digits-runtime", pod),
		"nobody":   holder(s.t, s.namespace, "default", nil),
	}
}

// rights are all that each account may do, by namespace: "everywhere" is in every one. A right that is not here fails
// the test, and so does one that is here and is not given.
var rights = map[string]map[string][]string{
	"manager": {
		"everywhere": {
			"inferencepools.switchyard.dev: list watch",
			"loraadapters.switchyard.dev: list watch",
			"inferencepools.switchyard.dev/status: patch",
			"loraadapters.switchyard.dev/status: patch",
			"adapterassignments.switchyard.dev: create list update watch",
			"deployments.apps: create get list patch watch",
			"replicasets.apps: list watch",
			"pods: list watch",
			"services: create delete get list patch watch",
			"serviceaccounts: create get list patch watch",
			"configmaps: create get patch",
			"networkpolicies.networking.k8s.io: create get list patch watch",
			"poddisruptionbudgets.policy: create get list patch watch",
			"rolebindings.rbac.authorization.k8s.io: create get list patch watch",
			"clusterroles.rbac.authorization.k8s.io switchyard-runtime: bind",
			"events.events.k8s.io: create patch",
			"secrets: get", // those of sources, one by one
			"tokenreviews.authentication.k8s.io: create",
			"subjectaccessreviews.authorization.k8s.io: create",
		},
		system: {
			"leases.coordination.k8s.io: create",
			"leases.coordination.k8s.io manager.switchyard.dev: get update",
			"events: create patch",
			"secrets: create",
			"secrets switchyard-registry-tls: get list update watch",
		},
	},
	"registry": {
		"everywhere": {
			"inferencepools.switchyard.dev: list",
			"loraadapters.switchyard.dev: list",
			"adapterassignments.switchyard.dev: list",
			"tokenreviews.authentication.k8s.io: create",
			"subjectaccessreviews.authorization.k8s.io: create",
		},
	},
	"pod": {
		"its own": {
			"adapterassignments.switchyard.dev: list watch",
			"adapterassignments.switchyard.dev/status: patch",
		},
	},
}

// What the API server says that each account may do is what it has to do, and no more.
func TestRights(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	accounts := s.accounts()
	for who, by := range rights {
		for _, namespace := range []string{s.namespace, system, "kube-system", "default"} {
			want := slices.Concat(by["everywhere"], by[namespace])
			if namespace == s.namespace {
				want = append(want, by["its own"]...)
			}
			slices.Sort(want)
			everybodys := rightsOf(t, accounts["nobody"], namespace)
			s.until("rights of "+who+" in "+namespace, func() string {
				got := rightsOf(t, accounts[who], namespace)
				maps.DeleteFunc(got, func(right string, _ bool) bool { return everybodys[right] })
				return strings.Join(slices.Sorted(maps.Keys(got)), "\n")
			}, strings.Join(want, "\n"))
		}
	}
}

// rightsOf asks the API server for all rights of a client in a namespace, those to the whole cluster among them.
func rightsOf(t *testing.T, c client.Client, namespace string) map[string]bool {
	t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{}
	review.Spec.Namespace = namespace
	if err := c.Create(t.Context(), review); err != nil {
		t.Fatal(err)
	}
	if review.Status.Incomplete {
		t.Fatalf("the rights are incomplete: %s", review.Status.EvaluationError)
	}
	found := map[string]bool{}
	for _, rule := range review.Status.ResourceRules {
		verbs := strings.Join(slices.Sorted(slices.Values(rule.Verbs)), " ")
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					kind, sub, _ := strings.Cut(resource, "/")
					words := strings.TrimSuffix(kind+"."+group, ".")
					if sub != "" {
						words += "/" + sub
					}
					found[strings.TrimSpace(words+" "+name)+": "+verbs] = true
				}
			}
		}
	}
	return found
}

// One row for each thing that somebody might want of an account that was taken over, and does not get.
func TestForbidden(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	accounts := s.accounts()
	const own, elsewhere, cluster = "its own", "kube-system", ""
	for _, c := range []struct{ who, verb, resource, namespace string }{
		{"manager", "list", "secrets", own},
		{"manager", "watch", "secrets", own},
		{"manager", "list", "secrets", elsewhere},
		{"manager", "create", "secrets", own},
		{"manager", "update", "secrets", own},
		{"manager", "patch", "secrets", own},
		{"manager", "delete", "secrets", own},
		{"manager", "list", "configmaps", own},
		{"manager", "list", "configmaps", elsewhere},
		{"manager", "create", "pods", own},
		{"manager", "update", "pods", own},
		{"manager", "patch", "pods", own},
		{"manager", "get", "pods/log", own},
		{"manager", "create", "pods/exec", own},
		{"manager", "create", "pods/attach", own},
		{"manager", "create", "pods/portforward", own},
		{"manager", "get", "pods/proxy", own},
		{"manager", "patch", "pods/ephemeralcontainers", own},
		{"manager", "create", "pods/eviction", own},
		{"manager", "patch", "pods/status", own},
		{"manager", "create", "serviceaccounts/token", own},
		{"manager", "create", "serviceaccounts/token", elsewhere},
		{"manager", "get", "services/proxy", own},
		{"manager", "delete", "pods", own},
		{"manager", "deletecollection", "services", own},
		{"manager", "delete", "serviceaccounts", own},
		{"manager", "delete", "deployments.apps", own},
		{"manager", "delete", "rolebindings.rbac.authorization.k8s.io", own},
		{"manager", "delete", "networkpolicies.networking.k8s.io", own},
		{"manager", "delete", "poddisruptionbudgets.policy", own},
		{"manager", "delete", "adapterassignments.switchyard.dev", own},
		{"manager", "deletecollection", "adapterassignments.switchyard.dev", own},
		{"manager", "delete", "inferencepools.switchyard.dev", own},
		{"manager", "delete", "loraadapters.switchyard.dev", own},
		{"manager", "update", "inferencepools.switchyard.dev", own}, // a spec is its user's
		{"manager", "patch", "inferencepools.switchyard.dev", own},
		{"manager", "update", "loraadapters.switchyard.dev", own},
		{"manager", "patch", "loraadapters.switchyard.dev", own},
		{"manager", "patch", "adapterassignments.switchyard.dev/status", own},
		{"manager", "update", "adapterassignments.switchyard.dev/status", own},
		{"manager", "create", "roles.rbac.authorization.k8s.io", own},
		{"manager", "patch", "roles.rbac.authorization.k8s.io", own},
		{"manager", "escalate", "roles.rbac.authorization.k8s.io", own},
		{"manager", "bind", "roles.rbac.authorization.k8s.io", own},
		{"manager", "create", "clusterroles.rbac.authorization.k8s.io", cluster},
		{"manager", "patch", "clusterroles.rbac.authorization.k8s.io", cluster},
		{"manager", "escalate", "clusterroles.rbac.authorization.k8s.io", cluster},
		{"manager", "bind", "clusterroles.rbac.authorization.k8s.io", cluster}, // of any name
		{"manager", "create", "clusterrolebindings.rbac.authorization.k8s.io", cluster},
		{"manager", "patch", "clusterrolebindings.rbac.authorization.k8s.io", cluster},
		{"manager", "impersonate", "users", cluster},
		{"manager", "impersonate", "groups", cluster},
		{"manager", "impersonate", "serviceaccounts", own},
		{"manager", "create", "namespaces", cluster},
		{"manager", "delete", "namespaces", cluster},
		{"manager", "list", "nodes", cluster},
		{"manager", "get", "nodes/proxy", cluster},
		{"manager", "create", "daemonsets.apps", own},
		{"manager", "create", "statefulsets.apps", own},
		{"manager", "create", "jobs.batch", own},
		{"manager", "create", "persistentvolumes", cluster},
		{"manager", "patch", "customresourcedefinitions.apiextensions.k8s.io", cluster},
		{"manager", "patch", "validatingadmissionpolicies.admissionregistration.k8s.io", cluster},
		{"manager", "delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io", cluster},
		{"manager", "create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", cluster},
		{"manager", "approve", "signers.certificates.k8s.io", cluster},
		{"manager", "update", "leases.coordination.k8s.io", elsewhere},

		{"registry", "get", "secrets", own},
		{"registry", "list", "secrets", system},
		{"registry", "get", "configmaps", elsewhere},
		{"registry", "list", "pods", own},
		{"registry", "create", "pods", system},
		{"registry", "create", "pods/exec", own},
		{"registry", "create", "serviceaccounts/token", own},
		{"registry", "create", "deployments.apps", own},
		{"registry", "create", "rolebindings.rbac.authorization.k8s.io", own},
		{"registry", "get", "inferencepools.switchyard.dev", own},
		{"registry", "watch", "loraadapters.switchyard.dev", own},
		{"registry", "watch", "adapterassignments.switchyard.dev", own},
		{"registry", "patch", "inferencepools.switchyard.dev/status", own},
		{"registry", "patch", "loraadapters.switchyard.dev/status", own},
		{"registry", "create", "adapterassignments.switchyard.dev", own},
		{"registry", "update", "adapterassignments.switchyard.dev", own},
		{"registry", "patch", "adapterassignments.switchyard.dev/status", own},
		{"registry", "delete", "loraadapters.switchyard.dev", own},
		{"registry", "impersonate", "users", cluster},

		{"pod", "get", "secrets", own},
		{"pod", "list", "secrets", own},
		{"pod", "get", "configmaps", own},
		{"pod", "get", "pods", own},
		{"pod", "list", "pods", own},
		{"pod", "create", "pods", own},
		{"pod", "create", "pods/exec", own},
		{"pod", "create", "serviceaccounts/token", own},
		{"pod", "get", "services", own},
		{"pod", "list", "inferencepools.switchyard.dev", own},
		{"pod", "list", "loraadapters.switchyard.dev", own},
		{"pod", "create", "adapterassignments.switchyard.dev", own},
		{"pod", "update", "adapterassignments.switchyard.dev", own},
		{"pod", "patch", "adapterassignments.switchyard.dev", own},
		{"pod", "delete", "adapterassignments.switchyard.dev", own},
		{"pod", "list", "adapterassignments.switchyard.dev", elsewhere},
		{"pod", "list", "adapterassignments.switchyard.dev", system},
		{"pod", "patch", "adapterassignments.switchyard.dev/status", elsewhere},
		{"pod", "patch", "inferencepools.switchyard.dev/status", own},
		{"pod", "patch", "loraadapters.switchyard.dev/status", own},
		{"pod", "create", "events", own},
		{"pod", "list", "nodes", cluster},
		{"pod", "list", "namespaces", cluster},
		{"pod", "impersonate", "users", cluster},
	} {
		t.Run(fmt.Sprintf("%s %s %s in %s", c.who, c.verb, c.resource, c.namespace), func(t *testing.T) {
			if c.namespace == own {
				c.namespace = s.namespace
			}
			path, sub, _ := strings.Cut(c.resource, "/")
			resource, group, _ := strings.Cut(path, ".")
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: c.namespace, Verb: c.verb, Group: group, Resource: resource, Subresource: sub,
				},
			}}
			if err := accounts[c.who].Create(t.Context(), review); err != nil {
				t.Fatal(err)
			}
			if review.Status.Allowed {
				t.Errorf("expected a refusal, found: %s", review.Status.Reason)
			}
		})
	}
}
