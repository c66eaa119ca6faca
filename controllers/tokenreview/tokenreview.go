// Package tokenreview asks the API server whose a service account's token is.
//
// A token is somebody's only if it was made for our audience: one that is meant for the API server, or for another
// service, is worth nothing here, so that nobody who gets one from its owner can come to us in the owner's name. That
// its pod and its account are still there is the API server's to check.
package tokenreview

import (
	"context"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// Reviewer asks for one audience.
type Reviewer struct {
	client   authenticationclient.TokenReviewInterface
	audience string
}

// New is a reviewer of tokens with that audience.
func New(client authenticationclient.TokenReviewInterface, audience string) *Reviewer {
	return &Reviewer{client, audience}
}

// Review is the user's name that a token is of; "" if it is nobody's, or of another audience. Its error says that the
// API server did not tell.
func (r *Reviewer) Review(ctx context.Context, token string) (user string, err error) {
	review, err := r.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{r.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token review: %w", err)
	}
	// An authenticator that knows of no audiences returns none, whatever was asked.
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, r.audience) {
		return "", nil
	}
	return review.Status.User.Username, nil
}
