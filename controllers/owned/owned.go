// Package owned makes the objects of an owner what they should be, by server-side apply, and those of nobody else. It
// knows no kinds: owner, object and what it should be come in by parameter.
//
// Invariants:
//   - An object that has another controller, or none, is neither changed nor deleted.
//   - What is as it was when it was last applied is not written again.
//   - What others put into an object stays, unless what is wanted cannot be had beside it.
package owned

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Piece is one object of an owner: as it should be, and an empty one of its name, into which what is there is read.
type Piece struct {
	Kind   string
	Wanted runtime.ApplyConfiguration
	Live   client.Object
}

// Standing is how an object stands with its owner.
type Standing int

// The standings.
const (
	Own     Standing = iota // it is the owner's, and as it should be
	Former                  // of a former owner of that name, on its way out: whoever watches is called when it is gone
	Foreign                 // somebody else's
)

// Objects are those of owners of one kind. Safe for concurrent use.
type Objects struct {
	client client.Client
	reader client.Reader
	as     client.FieldOwner

	mu      sync.Mutex
	applied map[types.NamespacedName]map[string]applied // by owner and kind
}

// applied is what was last applied, and which version of the object was seen then: as long as both are the same there
// is nothing to do.
type applied struct {
	sum     [sha256.Size]byte
	version string
}

// New is for owners of one kind, whose objects are written under a name. The reader is past the client's cache, which
// need not hold what is another's.
func New(c client.Client, reader client.Reader, as client.FieldOwner) *Objects {
	return &Objects{client: c, reader: reader, as: as, applied: map[types.NamespacedName]map[string]applied{}}
}

// Apply makes one object as it should be, unless it is as it was when that was last done, or is not the owner's.
func (o *Objects) Apply(ctx context.Context, owner client.Object, p Piece) (Standing, error) {
	raw, err := json.Marshal(p.Wanted)
	if err != nil {
		return Own, err
	}
	key := client.ObjectKeyFromObject(p.Live)
	err = o.client.Get(ctx, key, p.Live)
	if apierrors.IsNotFound(err) { // or the cache does not hold it: somebody else's
		err = client.IgnoreNotFound(o.reader.Get(ctx, key, p.Live))
	}
	if err != nil {
		return Own, err
	}
	there := p.Live.GetUID() != ""
	if there && !metav1.IsControlledBy(p.Live, owner) {
		return o.standing(owner, p.Live)
	}
	now := applied{sha256.Sum256(raw), p.Live.GetResourceVersion()}
	if there && o.last(owner, p.Kind) == now {
		return Own, nil
	}
	if err := o.write(ctx, p, raw); err != nil {
		return Own, err
	}
	o.keep(owner, p.Kind, now)
	return Own, nil
}

// write applies what is wanted, to nothing or to an object of the owner's.
func (o *Objects) write(ctx context.Context, p Piece, wanted []byte) error {
	there := p.Live.GetUID() != ""
	if there {
		if err := o.adopt(ctx, p.Live); err != nil {
			return err
		}
	}
	err := o.client.Apply(ctx, p.Wanted, o.as, client.ForceOwnership)
	var part struct {
		Spec json.RawMessage `json:"spec"`
	}
	if there && apierrors.IsInvalid(err) && json.Unmarshal(wanted, &part) == nil && part.Spec != nil {
		return o.replace(ctx, p.Live, part.Spec)
	}
	return err
}

// replace writes the spec that is wanted into an object as it was seen, with each list as a whole. Apply merges lists
// by keys, and so leaves what others put beside ours, with which the object may be invalid: a Service has no two ports
// of one name. What is refused even so is wrong with what is wanted.
func (o *Objects) replace(ctx context.Context, live client.Object, spec json.RawMessage) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": live.GetUID(), "resourceVersion": live.GetResourceVersion()},
		"spec":     spec,
	})
	if err != nil {
		return err
	}
	return o.client.Patch(ctx, live, client.RawPatch(types.MergePatchType, patch), o.as)
}

// adopt makes what was replaced as if it had been applied: it would stay when it is not wanted any more.
func (o *Objects) adopt(ctx context.Context, live client.Object) error {
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, sets.New(string(o.as)), string(o.as))
	if err != nil || patch == nil {
		return err
	}
	return o.client.Patch(ctx, live, client.RawPatch(types.JSONPatchType, patch), o.as)
}

// standing is that of an object that is not this owner's.
func (o *Objects) standing(owner, of client.Object) (Standing, error) {
	kind, err := apiutil.GVKForObject(owner, o.client.Scheme())
	if err != nil {
		return Foreign, err
	}
	former := metav1.GetControllerOf(of)
	if former != nil && former.APIVersion == kind.GroupVersion().String() && former.Kind == kind.Kind &&
		former.Name == owner.GetName() {
		return Former, nil
	}
	return Foreign, nil
}

// Delete deletes an object that is the owner's, as the cache has it; what is another's, or not there, stays as it is.
// One that has changed since stays too: whoever watches is called.
func (o *Objects) Delete(ctx context.Context, owner, live client.Object) error {
	if err := o.client.Get(ctx, client.ObjectKeyFromObject(live), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	if !metav1.IsControlledBy(live, owner) || !live.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid, version := live.GetUID(), live.GetResourceVersion()
	seen := client.Preconditions{UID: &uid, ResourceVersion: &version} // it may be another's by now
	if err := o.client.Delete(ctx, live, seen); !apierrors.IsConflict(err) {
		return client.IgnoreNotFound(err)
	}
	return nil
}

// Forget forgets what was applied of an owner that is gone.
func (o *Objects) Forget(owner types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.applied, owner)
}

func (o *Objects) last(owner client.Object, kind string) applied {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.applied[client.ObjectKeyFromObject(owner)][kind]
}

func (o *Objects) keep(owner client.Object, kind string, now applied) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := client.ObjectKeyFromObject(owner)
	if o.applied[key] == nil {
		o.applied[key] = map[string]applied{}
	}
	o.applied[key][kind] = now
}

// Refusal is what the API server said of an object that it does not take, for what is in it, for who asks or because of
// a webhook; "" for what passes by itself, such as a conflict or an API server that is away.
func Refusal(err error) string {
	var answer apierrors.APIStatus
	switch {
	case !errors.As(err, &answer), apierrors.IsConflict(err), apierrors.IsNotFound(err), apierrors.IsUnauthorized(err),
		apierrors.IsTooManyRequests(err), apierrors.IsTimeout(err):
		return ""
	case answer.Status().Code < http.StatusInternalServerError, apierrors.IsInternalError(err):
		return err.Error()
	}
	return ""
}
