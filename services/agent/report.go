// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cacert.org/emergency/pkg/procedure"
	"cacert.org/emergency/pkg/rpc"
	deploymentv1 "cacert.org/emergency/proto/emergency/deployment/v1"
	emergencyv1 "cacert.org/emergency/proto/emergency/v1"
)

// Reports: what happened here becomes part of the history by the agent's own commands.

// meta is the common part of a report. Its request id comes from the job, so that a repeated report is recognised.
func meta(j *deploymentv1.Job, what string) *emergencyv1.CommandMeta {
	id := strings.ReplaceAll(j.GetId(), "/", ".") + "." + what
	if !eventForm.MatchString(j.GetId()) {
		sum := sha256.Sum256([]byte(j.GetId()))
		id = "job-" + hex.EncodeToString(sum[:16]) + "." + what
	}
	return &emergencyv1.CommandMeta{Incident: j.GetIncident(), RequestId: id}
}

// maxDetail keeps a report below what a command may hold.
const maxDetail = 8 << 10

// reportApply tells that the files were replaced, or that they were not and why.
func (a *Agent) reportApply(ctx context.Context, j *deploymentv1.Job, failure error) error {
	req := &emergencyv1.ReportApplyRequest{Meta: meta(j, "apply"), Binding: j.GetBinding(), Outcome: emergencyv1.ApplyOutcome_APPLY_OUTCOME_APPLIED, Detail: "applied by the agent on " + a.cfg.Name}
	if failure != nil {
		req.Outcome, req.Detail = emergencyv1.ApplyOutcome_APPLY_OUTCOME_FAILED, clean(failure.Error())
	}
	return a.send(ctx, "ReportApply", j, func(ctx context.Context) error {
		_, err := a.deployment.ReportApply(ctx, req)
		return err
	})
}

// clean makes a text fit to be sent: a command takes no control characters but line ends.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + " ..."
	}
	return s
}

// reportTree tells which tree is on the disk.
func (a *Agent) reportTree(ctx context.Context, j *deploymentv1.Job, before, now string, changed []string) error {
	req := &emergencyv1.ReportTreeRequest{Meta: meta(j, "tree"), Binding: j.GetBinding(), PreTree: before, PostTree: now, ChangedPaths: cleanAll(changed)}
	return a.send(ctx, "ReportTree", j, func(ctx context.Context) error {
		_, err := a.deployment.ReportTree(ctx, req)
		return err
	})
}

// maxPaths is how many paths a command may list.
const maxPaths = 10_000

func cleanAll(paths []string) []string {
	list := make([]string, min(len(paths), maxPaths))
	for i := range list {
		list[i] = clean(paths[i])
	}
	if more := len(paths) - len(list); more > 0 {
		list[maxPaths-1] = fmt.Sprintf("... and %d more", more+1)
	}
	return list
}

// confirm tells which tree the test server holds.
func (a *Agent) confirm(ctx context.Context, j *deploymentv1.Job, tree string) error {
	req := &emergencyv1.ConfirmTestServerRequest{Meta: meta(j, "confirm"), Binding: j.GetBinding(), Tree: tree, Environment: a.cfg.Name}
	return a.send(ctx, "ConfirmTestServer", j, func(ctx context.Context) error {
		_, err := a.review.ConfirmTestServer(ctx, req)
		return err
	})
}

// send gives a command until it is answered. A refusal is an answer: it is logged, and what the history lacks then it lacks
// for a reason that it knows itself, such as that the same was reported before.
func (a *Agent) send(ctx context.Context, what string, j *deploymentv1.Job, call func(context.Context) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 100*time.Millisecond, 5*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(ctx, rpc.DefaultTimeout)
		defer cancel()
		err := call(attempt)
		if err != nil && !comeAgain(err) {
			return struct{}{}, backoff.Permanent(err)
		}
		if err != nil {
			a.log.WarnContext(ctx, "a report waits for its service", "report", what, "job", j.GetId(), "error", err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	refusal, ok := rpc.RefusalOf(err)
	switch {
	case !ok:
		return away("%s: %w", what, err)
	case refusal.Reason == procedure.ReasonNoApplyRunning || refusal.Reason == procedure.ReasonRequestIDReused:
		a.log.InfoContext(ctx, "a report is not needed any more", "report", what, "job", j.GetId(), "reason", string(refusal.Reason))
	default:
		a.log.ErrorContext(ctx, "a report was refused", "report", what, "job", j.GetId(), "reason", string(refusal.Reason), "error", refusal.Message)
	}
	return nil
}

// comeAgain tells the errors of a service that is away or busy from its answers.
func comeAgain(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted, codes.Canceled:
		return true
	default:
		return false
	}
}
