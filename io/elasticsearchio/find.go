package elasticsearchio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/elastic/go-elasticsearch/v8/esapi"
	"golang.org/x/sync/errgroup"

	"reprise/io/connector"
	"reprise/transforms/fail"
	"reprise/transforms/record"
)

// What a request of Find asks for at most.
const (
	findRows = 100
	finders  = 4 // at once
)

// Find implements connector.Finder. It gets documents by their ids as they are at this moment, also what no search
// sees yet, whatever the query says. Ids come from the template id, and the index from a template as well; of an
// alias or pattern all its indices are asked, where a document without routing is found. A document under the id
// whose fields hold another key comes as it is.
func (s *Source) Find(ctx context.Context, keys []*record.Record, found func(i int, p connector.Page) error) error {
	o, err := s.open(ctx, s.config.retry().Deadline)
	if err != nil {
		return err
	}
	f := finder{opened: o, learned: &learned{at: map[string]bool{}}}
	if f.address, err = o.config.Addresses(o.schema); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(finders)
	var giving sync.Mutex
	for from := 0; from < len(keys); from += findRows {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			batch := keys[from:min(from+findRows, len(keys))]
			pages, err := f.find(ctx, batch)
			if err != nil {
				return err
			}
			giving.Lock()
			defer giving.Unlock()
			for i, p := range pages {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := found(from+i, p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// finder looks documents up.
type finder struct {
	*opened
	address func(*record.Record) (Address, error)
	learned *learned
}

// learned are the indices whose mappings a Find has looked at.
type learned struct {
	mu sync.Mutex
	at map[string]bool
}

// wanted is one document of a request.
type wanted struct {
	Index   string `json:"_index"`
	ID      string `json:"_id"`
	Routing string `json:"routing,omitempty"`
	Source  any    `json:"_source"`
	of      int    // which key asks
}

// find gives a page for each key.
func (f finder) find(ctx context.Context, keys []*record.Record) ([]connector.Page, error) {
	pages := make([]connector.Page, len(keys))
	var docs []wanted
	for i, key := range keys {
		a, err := f.address(key)
		if err != nil {
			pages[i].Dead = append(pages[i].Dead, deadDocument(hit{id: key.KeyText(), index: f.config.Index},
				fail.New(fail.Permanent, "elasticsearch.bad_key", "it cannot be looked up: %w", err)))
			continue
		}
		w := wanted{Index: a.Index, ID: a.ID, Routing: a.Routing, Source: f.wantedSource(), of: i}
		if len(w.ID) == 0 || len(w.ID) > maxID {
			continue // no document can have it
		}
		if !f.fixed {
			docs = append(docs, w)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(f.indices)) {
			w.Index = name
			docs = append(docs, w)
		}
	}
	if err := f.learn(ctx, docs); err != nil {
		return nil, err
	}
	for batch := range slices.Chunk(docs, findRows) {
		if err := f.get(ctx, batch, func(w wanted, h hit) { f.add(&pages[w.of], h, keys[w.of].Origin) }); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// learn looks at the mappings of indices that were not there when the source was opened.
func (f finder) learn(ctx context.Context, docs []wanted) error {
	f.learned.mu.Lock()
	defer f.learned.mu.Unlock()
	for _, w := range docs {
		if _, ok := f.known(w.Index); ok || f.learned.at[w.Index] || !isIndexName(w.Index) {
			continue
		}
		f.learned.at[w.Index] = true
		var found map[string]index
		err := connector.Request(ctx, f.config.retry(), func() (_ int, _ int64, err error) {
			found, err = f.client.indices(ctx, w.Index)
			return 0, 0, readError(err)
		})
		if err != nil {
			return err
		}
		for name, idx := range found {
			if err := f.know(name, &idx.Mappings); err != nil {
				return err
			}
		}
	}
	return nil
}

// get gives the documents that are there. What is too large together it gets in halves.
func (f finder) get(ctx context.Context, docs []wanted, found func(wanted, hit)) error {
	if len(docs) == 0 {
		return nil
	}
	limit := max(16<<20, int64(f.max)+1<<20)
	var hits []hit
	tooLarge := false
	err := connector.Request(ctx, f.config.retry(), func() (int, int64, error) {
		var err error
		var size int64
		hits, size, err = f.client.get(ctx, docs, limit)
		if tooLarge = errors.Is(err, errTooLarge); tooLarge {
			return 0, limit, nil
		}
		n := 0
		for _, h := range hits {
			if h.id != "" {
				n++
			}
		}
		return n, size, err
	})
	switch half := len(docs) / 2; {
	case tooLarge && half > 0:
		if err := f.get(ctx, docs[:half], found); err != nil {
			return err
		}
		return f.get(ctx, docs[half:], found)
	case tooLarge:
		found(docs[0], hit{id: docs[0].ID, index: docs[0].Index, tooLarge: true})
		return nil
	case err != nil:
		return err
	}
	for i, h := range hits {
		if h.id != "" {
			found(docs[i], h)
		}
	}
	return nil
}

// get gives a hit for each document, without an id where there is none.
func (c *client) get(ctx context.Context, docs []wanted, limit int64) (hits []hit, size int64, err error) {
	body, err := json.Marshal(map[string]any{"docs": docs})
	if err != nil {
		return nil, 0, err
	}
	text, err := c.read(ctx, esapi.MgetRequest{Body: bytes.NewReader(body)}, limit)
	if err != nil {
		return nil, 0, err
	}
	err = record.JSONParts(text, func(name, value string) error {
		if name != "docs" {
			return nil
		}
		return record.JSONParts(value, func(_, value string) error {
			h, err := parseFound(value)
			hits = append(hits, h)
			return err
		})
	})
	var e *fail.Error
	if errors.As(err, &e) {
		return nil, 0, err
	}
	if err == nil && len(hits) != len(docs) {
		err = errors.New("another number of documents than asked for")
	}
	return hits, int64(len(text)), badAnswer(err)
}

// parseFound reads one document of an answer of _mget.
func parseFound(text string) (hit, error) {
	there := false
	var refused error
	err := record.JSONParts(text, func(name, value string) error {
		switch name {
		case "found":
			there = value == "true"
		case "error":
			var c cause
			if err := json.Unmarshal([]byte(value), &c); err != nil {
				return err
			}
			if c.Type != "index_not_found_exception" {
				refused = getError(&c)
			}
		}
		return nil
	})
	if err != nil || refused != nil || !there {
		return hit{}, errors.Join(err, refused)
	}
	return parseHit(text)
}

// getError is the error of one document of an answer of _mget.
func getError(c *cause) error {
	switch c.Type {
	case "routing_missing_exception":
		return fail.Job("elasticsearch.routing", "%v", c).
			WithFix("name the template routing that the documents were written with")
	case "illegal_argument_exception", "index_closed_exception", "security_exception", "invalid_index_name_exception":
		return fail.Job("elasticsearch.find", "%v", c).WithFix("check index, id and routing")
	}
	return fail.New(fail.Transient, "elasticsearch.server", "%v", c)
}
