// SPDX-License-Identifier: Apache-2.0

package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cacert.org/emergency/pkg/defect"
	"cacert.org/emergency/pkg/history"
)

// KeeperConfig says what a Keeper keeps and where. All fields down to Log are required.
type KeeperConfig struct {
	Store  history.Store
	Keys   *history.Keyring
	Tables Tables
	// New returns the projection, empty.
	New func() Tabular
	Log *slog.Logger

	// Verified are the blocks of the log whose signatures need not be verified again; nil for none.
	Verified *history.Verified
	// Batch is the most messages of one transaction, 512 if it is 0.
	Batch int
	// Pause waits before the next try after so many that failed in a row; by default longer each time, up to ten seconds.
	Pause func(ctx context.Context, failed int) error
	// Changed is told the status whenever it changes.
	Changed func(KeeperStatus)
}

// KeeperStatus is how a keeper does.
type KeeperStatus struct {
	Name    string
	Version int
	// Kept is the last sequence of which the rows are stored; Folded the last that was read.
	Kept, Folded uint64
	// Complete: readers may look at this version.
	Complete bool
	// Trouble is why nothing can be stored now; empty if it can.
	Trouble string
}

// Keeper feeds one projection from the stream and keeps its rows in a Tables store.
//
// The fold is in memory and starts from nothing with the process, so the rows are never read back: what the fold says up to
// the stored position is there already and is left out, what comes after it is written in batches. A version that is not
// complete yet is written in one transaction, unless its rows only grow: what never changes while the fold goes on, the rest
// at the end. While the store is away the changes wait, merged, and the keeper tries again, or begins its first build again:
// nobody else waits for it.
type Keeper struct {
	cfg KeeperConfig

	mu     sync.Mutex
	status KeeperStatus
}

// LogRolledBackError is returned when rows are kept of messages that the log does not have, or has otherwise: an old copy of
// the log was restored, its tail was lost, or the rows belong to another log. Nothing was written. Compare with
// errors.Is(err, history.ErrRolledBack).
type LogRolledBackError struct {
	ID     string
	At     history.Mark
	Detail string
}

func (e *LogRolledBackError) Error() string {
	return fmt.Sprintf("%s has read to sequence %d, and the log does not go with that: %s: %v", e.ID, e.At.Sequence, e.Detail, history.ErrRolledBack)
}

func (e *LogRolledBackError) Unwrap() error { return history.ErrRolledBack }

// FoldError is returned when the projection could not fold the stream: no try will do better, the program has to change.
type FoldError struct {
	ID  string
	Err error
}

func (e *FoldError) Error() string { return fmt.Sprintf("%s cannot fold the stream: %v", e.ID, e.Err) }
func (e *FoldError) Unwrap() error { return e.Err }

// NewKeeper returns a keeper that has read nothing yet.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	if cfg.Store == nil || cfg.Keys == nil || cfg.Tables == nil || cfg.New == nil || cfg.Log == nil {
		return nil, errors.New("projection: a dependency is missing")
	}
	if cfg.Batch == 0 {
		cfg.Batch = 512
	}
	if cfg.Pause == nil {
		cfg.Pause = pause
	}
	d := cfg.New().Definition()
	return &Keeper{cfg: cfg, status: KeeperStatus{Name: d.Name, Version: d.Version}}, nil
}

// pause doubles from a quarter of a second to ten.
func pause(ctx context.Context, failed int) error {
	t := time.NewTimer(min(10*time.Second, 125*time.Millisecond<<min(failed, 10)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Status is how it does now.
func (k *Keeper) Status() KeeperStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

func (k *Keeper) set(change func(*KeeperStatus)) {
	k.mu.Lock()
	before := k.status
	change(&k.status)
	after := k.status
	k.mu.Unlock()
	if after != before && k.cfg.Changed != nil {
		k.cfg.Changed(after)
	}
}

// Run keeps the rows until ctx ends. It outlives every failure of the store of rows and of the log; it returns a
// *LogRolledBackError or a *FoldError, after which a person has to look.
func (k *Keeper) Run(ctx context.Context) error {
	err := k.repeat(ctx, k.follow)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// CatchUp keeps the rows of everything that is in the log now, and returns. It tries as long as Run does.
func (k *Keeper) CatchUp(ctx context.Context) error {
	return k.repeat(ctx, func(ctx context.Context) error {
		_, err := k.catchUp(ctx)
		return err
	})
}

func (k *Keeper) repeat(ctx context.Context, run func(context.Context) error) error {
	for failed := 0; ; failed++ {
		before := k.Status().Kept
		err := run(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if k.Status().Kept != before {
			failed = 0
		}
		k.trouble(ctx, err)
		if k.final(err) {
			return err
		}
		if err := k.cfg.Pause(ctx, failed); err != nil {
			return err
		}
	}
}

func (k *Keeper) final(err error) bool {
	var back *LogRolledBackError
	var fold *FoldError
	return errors.As(err, &back) || errors.As(err, &fold)
}

func (k *Keeper) trouble(ctx context.Context, err error) {
	k.set(func(s *KeeperStatus) { s.Trouble = err.Error() })
	st := k.Status()
	if k.cfg.Changed != nil { // the same trouble again is still news: the log goes on meanwhile
		k.cfg.Changed(st)
	}
	k.cfg.Log.WarnContext(ctx, "rows of a projection cannot be kept now", "projection", st.Name, "version", st.Version, "kept", st.Kept, "error", err)
}

// keeping is one fold from the beginning, and what of it is not stored yet.
type keeping struct {
	*Keeper
	projection Tabular
	def        Definition
	judge      *judge

	stored  Position        // what the store has
	folded  history.Mark    // what the fold has
	changes []Change        // folded and not stored
	merged  map[string]int  // place in changes of the rows that may change again
	grows   map[string]bool // tables whose rows never change
	keys    map[string]int
	build   *building // while the first build of a version goes on
	second  bool      // another process was faster: it is let go first
}

func (k *Keeper) open(ctx context.Context) (*keeping, error) {
	x := &keeping{Keeper: k, projection: k.cfg.New(), judge: newJudge(k.cfg.Keys, k.cfg.Verified), merged: map[string]int{}, grows: map[string]bool{}, keys: map[string]int{}}
	x.def = x.projection.Definition()
	for _, t := range x.def.Tables {
		x.grows[t.Name], x.keys[t.Name] = t.AppendOnly, t.Key
	}
	var err error
	if x.stored, err = k.cfg.Tables.Open(ctx, x.def); err != nil {
		return nil, err
	}
	x.kept()
	return x, x.confirm(ctx)
}

func (x *keeping) kept() {
	x.set(func(s *KeeperStatus) { s.Kept, s.Complete, s.Trouble = x.stored.Sequence, x.stored.Complete, "" })
}

// confirm looks whether the log still has the message at the stored position (hardening 6.6).
func (x *keeping) confirm(ctx context.Context) error {
	err := confirm(ctx, x.cfg.Store, x.stored.Mark)
	if errors.Is(err, history.ErrRolledBack) {
		return x.rolledBack(err.Error())
	}
	return err
}

func (x *keeping) rolledBack(detail string) error {
	return &LogRolledBackError{ID: x.def.ID(), At: x.stored.Mark, Detail: detail}
}

// firstBatch is how many batches are one, while a version whose rows only grow is built: nobody waits for the first of them. As many are judged
// meanwhile.
const firstBatch = 16

// catchUp folds everything that is in the log now and stores what is missing.
func (k *Keeper) catchUp(ctx context.Context) (*keeping, error) {
	x, err := k.open(ctx)
	if err != nil {
		return nil, err
	}
	if !x.stored.Complete && !x.def.growsOnly() {
		if x.build, err = x.begin(ctx); err != nil {
			return nil, err
		}
		defer x.build.close()
	}
	if err := x.read(ctx); err != nil {
		return nil, err
	}
	return x, x.store(ctx, true)
}

// read folds the log from its beginning. Some messages are folded while the next are judged.
func (x *keeping) read(ctx context.Context) error {
	from := x.stored
	fold := newStage(firstBatch, func(block []*Judged) error { return x.foldFrom(ctx, block) })
	judge := newStage(1, func(block []history.Message) error { return fold.next(x.judge.judgeAll(block)) })
	var batch []history.Message
	err := x.cfg.Store.Scan(ctx, 0, func(m history.Message) error {
		batch = append(batch, m)
		if len(batch) < x.cfg.Batch && m.Sequence != from.Sequence && m.Sequence%history.BlockSize != 0 {
			return nil
		}
		block := batch
		batch = make([]history.Message, 0, len(block))
		return judge.next(block)
	})
	if err == nil && len(batch) > 0 {
		err = judge.next(batch)
	}
	return errors.Join(err, judge.end(), fold.end())
}

// foldFrom folds a block of a log that is read from its beginning, and stores what of it is not stored yet and can be.
func (x *keeping) foldFrom(ctx context.Context, block []*Judged) error {
	if err := x.fold(block); err != nil {
		return err
	}
	switch {
	case x.build != nil, x.folded.Sequence < x.stored.Sequence:
		return nil
	case !x.stored.Complete && x.folded.Sequence-x.stored.Sequence < uint64(firstBatch*x.cfg.Batch):
		return nil
	}
	return x.store(ctx, x.stored.Complete)
}

// fold applies what was judged. Changes up to the stored position are there already.
func (x *keeping) fold(block []*Judged) error {
	if len(block) == 0 {
		return nil
	}
	for _, m := range block {
		if m.Sequence == x.stored.Sequence && m.Mark() != x.stored.Mark {
			return x.rolledBack("another message is there")
		}
	}
	x.folded = block[len(block)-1].Mark()
	if err := defect.Contained(func() error { return x.projection.Apply(block) }); err != nil {
		return &FoldError{x.def.ID(), err}
	}
	x.set(func(s *KeeperStatus) { s.Folded = x.folded.Sequence })
	switch {
	case x.build != nil:
		return x.build.add(x.projection)
	case x.folded.Sequence < x.stored.Sequence: // those rows are stored
		if facts, ok := x.projection.(Streaming); ok {
			facts.TakeFacts() // or all of a long log would be in memory
		}
		return nil
	}
	x.collect()
	return nil
}

func (x *keeping) collect() {
	for _, c := range x.projection.Take() {
		if x.grows[c.Table] {
			if c.Sequence > x.stored.Sequence {
				x.changes = append(x.changes, c)
			}
			continue
		}
		if x.stored.Sequence > 0 && x.folded.Sequence <= x.stored.Sequence {
			continue
		}
		key := c.Table + " " + c.Row.key(x.keys[c.Table])
		if i, ok := x.merged[key]; ok {
			x.changes[i] = c
			continue
		}
		x.merged[key] = len(x.changes)
		x.changes = append(x.changes, c)
	}
}

// store writes what waits, however long the store is away. complete is whether the version is complete then.
func (x *keeping) store(ctx context.Context, complete bool) error {
	for failed := 0; ; failed++ {
		if x.second && x.folded.Sequence > x.stored.Sequence {
			if err := x.standBy(ctx); err != nil {
				return err
			}
		}
		to := Position{Mark: x.folded, Complete: complete || x.stored.Complete}
		if to == x.stored || x.folded.Sequence < x.stored.Sequence {
			return nil
		}
		err := x.commit(ctx, to)
		if err == nil {
			x.done(to)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		again, err := x.outcome(ctx, to, err)
		if err != nil || !again {
			return err
		}
		if err := x.cfg.Pause(ctx, failed); err != nil {
			return err
		}
	}
}

func (x *keeping) commit(ctx context.Context, to Position) error {
	if x.build != nil {
		return x.build.commit(ctx, to, x.projection.Take())
	}
	return x.cfg.Tables.Commit(ctx, x.def, Step{From: x.stored, To: to}, x.changes)
}

func (x *keeping) done(at Position) {
	x.stored, x.changes, x.merged, x.build = at, nil, map[string]int{}, nil
	x.kept()
}

// outcome looks what became of a commit that was answered by an error: it may be there all the same.
func (x *keeping) outcome(ctx context.Context, to Position, failed error) (again bool, err error) {
	if !errors.As(failed, new(*MovedError)) { // everyday where several processes keep the same rows
		x.trouble(ctx, failed)
	}
	at, err := x.cfg.Tables.Open(ctx, x.def)
	switch {
	case err != nil && x.build != nil:
		return false, err
	case err != nil:
		x.trouble(ctx, err)
		return true, nil
	case at == to:
		x.done(at)
		return false, nil
	case x.build != nil: // its rows went with it
		return false, fmt.Errorf("%w: the fold begins again", failed)
	case at == x.stored:
		return true, nil
	}
	return true, x.moved(ctx, at)
}

// standBy gives another process that keeps the same rows the time to store what came. If it does not, this one does.
func (x *keeping) standBy(ctx context.Context) error {
	if err := x.cfg.Pause(ctx, 0); err != nil {
		return err
	}
	at, err := x.cfg.Tables.Open(ctx, x.def)
	if err != nil || at == x.stored {
		x.second = false // what is wrong, the commit tells
		return nil
	}
	return x.moved(ctx, at)
}

// moved goes on from where another process has brought the rows meanwhile, after looking that it read the same log. Rows are
// a function of the stream: what this one has folded no further is all there, and would bring back what is gone since. Of what it has folded
// further, rows that may change may be written twice; those that are only added are left out.
func (x *keeping) moved(ctx context.Context, at Position) error {
	if at.Sequence < x.stored.Sequence || at.Complete != x.stored.Complete {
		return fmt.Errorf("%w: the fold begins again", &MovedError{x.def.ID(), at, x.stored})
	}
	err := confirm(ctx, x.cfg.Store, at.Mark)
	if errors.Is(err, history.ErrRolledBack) {
		x.stored = at
		return x.rolledBack("another process has read another message there")
	}
	if err != nil {
		return err
	}
	x.stored, x.second = at, true
	kept := x.changes
	x.changes, x.merged = nil, map[string]int{}
	for _, c := range kept {
		switch {
		case x.folded.Sequence <= at.Sequence:
			continue
		case x.grows[c.Table]:
			if c.Sequence > at.Sequence {
				x.changes = append(x.changes, c)
			}
			continue
		}
		x.merged[c.Table+" "+c.Row.key(x.keys[c.Table])] = len(x.changes)
		x.changes = append(x.changes, c)
	}
	x.kept()
	return nil
}

// follow catches up and keeps up.
func (k *Keeper) follow(ctx context.Context) error {
	x, err := k.catchUp(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	messages := make(chan history.Message, k.cfg.Batch)
	ended := make(chan error, 1)
	var following sync.WaitGroup
	following.Go(func() {
		ended <- k.cfg.Store.Follow(ctx, x.folded, func(m history.Message) error {
			select {
			case messages <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	err = x.keepUp(ctx, messages, ended)
	stop()
	following.Wait()
	return err
}

// keepUp stores what comes: all that is there in one transaction, up to a batch.
func (x *keeping) keepUp(ctx context.Context, messages <-chan history.Message, ended <-chan error) error {
	for {
		select {
		case err := <-ended:
			if errors.Is(err, history.ErrRolledBack) {
				return x.rolledBack(err.Error())
			}
			return err
		case m := <-messages:
			if err := x.takeAll(m, messages); err != nil {
				return err
			}
			if err := x.store(ctx, true); err != nil {
				return err
			}
		}
	}
}

func (x *keeping) takeAll(m history.Message, messages <-chan history.Message) error {
	batch := []history.Message{m}
	for len(batch) < x.cfg.Batch {
		select {
		case m = <-messages:
			batch = append(batch, m)
			continue
		default:
		}
		break
	}
	return x.fold(x.judge.judgeAll(batch))
}

// building is the first build of a version: rows that never change are written while the fold goes on.
type building struct {
	Build
	next    []Change
	batches chan []Change
	failed  chan struct{} // closed when err is there
	done    chan struct{} // closed when all is written
	err     error
}

// buildingBatch is about how many rows are written at once.
const buildingBatch = 1 << 14

func (x *keeping) begin(ctx context.Context) (*building, error) {
	build, err := x.cfg.Tables.Build(ctx, x.def, x.stored)
	if err != nil {
		return nil, err
	}
	b := &building{Build: build, batches: make(chan []Change, 1), failed: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		for rows := range b.batches {
			if b.err = build.Add(ctx, rows); b.err != nil {
				close(b.failed)
				return
			}
		}
	}()
	return b, nil
}

// add takes what can be written already.
func (b *building) add(p Tabular) error {
	facts, ok := p.(Streaming)
	if !ok {
		return nil
	}
	if b.next == nil {
		b.next = make([]Change, 0, buildingBatch+buildingBatch/4)
	}
	if b.next = append(b.next, facts.TakeFacts()...); len(b.next) < buildingBatch {
		return nil
	}
	return b.write()
}

func (b *building) write() error {
	select {
	case b.batches <- b.next:
		b.next = nil
		return nil
	case <-b.failed:
		return b.err
	}
}

// end waits until all is written.
func (b *building) end() error {
	if b.batches != nil {
		close(b.batches)
		<-b.done
		b.batches = nil
	}
	return b.err
}

func (b *building) commit(ctx context.Context, to Position, changes []Change) error {
	if err := b.write(); err != nil {
		return err
	}
	if err := b.end(); err != nil {
		return err
	}
	return b.Build.Commit(ctx, to, changes)
}

func (b *building) close() {
	_ = b.end() // told by commit
	b.Close()
}
