package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"
	"gopkg.in/inf.v0"
)

// asset is a row of the corpus as a hand-written program would hold it, and its document, which holds all fields, as
// ours does.
type asset struct {
	Type          string                  `json:"asset_type"`
	Bucket        string                  `json:"bucket"`
	ID            gocql.UUID              `json:"id"`
	Title         string                  `json:"title"`
	Description   string                  `json:"description"`
	Payload       string                  `json:"payload"`
	SchemaVersion int8                    `json:"schema_version"`
	Published     bool                    `json:"published"`
	Priority      int16                   `json:"priority"`
	Views         int                     `json:"views"`
	Size          int64                   `json:"size"`
	Checksum      *big.Int                `json:"checksum"`
	Price         *inf.Dec                `json:"price"`
	Score         float32                 `json:"score"`
	Rating        float64                 `json:"rating"`
	Thumbnail     []byte                  `json:"-"`
	Owner         gocql.UUID              `json:"owner"`
	UploadedFrom  string                  `json:"uploaded_from,omitempty"` // gocql fails at a null where this is a net.IP
	CreatedAt     time.Time               `json:"created_at,omitzero"`
	ShotOn        time.Time               `json:"shot_on,omitzero"`
	ShotAt        time.Duration           `json:"shot_at"`
	PlayTime      playTime                `json:"play_time"`
	Tags          []string                `json:"tags"`
	Attributes    map[string]string       `json:"attributes"`
	Renditions    []rendition             `json:"renditions"`
	Related       map[string][]gocql.UUID `json:"related"`
	Licence       licence                 `json:"licence"`
	Place         place                   `json:"place"`
	Embedding     vector                  `json:"-"`

	written [timedColumns]int64
}

type rendition struct {
	Name   string `cql:"name" json:"name"`
	Width  int    `cql:"width" json:"width"`
	Height int    `cql:"height" json:"height"`
	URL    string `cql:"url" json:"url"`
}

type licence struct {
	Name    string    `cql:"name" json:"name"`
	Holder  string    `cql:"holder" json:"holder"`
	Expires time.Time `cql:"expires" json:"expires,omitzero"`
	Regions []string  `cql:"regions" json:"regions"`
}

type place struct {
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
	Name      string  `json:"name"`
}

type playTime struct{ gocql.Duration }

// MarshalText implements encoding.TextMarshaler.
func (p playTime) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%dmo%dd%dns", p.Months, p.Days, p.Nanoseconds), nil
}

// vector is a vector<float, n>, which gocql does not know.
type vector []float32

// UnmarshalCQL implements gocql.Unmarshaler.
func (v *vector) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	*v = (*v)[:0]
	for ; len(data) >= 4; data = data[4:] {
		*v = append(*v, math.Float32frombits(binary.BigEndian.Uint32(data)))
	}
	return nil
}

// columns are those beside the partition key, in the order of dest. The first is of the key and has no write time.
var columns = strings.Fields(`id title description payload schema_version published priority views size checksum price score rating thumbnail
	owner uploaded_from created_at shot_on shot_at play_time tags attributes renditions related licence place embedding`)

const timedColumns = 26

// dest is where a row goes, with the write times or without.
func (a *asset) dest(writeTimes bool) []any {
	dest := []any{&a.ID, &a.Title, &a.Description, &a.Payload, &a.SchemaVersion, &a.Published, &a.Priority, &a.Views,
		&a.Size, &a.Checksum, &a.Price,
		&a.Score, &a.Rating, &a.Thumbnail, &a.Owner, &a.UploadedFrom, &a.CreatedAt, &a.ShotOn, &a.ShotAt,
		&a.PlayTime.Duration, &a.Tags, &a.Attributes,
		&a.Renditions, &a.Related, &a.Licence, &a.Place.Latitude, &a.Place.Longitude, &a.Place.Name, &a.Embedding}
	for i := range a.written {
		if writeTimes {
			dest = append(dest, &a.written[i])
		}
	}
	return dest
}

// version is the latest write time, in microseconds.
func (a *asset) version() int64 {
	latest := int64(0)
	for _, at := range a.written {
		latest = max(latest, at)
	}
	return latest
}

// sum tells whether two readings gave the same rows.
type sum struct{ rows, versions atomic.Int64 }

// plainLoop reads a table by hand.
type plainLoop struct {
	session    *gocql.Session
	keyspace   string
	writeTimes bool
}

func (b *bench) session() (*gocql.Session, error) {
	cluster := gocql.NewCluster(b.Cassandra)
	cluster.ProtoVersion, cluster.PageSize, cluster.Timeout = 4, 5000, 30*time.Second
	cluster.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	return cluster.CreateSession()
}

// readers is how many partitions are read at once: as many as the splits of a job by default.
const readers = 4

// listed is the list of the columns, with the write times or without.
func listed(writeTimes bool) string {
	list := strings.Join(columns, ", ")
	if writeTimes {
		for _, c := range columns[1:] {
			list += ", MAXWRITETIME(" + c + ")"
		}
	}
	return list
}

// read gives the rows to the handler of the goroutine that reads them, which may keep none.
func (l plainLoop) read(ctx context.Context, handler func(reader int) func(*asset) error) error {
	cql := "SELECT " + listed(l.writeTimes) + " FROM " + l.keyspace + ".assets WHERE asset_type = ? AND bucket = ?"
	partitions := make(chan [2]string)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(partitions)
		iter := l.session.Query("SELECT DISTINCT asset_type, bucket FROM " + l.keyspace +
			".assets").WithContext(ctx).Iter()
		for p := [2]string{}; iter.Scan(&p[0], &p[1]); {
			select {
			case partitions <- p:
			case <-ctx.Done():
				return errors.Join(ctx.Err(), iter.Close())
			}
		}
		return iter.Close()
	})
	for reader := range readers {
		group.Go(func() error {
			a := &asset{}
			dest := a.dest(l.writeTimes)
			handle := handler(reader)
			for p := range partitions {
				a.Type, a.Bucket = p[0], p[1]
				iter := l.session.Query(cql, p[0], p[1]).WithContext(ctx).Iter()
				for iter.Scan(dest...) {
					if err := handle(a); err != nil {
						return errors.Join(err, iter.Close())
					}
				}
				if err := iter.Close(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// count only counts.
func (l plainLoop) count(ctx context.Context, s *sum) error {
	return l.read(ctx, func(int) func(*asset) error {
		return func(a *asset) error {
			s.rows.Add(1)
			s.versions.Add(a.version())
			return nil
		}
	})
}
