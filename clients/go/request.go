package sidecar

import "context"

// RequestSession is what a middleware knows of the session of a request that it let pass.
type RequestSession struct {
	ID ID
	// Answer is a *Live; or an *Unreachable, of a request that FailOpen let pass.
	Answer Answer
}

// Live is what the sidecar said; nil if nobody could know.
func (s *RequestSession) Live() *Live {
	live, _ := s.Answer.(*Live)
	return live
}

type contextKey struct{}

// NewContext is ctx with the session of a request.
func NewContext(ctx context.Context, session *RequestSession) context.Context {
	return context.WithValue(ctx, contextKey{}, session)
}

// FromContext is the session of a request that passed a middleware of this module; nil if it has none, on a public route.
func FromContext(ctx context.Context) *RequestSession {
	session, _ := ctx.Value(contextKey{}).(*RequestSession)
	return session
}
