// Package gate is what the middlewares of HTTP and gRPC have in common: one question about one request.
package gate

import (
	"context"
	"errors"

	sidecar "session-sidecar"
)

// What is wrong with the session of a request, in the words of the sidecar's HTTP door.
const (
	Missing     = "SESSION_MISSING"
	Ended       = "SESSION_ENDED"
	Unknown     = "SESSION_UNKNOWN"
	ReadOnly    = "READ_ONLY_SESSION"
	Unavailable = "UNAVAILABLE"
)

// Question is what is asked of a request.
type Question struct {
	IDs     []sidecar.ID // All that it names; more than one are nobody: it cannot be told which one is meant.
	Public  bool         // Only look: no time runs.
	Passive bool         // Never activity.
	Hints   *sidecar.Hints
	// NoAlias refuses a former id as ended. For ids out of cookies: they may be somebody's copy from before a Rotate.
	NoAlias bool
}

// Verdict is what came of it. Error is empty for a session that lives, or that FailOpen takes for one.
type Verdict struct {
	Session *sidecar.RequestSession // nil if there is an Error.
	Error   string
	Answer  sidecar.Answer // nil if the sidecar was not asked, or said nothing of a session.
	Cause   error          // Why the sidecar said nothing, if that is the program's or the configuration's mistake.
}

// Ask asks the sidecar. An error is the context's: the caller has gone.
func Ask(ctx context.Context, client *sidecar.Client, q Question) (Verdict, error) {
	if len(q.IDs) != 1 || q.IDs[0] == "" {
		return Verdict{Error: Missing}, nil
	}
	id := q.IDs[0]
	answer, err := ask(ctx, client, id, q)
	var (
		invalid *sidecar.InvalidRequestError
		refused *sidecar.RefusedError
	)
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return Verdict{}, err
	case errors.As(err, &invalid): // Whatever somebody sent.
		return Verdict{Error: Missing}, nil
	case errors.As(err, &refused) && refused.Reason == ReadOnly:
		return Verdict{Error: ReadOnly}, nil
	case err != nil:
		return Verdict{Error: Unavailable, Cause: err}, nil
	}
	switch answer := answer.(type) {
	case *sidecar.Ended:
		return Verdict{Error: Ended, Answer: answer}, nil
	case *sidecar.Unknown:
		return Verdict{Error: Unknown, Answer: answer}, nil
	case *sidecar.Live:
		if answer.Status.Alias && q.NoAlias {
			rotated := &sidecar.Ended{End: sidecar.End{Reason: sidecar.RotatedAway, Actor: sidecar.ActorSystem}}
			return Verdict{Error: Ended, Answer: rotated}, nil
		}
	case *sidecar.Unreachable:
		if !answer.Allowed() {
			return Verdict{Error: Unavailable, Answer: answer}, nil
		}
	}
	return Verdict{Session: &sidecar.RequestSession{ID: id, Answer: answer}, Answer: answer}, nil
}

func ask(ctx context.Context, client *sidecar.Client, id sidecar.ID, q Question) (sidecar.Answer, error) {
	if q.Public {
		return client.Check(ctx, id)
	}
	options := sidecar.TouchOptions{Hints: q.Hints}
	if q.Passive {
		options.Activity = sidecar.ActivityBackground
	}
	return client.Touch(ctx, id, options)
}
