package cutover

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"reprise/io/elasticsearchio"
	"reprise/transforms/fail"
)

// Step is one step of a cut-over.
type Step string

// The steps.
const (
	Create   Step = "create"
	Backfill Step = "backfill"
	CatchUp  Step = "catch-up"
	Verify   Step = "verify"
	Swap     Step = "swap"
	Switch   Step = "switch" // from another cluster alone
	Settle   Step = "settle"
	Watch    Step = "watch"
	Retire   Step = "retire"
)

// Steps are all steps in their order.
var Steps = []Step{Create, Backfill, CatchUp, Verify, Swap, Switch, Settle, Watch, Retire}

// Proof is how a step was proven.
type Proof struct {
	At    time.Time `json:"at"`
	Began time.Time `json:"began,omitzero"` // what was written at the source before is in the index
	Run   string    `json:"run,omitempty"`
	Told  string    `json:"told"` // for people
}

// State is how far a cut-over is, as it is noted in the new index.
type State struct {
	Alias  string          `json:"alias"`
	Proven map[Step]*Proof `json:"proven"`        // of the steps since catch-up; create and backfill are asked of the index and the journal
	Old    string          `json:"old,omitempty"` // the index that searches used, from just before the swap on; "": there was none
	UUID   string          `json:"uuid,omitempty"`
	Back   time.Time       `json:"back,omitzero"` // when the alias was moved back
}

// The codes of what is wrong when source and index differ, and when searches are not as they were.
const (
	NotClean    = "cutover.not_clean"
	WatchFailed = "cutover.watch"
)

// Work is what runs of the job do.
type Work interface {
	// Create makes the new index.
	Create(ctx context.Context) error
	// Backfilled tells whether the run that fills the index is done and balanced; nil: it is not yet.
	Backfilled(ctx context.Context, run string) (*Proof, error)
	// Backfill begins that run, or goes on with it.
	Backfill(ctx context.Context, run string) error
	// CatchUp writes what was written at the source since.
	CatchUp(ctx context.Context, since time.Time) (*Proof, error)
	// Verify compares source and index. Its error tells what is wrong.
	Verify(ctx context.Context) (*Proof, error)
}

// Cutover moves searches to a new index: an alias, or from another cluster.
type Cutover struct {
	Admin    *elasticsearchio.Admin // of the cluster of the new index
	From     *From                  // nil: searches use the same cluster
	Job      string                 // that makes the new index
	Index    string                 // the new one
	Alias    string
	NewAlias bool // the alias may be new
	Work     Work
	Watching Watching
}

// From is what searches use on another cluster.
type From struct {
	Admin *elasticsearchio.Admin
	Name  string // of an index or an alias
}

// View is where a cut-over stands.
type View struct {
	State
	Index   *elasticsearchio.IndexInfo // the new one; nil: not there
	Points  string                     // the index that the alias points to; "": there is no such alias
	Serves  string                     // the index on the other cluster that searches use, or used
	OldLeft bool                       // the old index is there
	Next    Step                       // "": all is done
}

// Look finds out where the cut-over stands. It changes nothing. Whatever would make a swap impossible is an error,
// before anything is done.
func (c *Cutover) Look(ctx context.Context) (*View, error) {
	v := &View{State: State{Alias: c.Alias, Proven: map[Step]*Proof{}}}
	var err error
	if v.Points, err = c.Admin.Aliased(ctx, c.Alias); err != nil {
		return nil, err
	}
	if v.Index, err = c.Admin.Index(ctx, c.Index); err != nil {
		return nil, err
	}
	if v.Index != nil && v.Index.Cutover != nil {
		if err := json.Unmarshal(v.Index.Cutover, &v.State); err != nil {
			return nil, fail.Job("cutover.state", "the state noted in the index %s cannot be read: %w", c.Index, err)
		}
		if v.Alias != c.Alias {
			return nil, fail.Job("cutover.other_alias", "the index %s is being cut over for the alias %s, not %s",
				c.Index, v.Alias, c.Alias)
		}
		if v.Proven == nil {
			v.Proven = map[Step]*Proof{}
		}
	}
	switch {
	case c.From != nil:
		if err := c.elsewhere(ctx, v); err != nil {
			return nil, err
		}
	case v.Points == "" && !c.NewAlias:
		return nil, fail.Job("cutover.no_alias", "there is no alias %q on the cluster of the new index", c.Alias).
			WithFix("is it the first index? then --new-alias. Do searches use another cluster? then name that in the " +
				"sink's replaces")
	}
	if v.Index == nil {
		v.Next = Create
		return v, nil
	}
	if v.Index.Job != c.Job {
		n, err := c.Admin.Count(ctx, c.Index)
		if err != nil {
			return nil, err
		}
		return nil, fail.Job("cutover.not_ours", "the index %s was not made by the job %s and holds %d documents",
			c.Index, c.Job, n).
			WithFix("name an index that does not exist yet, and let the job make it (create): nothing that is in " +
				"this one is proven")
	}
	v.Proven[Create] = &Proof{Run: v.Index.Run, Told: "made by run " + v.Index.Run}
	if v.Proven[Backfill], err = c.Work.Backfilled(ctx, v.Index.Run); err != nil {
		return nil, err
	}
	if v.Old != "" {
		old, err := c.old().Index(ctx, v.Old)
		if err != nil {
			return nil, err
		}
		v.OldLeft = old != nil && old.UUID == v.UUID
		if !v.OldLeft && v.Proven[Watch] != nil {
			v.Proven[Retire] = &Proof{Told: v.Old + " is gone"}
		}
	}
	// The alias itself tells whether it has moved.
	if v.Points == c.Index && v.Proven[Swap] == nil {
		v.Proven[Swap] = &Proof{Told: "the alias points to the index"}
	}
	if v.Points != c.Index {
		for _, s := range []Step{Swap, Switch, Settle, Watch, Retire} {
			delete(v.Proven, s)
		}
	}
	for _, s := range Steps {
		if v.Proven[s] == nil && (s != Retire || v.Old != "") && (s != Switch || c.From != nil) {
			v.Next = s
			break
		}
	}
	return v, nil
}

// elsewhere looks at what searches use on the other cluster.
func (c *Cutover) elsewhere(ctx context.Context, v *View) error {
	if v.Points != "" && v.Points != c.Index {
		return fail.Job("cutover.alias_taken", "the alias %s on the cluster of the new index points to %s already",
			c.Alias, v.Points).
			WithFix("do searches use that? then leave out replaces; else choose another alias")
	}
	serves, err := c.From.Admin.Behind(ctx, c.From.Name)
	switch {
	case err != nil:
		return err
	case serves != nil:
		v.Serves = serves.Name
	case v.Old == "":
		return fail.Job("cutover.no_old", "there is no index or alias %s", c.From.Admin.URL(c.From.Name)).
			WithFix("set replaces.index to what searches use there")
	}
	return nil
}

// old is the cluster of the index that is replaced.
func (c *Cutover) old() *elasticsearchio.Admin {
	if c.From != nil {
		return c.From.Admin
	}
	return c.Admin
}

// Here is the address that searches use once they are moved; There is the one on the other cluster.
func (c *Cutover) Here() string { return c.Admin.URL(c.Alias) }

// There is the address that searches use until then, on the other cluster.
func (c *Cutover) There() string { return c.From.Admin.URL(c.From.Name) }

// Describe says what a step is going to do.
func (c *Cutover) Describe(v *View, s Step) string {
	switch s {
	case Create:
		return fmt.Sprintf("make the index %s", c.Index)
	case Backfill:
		return fmt.Sprintf("fill %s by a run of the job", c.Index)
	case CatchUp:
		return fmt.Sprintf("write to %s what was written at the source since %s", c.Index, stamp(c.since(v)))
	case Verify:
		return fmt.Sprintf("compare the source with %s, both ways", c.Index)
	case Swap:
		if c.From != nil {
			return fmt.Sprintf("make the alias %s, which points to %s; searches go on at %s", c.Here(), c.Index,
				c.There())
		}
		if v.Points == "" {
			return fmt.Sprintf("make the alias %s, which points to %s", c.Alias, c.Index)
		}
		return fmt.Sprintf("move the alias %s from %s to %s, in one request", c.Alias, v.Points, c.Index)
	case Switch:
		return fmt.Sprintf("wait up to %s until searches have come to %s: let the application use it NOW, instead of "+
			"%s", c.Watching.Come, c.Here(), c.There())
	case Settle:
		return fmt.Sprintf("write to %s what was written at the source since %s", c.Index, stamp(c.since(v)))
	case Watch:
		return fmt.Sprintf("watch searches through %s for %s", c.Alias, c.Watching.For)
	case Retire:
		return fmt.Sprintf("DELETE the old index %s", c.old().URL(v.Old))
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// margin is for clocks that differ and for writes under way.
const margin = 5 * time.Minute

// since is the time after which writes may not be in the index.
func (c *Cutover) since(v *View) time.Time {
	for _, s := range []Step{Settle, CatchUp, Backfill} {
		if p := v.Proven[s]; p != nil && !p.Began.IsZero() {
			return p.Began.Add(-margin)
		}
	}
	return time.Time{}
}

// Do does the next step.
func (c *Cutover) Do(ctx context.Context, v *View) (*Proof, error) {
	began := time.Now()
	var p *Proof
	var err error
	switch v.Next {
	case Create:
		return &Proof{Told: "the index is there"}, c.Work.Create(ctx)
	case Backfill:
		if err := c.Work.Backfill(ctx, v.Index.Run); err != nil {
			return nil, err
		}
		p, err := c.Work.Backfilled(ctx, v.Index.Run)
		if err == nil && p == nil {
			err = fail.Job("cutover.backfill", "the backfill %s has not come to its end", v.Index.Run).
				WithFix("reprise resume %s, or this command again", v.Index.Run)
		}
		return p, err
	case CatchUp, Settle:
		p, err = c.Work.CatchUp(ctx, c.since(v))
	case Verify:
		if err = c.Admin.Refresh(ctx, c.Index); err == nil {
			if p, err = c.Work.Verify(ctx); fail.CodeOf(err) == NotClean {
				// What is missing may be what was written since: another catch-up comes before another verification.
				delete(v.Proven, CatchUp)
				if e := c.remember(ctx, v); e != nil {
					return nil, e
				}
			}
		}
	case Swap:
		p, err = c.swap(ctx, v)
	case Switch:
		p, err = c.switched(ctx)
	case Watch:
		p, err = c.watch(ctx, v)
	case Retire:
		return c.retire(ctx, v)
	default:
		return nil, fail.Job("cutover.done", "there is nothing left to do")
	}
	if err != nil {
		return nil, err
	}
	if p.At = time.Now(); p.Began.IsZero() && (v.Next == CatchUp || v.Next == Settle) {
		p.Began = began
	}
	v.Proven[v.Next] = p
	return p, c.remember(ctx, v)
}

// remember notes the state; what the index and the journal tell themselves is left out.
func (c *Cutover) remember(ctx context.Context, v *View) error {
	s := v.State
	s.Proven = map[Step]*Proof{}
	for step, p := range v.Proven {
		if step != Create && step != Backfill && step != Retire && p != nil {
			s.Proven[step] = p
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return c.Admin.Remember(ctx, c.Index, text)
}

func (c *Cutover) swap(ctx context.Context, v *View) (*Proof, error) {
	v.Old, v.UUID, v.Back = v.Points, "", time.Time{}
	name := c.Alias
	if c.From != nil {
		v.Old, name = v.Serves, c.From.Name
	}
	if err := c.ready(ctx, v); err != nil {
		return nil, err
	}
	var like json.RawMessage
	if v.Old != "" {
		old, err := c.old().Index(ctx, v.Old)
		if err != nil {
			return nil, err
		}
		if old == nil {
			return nil, fail.Job("cutover.moved", "the index %s is gone", v.Old)
		}
		v.UUID, like = old.UUID, old.Aliases[name]
	}
	if err := c.remember(ctx, v); err != nil {
		return nil, err
	}
	if err := c.Admin.Swap(ctx, c.Alias, v.Points, c.Index, like); err != nil {
		return nil, err
	}
	v.Points = c.Index
	if c.From != nil {
		return &Proof{Told: fmt.Sprintf("the alias %s is there; let the application use it instead of %s", c.Here(),
			c.There())}, nil
	}
	return &Proof{Told: fmt.Sprintf("%s points to %s", c.Alias, c.Index)}, nil
}

// switched waits until the application searches the new index. Nothing of ours searches it meanwhile.
func (c *Cutover) switched(ctx context.Context) (*Proof, error) {
	before, err := c.Admin.Searches(ctx, c.Index)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; {
		if err := pause(ctx, c.Watching.every()); err != nil {
			return nil, err
		}
		now, err := c.Admin.Searches(ctx, c.Index)
		if err != nil {
			return nil, err
		}
		if now > before {
			return &Proof{Told: "searches come to " + c.Here()}, nil
		}
		before = now // less, where a node has been started anew
		if time.Since(began) > c.Watching.Come {
			return nil, fail.Job("cutover.not_switched", "no search has come to %s within %s: the application still "+
				"uses %s", c.Here(), c.Watching.Come, c.There()).
				WithFix("switch its address, then do this step again")
		}
	}
}

// quiet refuses an index that is being searched.
func (c *Cutover) quiet(ctx context.Context, at *elasticsearchio.Admin, index string) error {
	before, err := at.Searches(ctx, index)
	if err != nil {
		return err
	}
	while := 10 * c.Watching.every()
	if err := pause(ctx, while); err != nil {
		return err
	}
	now, err := at.Searches(ctx, index)
	if err == nil && now > before {
		err = fail.Job("cutover.searched", "%d searches of %s have come within %s", now-before, at.URL(index), while)
	}
	return err
}

// ready looks whether the new index can bear searches: no settings of a load, and as many copies of its shards as the
// old one.
func (c *Cutover) ready(ctx context.Context, v *View) error {
	switch {
	case v.Index.Loading != "":
		return fail.Job("cutover.loading", "the index %s has the settings for loading of run %s", c.Index,
			v.Index.Loading).
			WithFix("put them back: reprise unload JOB")
	case !v.Index.Refresh:
		return fail.Job("cutover.no_refresh", "the index %s does not refresh (refresh_interval -1): searches would "+
			"not see new documents", c.Index).
			WithFix("set index.refresh_interval")
	}
	least := 1
	if v.Old != "" {
		old, _, err := c.old().Health(ctx, v.Old)
		if err != nil {
			return err
		}
		least = max(least, old)
	}
	const patience = time.Minute
	for began := time.Now(); ; {
		now, made, err := c.Admin.Health(ctx, c.Index)
		if err != nil {
			return err
		}
		if now >= least && made == 0 {
			return nil
		}
		if time.Since(began) > patience {
			return fail.Job("cutover.not_ready", "the shards of %s are not all there, or %d copies are still being "+
				"made", c.Index, made).
				WithFix("wait until the index is as healthy as the old one; see GET _cat/shards/%s", c.Index)
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// Back moves the alias back to the old index; where searches came from another cluster, it removes the alias once
// they are there again.
func (c *Cutover) Back(ctx context.Context) (told string, err error) {
	v, err := c.Look(ctx)
	switch {
	case err != nil:
		return "", err
	case v.Points != c.Index:
		return "", fail.Job("cutover.not_swapped", "the alias %s points to %s: there is nothing to roll back", c.Alias,
			v.Points)
	case v.Old == "":
		return "", fail.Job("cutover.no_old", "it is not known where the alias %s pointed before", c.Alias)
	case !v.OldLeft:
		return "", fail.Job("cutover.no_old", "the old index %s is gone", v.Old).
			WithFix("restore it from a snapshot, or fill a new one")
	}
	to := v.Old
	if c.From != nil {
		to = ""
		if err := c.quiet(ctx, c.Admin, c.Index); err != nil {
			return "", fmt.Errorf("let the application use %s again first, which is as it was: %w", c.There(), err)
		}
	}
	if err := c.Admin.Swap(ctx, c.Alias, c.Index, to, v.Index.Aliases[c.Alias]); err != nil {
		return "", err
	}
	v.Back = time.Now()
	for _, s := range []Step{CatchUp, Verify, Swap, Switch, Settle, Watch} {
		delete(v.Proven, s)
	}
	if c.From != nil {
		return fmt.Sprintf("the alias %s is removed; %s is as it was", c.Here(), c.There()), c.remember(ctx, v)
	}
	return fmt.Sprintf("%s points to %s again; what was written through the alias since is in %s alone", c.Alias,
		v.Old, c.Index), c.remember(ctx, v)
}

func (c *Cutover) retire(ctx context.Context, v *View) (*Proof, error) {
	old, err := c.old().Index(ctx, v.Old)
	if err != nil {
		return nil, err
	}
	if !v.OldLeft || old == nil {
		return &Proof{Told: v.Old + " is gone"}, nil
	}
	if c.From != nil {
		delete(old.Aliases, c.From.Name)
	}
	if len(old.Aliases) > 0 {
		return nil, fail.Job("cutover.in_use", "aliases point to the old index %s: %s", v.Old,
			strings.Join(slices.Sorted(maps.Keys(old.Aliases)), ", ")).
			WithFix("move them first")
	}
	if c.From != nil {
		if err := c.quiet(ctx, c.From.Admin, v.Old); err != nil {
			return nil, fmt.Errorf("the old index is still used: %w", err)
		}
	}
	return &Proof{Told: "deleted " + v.Old}, c.old().Delete(ctx, v.Old)
}

// Before tells whether one step comes before another.
func (s Step) Before(other Step) bool { return slices.Index(Steps, s) < slices.Index(Steps, other) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
