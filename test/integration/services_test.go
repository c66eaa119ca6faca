package integration

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/switchyard-dev/switchyard/test/oip"
	"github.com/switchyard-dev/switchyard/test/wrappers"
)

// An adapter with a Service of its own is asked there as at its pool's, and its pods answer the same. The Service goes
// with the adapter, and the pool's answers on.
func TestAnAdapterAtAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "holes")
	adapter := wrappers.LoRAAdapter(s.ns, "parity").Pool(poolName).Source(place.Ref("parity", "v1")).Service().Obj()
	s.apply(adapter)
	s.awaitServed("parity", 2)
	ask := func(service string) []oip.Answer {
		t.Helper()
		at, err := place.Endpoint(t.Context(), s.ns, service)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := oip.Infer(t.Context(), at.HTTP, "parity", oip.Request{Inputs: []oip.Tensor{oip.Images(image)}})
		if err != nil {
			t.Fatalf("%s at %s: %v", service, at.HTTP, err)
		}
		return answers
	}
	want := ask(poolName)
	for range 4 { // each pod twice
		if found := ask("parity"); !reflect.DeepEqual(found, want) {
			t.Errorf("expected %+v, found %+v", want, found)
		}
	}
	s.kubectl("delete", "lora", "parity")
	s.awaitGone(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "parity"}})
	s.awaitServed("holes", 2)
}
